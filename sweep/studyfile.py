"""The study file (TOML) ↔ Study: read and checked, written as resolved, held against an earlier one."""

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import fields
from math import inf
from pathlib import Path
from typing import Any, get_args

import tomli_w

from sn7.errors import ConfigError, EncoderUnknown, ResultsConflict, SplitInvalid, StudyInvalid
from sn7.files import atomic_file
from sweep.study import FREE, TABLES, Postprocess, Resources, Study, check_study

__all__ = ["check_same_study", "load_study", "save_study"]


def load_study(path: Path) -> Study:
    """Read and check a study file.

    Raises StudyInvalid with the file, the field, what was found and what was wanted.
    """
    study = _read(path)
    try:
        return check_study(study)
    except (StudyInvalid, ConfigError, EncoderUnknown, SplitInvalid) as error:
        raise StudyInvalid(f"{path}: {error}") from error


def _read(path: Path) -> Study:
    """Return the study of a file whose tables and types are right."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise StudyInvalid(f"{path} does not exist; wanted a study file, such as sweep/studies/sample.toml.") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise StudyInvalid(f"{path} cannot be read as TOML ({error}); mend the file.") from error
    try:
        return _from_tables(content)
    except StudyInvalid as error:
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
    postprocess = dict(content.get("postprocess", {}))
    _typed(postprocess, {f.name: f.type for f in fields(Postprocess)}, "postprocess")
    data = content.get("data", {})
    _typed(data, {"folder": str}, "data")
    return Study(
        **study,
        resources=Resources(**resources),
        postprocess=Postprocess(**postprocess),
        prices=_prices(content["prices"]) if "prices" in content else {},
        data=data.get("folder", ""),
        train=dict(content.get("train", {})),
        search=dict(content.get("search", {})),
        start=dict(content.get("start", {})),
    )


def _prices(table: Mapping[str, Any]) -> dict[str, float]:
    if not table:
        raise StudyInvalid("[prices] is empty; wanted dollars per node-hour, such as default = 1.2, or no such table.")
    for name, value in table.items():
        if type(value) not in (int, float) or not 0 <= value < inf:
            raise StudyInvalid(
                f"prices.{name} = {value!r}; wanted dollars per node-hour, at least 0 (a type with a dot in quotes)."
            )
    return {name: float(value) for name, value in table.items()}


def _known(name: str, names: tuple[str, ...], what: str) -> None:
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(names)}."
        raise StudyInvalid(f"{name} is no {what} of a study file; {hint}")


def _typed(table: dict[str, Any], types: dict[str, Any], name: str) -> None:
    for key, value in table.items():
        _known(key, tuple(types), f"field of [{name}]")
        wanted = get_args(types[key]) or (types[key],)
        if float in wanted and type(value) is int:
            table[key] = float(value)
        elif type(value) not in wanted:
            names = " or ".join(kind.__name__ for kind in wanted)
            raise StudyInvalid(f"{name}.{key} = {value!r} is of type {type(value).__name__}; wanted {names}.")


def save_study(study: Study, path: Path) -> None:
    """Write a study as resolved, atomically; `load_study` reads it back as the same study."""
    with atomic_file(path) as temporary:
        temporary.write_text(tomli_w.dumps(study.to_toml()), encoding="utf-8")


def check_same_study(folder: Path, study: Study) -> None:
    """Raise ResultsConflict, with the difference, where `folder` holds the results of another study.

    More trials, another budget, other resources or another place of the data do not make it another study.
    """
    differences = _differences(_read(folder / "study.toml").to_toml(), study.to_toml())
    if differences:
        raise ResultsConflict(
            f"{folder} holds the results of another study ({'; '.join(differences)}); "
            "name this one differently, or give another --results folder."
        )


def _differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    found = []
    for table in ("study", "train", "search", "start"):
        old, new = there[table], here[table]
        for name in {**old, **new}:
            if name in old and name in new:
                if old[name] != new[name] and not (table == "study" and name in FREE):
                    found.append(f"{table}.{name} = {old[name]!r} there, {new[name]!r} here")
            else:
                found.append(f"{table}.{name} is missing {'here' if name in old else 'there'}")
    return found
