"""A study: what is searched, on what, and how far; checked before anything is spent."""

import re
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from sn7.config import RECIPES, TrainConfig
from sn7.encoders import require_encoder
from sn7.errors import StudyInvalid
from sn7.folds import require_split_name
from sn7.pretrained import require_pretrained
from sweep.searchtable import parse_search
from sweep.space import Space, notebook_point

__all__ = ["AUTO", "FREE", "TABLES", "Postprocess", "Resources", "Study", "check_study"]

TABLES = ("study", "resources", "prices", "data", "train", "search", "start", "postprocess")
RESERVED = ("prepared", "mlartifacts", "mlflow.db")
"""Names of folders that results/ has besides one a study."""
AUTO = "auto"
OBJECTIVES = ("f1", "dice")
"""What footprints can be tuned for."""
MOST = 2**31 - 1
LIMITS = {
    "trials": (1, MOST),
    "folds": (2, MOST),
    "refit": (1, MOST),
    "repeats": (1, 20),
    "grace_epochs": (0, MOST),
    "patience": (0, MOST),
    "max_hours": (0, MOST),
    "max_gpu_hours": (0, MOST),
    "max_cost": (0, MOST),
    "max_failures": (0, 100),
    "seed": (0, MOST),
}
"""Lowest and highest values of the numbers below [study]."""
FREE = ("trials", "refit", "repeats", "patience", "max_hours", "max_gpu_hours", "max_cost", "max_failures")
"""Fields of [study] that may change between two starts: they say how much is done, not what is compared."""


@dataclass(frozen=True)
class Resources:
    """What one trial, or one fold of the cross-validation, occupies."""

    gpu: float | str = 0.0
    """Share of a GPU, at most a whole one, or "auto": as large a share as --preflight finds that it needs."""
    cpu: int = 1

    @property
    def auto(self) -> bool:
        """Whether the share of a GPU is still to be measured."""
        return self.gpu == AUTO


@dataclass(frozen=True)
class Postprocess:
    """How the way from probs to footprints is tuned on out-of-fold probs, without training."""

    objective: str = "f1"
    """f1: F1 of footprints at IoU 0.25; dice: Dice of pixels."""
    trials: int = 40
    """Parameters that are tried for each fold on the other ones, and for all together; 0 tunes nothing."""
    images_per_scene: int = 2
    """Images, spread over a scene's months, that they are judged on."""
    tta: bool = False
    """Whether test-time augmentation is tried, too: eight times the inference, of these images and of later ones."""


