"""The study file (TOML) → Study, checked before anything is spent."""

import difflib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import tomli_w
from optuna.distributions import BaseDistribution

from sn7.config import TrainConfig
from sn7.encoders import require_encoder
from sn7.errors import ConfigError, EncoderUnknown, ResultsConflict, SplitInvalid, StudyInvalid
from sn7.files import atomic_file
from sn7.folds import require_split_name
from sweep.space import parse_search

__all__ = ["Resources", "Study", "check_same_study", "load_study", "save_study"]

TABLES = ("study", "resources", "data", "train", "search")
RESERVED = ("prepared", "mlartifacts", "mlflow.db")
"""Names of folders that results/ has besides one a study."""


@dataclass(frozen=True)
class Resources:
    """What one trial, or one fold of the cross-validation, occupies."""

    gpu: float = 0.0
    """Share of a GPU; a training uses one at most."""
    cpu: int = 1


@dataclass(frozen=True)
class Study:
    """A study, complete and checked; see sweep/studies for examples."""

    name: str
    trials: int = 20
    """Configurations to try, the notebook recipe among them."""
    validation: str = "notebook"
    """A named split (notebook, lxastro0, random:SEED), or "folds": the objective is the mean over the folds."""
    folds: int = 5
    """Folds of the final cross-validation."""
    refit: int = 3
    """Best configurations that are trained on every fold and make up the ensemble."""
    grace_epochs: int = 0
    """Epochs that every trial gets before it can be pruned; 0 stands for a quarter of the epochs, at least 2."""
    max_hours: float = 0.0
    """No trial starts, and running ones end, after this many hours of search; 0 is no limit."""
    seed: int = 0
    resources: Resources = field(default_factory=Resources)
    data: str = ""
    """Folder of the data set, where the command line names none."""
    train: dict[str, Any] = field(default_factory=dict)
    """TrainConfig fields that stay."""
    search: dict[str, Any] = field(default_factory=dict)
    """TrainConfig fields that vary, as the file has them."""

    @property
    def base(self) -> TrainConfig:
        """The notebook recipe with the fields that stay: what every trial starts from."""
        return TrainConfig.from_dict(self.train)

    @property
    def space(self) -> dict[str, BaseDistribution]:
        """The search space, by field."""
        return parse_search(self.search)

    @property
    def grace(self) -> int:
        """Epochs before a trial can be pruned, resolved."""
        return self.grace_epochs or min(self.base.epochs, max(2, self.base.epochs // 4))

    def to_toml(self) -> dict[str, Any]:
        """Return the study as the tables of a study file, every default written out."""
        plain = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in TABLES}
        resources = {"gpu": self.resources.gpu, "cpu": self.resources.cpu}
        return {
            "study": plain,
            "resources": resources,
            "data": {"folder": self.data},
            "train": self.train,
            "search": self.search,
        }


def load_study(path: Path) -> Study:
    """Read and check a study file.

    Raises StudyInvalid with the file, the field, what was found and what was wanted.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise StudyInvalid(f"{path} does not exist; wanted a study file, such as sweep/studies/sample.toml.") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise StudyInvalid(f"{path} cannot be read as TOML ({error}); mend the file.") from error
    try:
        return check_study(_from_tables(content))
    except (StudyInvalid, ConfigError, EncoderUnknown, SplitInvalid) as error:
        raise StudyInvalid(f"{path}: {error}") from error


def _from_tables(content: Mapping[str, Any]) -> Study:
    for name, table in content.items():
        _known(name, TABLES, "table")
        if not isinstance(table, dict):
            raise StudyInvalid(f"{name} = {table!r} stands outside of a table; wanted it below [study].")
    study = dict(content.get("study", {}))
    if "name" not in study:
        raise StudyInvalid("study.name is missing; wanted the name of the results folder.")
    scalars = [f.name for f in fields(Study) if f.name not in TABLES]
    _typed(study, {f.name: f.type for f in fields(Study) if f.name in scalars}, "study")
    resources = dict(content.get("resources", {}))
    _typed(resources, {f.name: f.type for f in fields(Resources)}, "resources")
    data = content.get("data", {})
    _typed(data, {"folder": str}, "data")
    return Study(
        **study,
        resources=Resources(**resources),
        data=data.get("folder", ""),
        train=dict(content.get("train", {})),
        search=dict(content.get("search", {})),
    )


def _known(name: str, names: tuple[str, ...], what: str) -> None:
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(names)}."
        raise StudyInvalid(f"{name} is no {what} of a study file; {hint}")


def _typed(table: dict[str, Any], types: dict[str, Any], name: str) -> None:
    for key, value in table.items():
        _known(key, tuple(types), f"field of [{name}]")
        wanted = types[key]
        if wanted is float and type(value) is int:
            table[key] = float(value)
        elif type(value) is not wanted:
            raise StudyInvalid(f"{name}.{key} = {value!r} is of type {type(value).__name__}; wanted {wanted.__name__}.")


def check_study(study: Study) -> Study:
    """Return the study if it can be run, else raise StudyInvalid, ConfigError or EncoderUnknown."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", study.name) or study.name in RESERVED:
        raise StudyInvalid(
            f"study.name = {study.name!r}; wanted letters, digits, '.', '_' or '-', and none of {', '.join(RESERVED)}."
        )
    for name, low in (
        ("trials", 1),
        ("folds", 2),
        ("refit", 1),
        ("grace_epochs", 0),
        ("max_hours", 0),
        ("seed", 0),
    ):
        if not low <= getattr(study, name) < 2**31:
            raise StudyInvalid(f"study.{name} = {getattr(study, name)}; wanted at least {low}.")
    if study.refit > study.trials:
        raise StudyInvalid(f"study.refit = {study.refit} of study.trials = {study.trials}; wanted at most as many.")
    if study.resources.cpu < 1 or not 0 <= study.resources.gpu <= 1:
        raise StudyInvalid(f"resources = {study.resources}; wanted cpu of at least 1 and gpu from 0 to 1.")
    if study.validation != "folds":
        require_split_name(study.validation)
    _check_fields(study)
    return study


def _check_fields(study: Study) -> None:
    both = sorted(set(study.train) & set(study.search))
    if both:
        raise StudyInvalid(f"{', '.join(both)} stands in [train] and in [search]; wanted it in one of them.")
    base = study.base
    space = study.space
    if study.grace > base.epochs:
        raise StudyInvalid(f"study.grace_epochs = {study.grace} of {base.epochs} epochs; wanted at most as many.")
    if "epochs" in space:
        raise StudyInvalid("search.epochs cannot vary: trials are compared epoch by epoch; set it in [train].")
    for encoder in getattr(space.get("encoder"), "choices", (base.encoder,)):
        require_encoder(encoder)


def save_study(study: Study, path: Path) -> None:
    """Write a study as resolved, atomically; `load_study` reads it back as the same study."""
    with atomic_file(path) as temporary:
        temporary.write_text(tomli_w.dumps(study.to_toml()), encoding="utf-8")


def check_same_study(folder: Path, study: Study) -> None:
    """Raise ResultsConflict, with the difference, where `folder` holds the results of another study.

    More trials, another budget, other resources or another place of the data do not make it another study.
    """
    found = load_study(folder / "study.toml")
    free = {"trials": 1, "refit": 1, "max_hours": 0.0, "resources": Resources(), "data": ""}
    old, new = replace(found, **free), replace(study, **free)  # type: ignore[arg-type]
    if old != new:
        differences = [
            f"{f.name} = {getattr(old, f.name)!r} there, {getattr(new, f.name)!r} here"
            for f in fields(Study)
            if getattr(old, f.name) != getattr(new, f.name)
        ]
        raise ResultsConflict(
            f"{folder} holds the results of another study ({'; '.join(differences)}); "
            "name this one differently, or give another --results folder."
        )