@dataclass(frozen=True)
class Study:
    """A study, complete and checked; see sweep/studies for examples."""

    name: str
    trials: int = 20
    """Configurations to try, the notebook recipe among them."""
    validation: str = "notebook"
    """A named split (notebook, lxastro0, random:SEED), or "folds": the objective is the mean over the folds."""
    folds: int | str = 5
    """Folds of the final cross-validation: how many, or a CSV file that says which scene is in which."""
    refit: int = 3
    """Best configurations that are trained on every fold and make up the ensemble."""
    repeats: int = 1
    """Seeds that each of the best configurations is trained with on the validation split; 1 is no repeats."""
    grace_epochs: int = 0
    """Epochs that every trial gets before it can be pruned; 0 stands for a quarter of the epochs, at least 2."""
    patience: int = 0
    """The search ends when so many trials in a row have ended without a new best; 0 is never."""
    max_hours: float = 0.0
    """Budget of hours, over all starts; 0 is no limit. Trials that a budget cuts off go on with --resume."""
    max_gpu_hours: float = 0.0
    """Budget of hours of GPUs that trials hold; 0 is no limit."""
    max_cost: float = 0.0
    """Budget of dollars, at the prices of [prices]; 0 is no limit."""
    max_failures: int = 2
    """Further attempts of a trial that failed for a reason of its own."""
    warm_start: str = ""
    """Results folder of an earlier study, or its optuna.db, whose trials inform the search."""
    seed: int = 0
    resources: Resources = field(default_factory=Resources)
    prices: dict[str, float] = field(default_factory=dict)
    """Dollars per node-hour by type of node; "default" stands for nodes of other types."""
    postprocess: Postprocess = field(default_factory=Postprocess)
    data: str = ""
    """Folder of the data set, where the command line names none."""
    train: dict[str, Any] = field(default_factory=dict)
    """TrainConfig fields that stay."""
    search: dict[str, Any] = field(default_factory=dict)
    """TrainConfig fields that vary, as the file has them."""
    start: dict[str, Any] = field(default_factory=dict)
    """Values of fields that vary: a configuration known to be good, tried right after the notebook recipe."""

    @property
    def base(self) -> TrainConfig:
        """The notebook recipe with the fields that stay: what every trial starts from."""
        return TrainConfig.from_dict(self.train)

    @cached_property
    def space(self) -> Space:
        """The search space."""
        return parse_search(self.search)

    @cached_property
    def start_point(self) -> dict[str, Any]:
        """The second trial's values of the fields that vary there; empty where it is drawn like all others."""
        return self.space.point({**RECIPES["notebook"].to_dict(), **self.start}) if self.start else {}

    @property
    def separation(self) -> bool:
        """Whether a configuration can learn boundary and contact."""
        return any(weight > 0 for weight in (self.base.separation_weight, *self.space.values("separation_weight")))

    @property
    def upscales(self) -> tuple[int, ...]:
        """Scales above 1 that a configuration can be trained at, ascending."""
        return tuple(sorted({self.base.upscale, *self.space.all_values("upscale")} - {1}))

    @property
    def grace(self) -> int:
        """Epochs before a trial can be pruned, resolved."""
        return self.grace_epochs or min(self.base.epochs, max(2, self.base.epochs // 4))

    @property
    def limits(self) -> dict[str, Any]:
        """How much is to be done, and on what data, as plain values: with the same ones nothing is left to do."""
        free = {name: getattr(self, name) for name in FREE}
        return {**free, "data": self.data, "postprocess": asdict(self.postprocess)}

    def to_toml(self) -> dict[str, Any]:
        """Return the study as the tables of a study file, every default written out."""
        plain = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in TABLES}
        resources = {"gpu": self.resources.gpu, "cpu": self.resources.cpu}
        return {
            "study": plain,
            "resources": resources,
            **({"prices": self.prices} if self.prices else {}),  # an empty one is refused
            "data": {"folder": self.data},
            "train": self.train,
            "search": self.search,
            "start": self.start,
            "postprocess": asdict(self.postprocess),
        }


def check_study(study: Study) -> Study:
    """Return the study if it can be run, else raise StudyInvalid, ConfigError or EncoderUnknown."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", study.name) or study.name in RESERVED:
        raise StudyInvalid(
            f"study.name = {study.name!r}; wanted letters, digits, '.', '_' or '-', and none of {', '.join(RESERVED)}."
        )
    for name, (low, high) in LIMITS.items():
        value = getattr(study, name)
        if not isinstance(value, str) and not low <= value <= high:  # so written, it refuses NaN
            raise StudyInvalid(f"study.{name} = {value}; wanted at least {low} and at most {high}.")
    if study.refit > study.trials:
        raise StudyInvalid(f"study.refit = {study.refit} of study.trials = {study.trials}; wanted at most as many.")
    if study.validation != "folds":
        require_split_name(study.validation)
    _check_postprocess(study.postprocess)
    _check_resources(study)
    _check_fields(study)
    _check_search(study)
    _check_start(study)
    return study


def _check_postprocess(table: Postprocess) -> None:
    if table.objective not in OBJECTIVES:
        raise StudyInvalid(f"postprocess.objective = {table.objective!r}; wanted {' or '.join(OBJECTIVES)}.")
    for name, low in (("trials", 0), ("images_per_scene", 1)):
        if not low <= getattr(table, name) <= MOST:
            raise StudyInvalid(f"postprocess.{name} = {getattr(table, name)}; wanted at least {low}.")


def _check_resources(study: Study) -> None:
    """Raise StudyInvalid for resources that cannot be, or that contradict the budgets."""
    gpu = study.resources.gpu
    if isinstance(gpu, str) and gpu != AUTO:
        raise StudyInvalid(f'resources.gpu = {gpu!r}; wanted a share from 0 to 1, or "{AUTO}".')
    if study.resources.cpu < 1 or not (isinstance(gpu, str) or 0 <= gpu <= 1):
        raise StudyInvalid(f"resources = {study.resources}; wanted cpu of at least 1 and gpu from 0 to 1.")
    if study.max_gpu_hours and gpu == 0:
        raise StudyInvalid(
            f"study.max_gpu_hours = {study.max_gpu_hours:g} with resources.gpu = 0, which spends none; "
            "remove one of them."
        )
    if study.max_cost and not study.prices:
        raise StudyInvalid(
            f"study.max_cost = {study.max_cost:g} without prices; wanted a table [prices] with dollars per node-hour."
        )


def _check_fields(study: Study) -> None:
    if "epochs" in study.search:
        raise StudyInvalid("search.epochs cannot vary: trials are compared epoch by epoch; set it in [train].")
    both = sorted((set(study.train) & set(study.search)) - set(study.space.conditional))
    if both:
        raise StudyInvalid(f"{', '.join(both)} stands in [train] and, without `when`, in [search]; wanted one.")
    base = study.base
    if study.grace > base.epochs:
        raise StudyInvalid(f"study.grace_epochs = {study.grace} of {base.epochs} epochs; wanted at most as many.")
    if "auto" in (*study.space.values("batch_size"), base.batch_size):
        raise StudyInvalid(
            "batch_size = 'auto' depends on the machine that a trial lands on; wanted a number, such as one that "
            "--preflight finds room for."
        )
    for encoder in (*study.space.values("encoder"), base.encoder):
        require_encoder(encoder)
    if not {"encoder", "pretrained"} & set(study.space.conditional):  # else not every pair of values comes together
        for encoder in study.space.values("encoder") or (base.encoder,):
            for pretrained in study.space.values("pretrained") or (base.pretrained,):
                require_pretrained(replace(base, encoder=encoder, pretrained=pretrained))
    for pretrained in (*study.space.values("pretrained"), base.pretrained):
        if pretrained not in ("none", "imagenet") and not Path(pretrained).is_absolute():
            raise StudyInvalid(
                f"pretrained = {pretrained!r} is a relative path, and each trial stands in a folder of its own; wanted "
                f"a full one, such as {Path(pretrained).resolve()}."
            )


def _check_search(study: Study) -> None:
    """Raise StudyInvalid where other fields ask for more than the search can give."""
    if study.repeats > 1 and "seed" in study.search:
        raise StudyInvalid(
            f"study.repeats = {study.repeats} with search.seed: repeats differ in nothing but the seed; "
            "remove one of them."
        )
    size = study.space.size
    if size is not None and study.trials > size:
        raise StudyInvalid(
            f"study.trials = {study.trials} but [search] has {size} configurations, and none is tried twice: "
            "lower trials or widen [search]."
        )


def _check_start(study: Study) -> None:
    """Raise StudyInvalid where [start] is none of the configurations, or the notebook recipe, which comes first."""
    for name in study.start:
        if name not in study.space.fields:
            raise StudyInvalid(f"start.{name} is no field of [search]; move it to [train], or let it vary.")
        if name not in study.start_point:
            raise StudyInvalid(f"start.{name} does not vary beside the other values of [start]; remove it.")
    reason = study.space.reason_outside(study.start_point) if study.start else ""
    if reason:
        raise StudyInvalid(f"start: {reason}; wanted one of the configurations of [search].")
    if study.start and study.start_point == notebook_point(study.space):
        raise StudyInvalid("[start] is the notebook recipe, which is the first trial anyway; remove the table.")
