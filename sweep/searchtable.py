"""The [search] table of a study file → the search space, checked.

    lr_max  = { loguniform = [1e-5, 1e-2] }      building_weight = { uniform = [0.5, 0.95] }
    encoder = { choice = ["xresnet34", "resnet34d"] }       tile_size = { int = [64, 256] }
    weight_decay = { uniform = [0.0, 0.1], when = { encoder = "resnet34d" } }

Bounds are inclusive. Every value must be one that TrainConfig takes, and the notebook recipe must be one of the
configurations, because it is the first trial of every study.
"""

import difflib
from collections.abc import Mapping
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from sn7.config import FieldSpec, require_field
from sn7.errors import ConfigError, StudyInvalid
from sweep.space import Searched, Space, When, notebook_point, why_not

__all__ = ["KINDS", "parse_search"]

KINDS = ("choice", "uniform", "loguniform", "int")
FIXED = ("validation_images",)
"""Fields that say what is measured: trials that differ in them could not be compared."""


def parse_search(table: Mapping[str, Any]) -> Space:
    """Return the search space of a [search] table.

    Raises StudyInvalid for an empty table, an unknown field or kind, values that the field does not take, a `when`
    that cannot be decided or never holds, or a space without the notebook recipe.
    """
    if not table:
        raise StudyInvalid(
            "[search] is empty; wanted at least one field, such as lr_max = { loguniform = [1e-5, 1e-2] }."
        )
    distributions = {name: _distribution(name, entry) for name, entry in table.items()}
    searched = {
        name: Searched(distributions[name], _when(name, entry.get("when"), distributions))
        for name, entry in table.items()
    }
    space = Space(_ordered(searched))
    reached = {name for branch in space.branches() for name in branch}
    for name in space.fields:
        if name not in reached:
            raise StudyInvalid(
                f"search.{name}.when = {dict(searched[name].when)!r} never holds, because these do not come together; "
                "mend it or remove the field."
            )
    _require_notebook(space)
    return space


def _require_notebook(space: Space) -> None:
    for name, value in notebook_point(space).items():
        if why_not(name, space.searched[name].distribution, value):
            raise StudyInvalid(
                f"search.{name} leaves out {value!r}, the value of the notebook recipe, which is the first trial of "
                f"every study; wanted it among the values: widen search.{name} or move {name} to [train]."
            )


def _ordered(searched: Mapping[str, Searched]) -> dict[str, Searched]:
    """Return the fields, each after those that its `when` names, else in the order of the file."""
    ordered: dict[str, Searched] = {}
    while len(ordered) < len(searched):
        ready = [name for name in searched if name not in ordered and set(searched[name].when) <= set(ordered)]
        if not ready:
            waiting = [name for name in searched if name not in ordered]
            raise StudyInvalid(f"search: the conditions of {', '.join(waiting)} form a circle; remove one `when`.")
        ordered[ready[0]] = searched[ready[0]]
    return ordered


def _when(name: str, when: Any, distributions: Mapping[str, BaseDistribution]) -> When:
    if when is None:
        return {}
    if not isinstance(when, dict) or not when:
        raise StudyInvalid(
            f"search.{name}.when = {when!r}; wanted a field and its values, such as {{ encoder = ['resnet34d'] }}."
        )
    return {other: _condition(name, other, values, distributions) for other, values in when.items()}


def _condition(name: str, other: str, values: Any, distributions: Mapping[str, BaseDistribution]) -> tuple[Any, ...]:
    """Return the values of `other` beside which `name` varies."""
    where = f"search.{name}.when.{other}"
    if other == name:
        raise StudyInvalid(f"{where} is {name} itself; wanted another field.")
    if other not in distributions:
        near = difflib.get_close_matches(other, distributions, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(distributions)}."
        raise StudyInvalid(f"{where} is no field of [search]; {hint}")
    distribution = distributions[other]
    if not isinstance(distribution, CategoricalDistribution):
        raise StudyInvalid(f"{where} is a range; wanted a field of [search] that is a choice.")
    listed = values if isinstance(values, list) else [values]
    for value in listed:
        reason = why_not(other, distribution, value)
        if reason:
            raise StudyInvalid(f"{where}: {reason}; such a condition never holds.")
    if not listed:
        raise StudyInvalid(f"{where} = []; wanted at least one value.")
    return tuple(listed)


def _distribution(name: str, entry: Any) -> BaseDistribution:
    try:
        spec = require_field(name)
    except ConfigError as error:
        raise StudyInvalid(f"search.{error}") from error
    if name in FIXED:
        raise StudyInvalid(
            f"search.{name} cannot vary: trials would be measured on different images; set it in [train]."
        )
    kinds = [key for key in entry if key != "when"] if isinstance(entry, dict) else []
    if len(kinds) != 1 or kinds[0] not in KINDS:
        raise StudyInvalid(
            f"search.{name} = {entry!r} is no search; wanted one of {', '.join(KINDS)}, such as "
            f"{{ choice = [{spec.default!r}] }}, and beside it at most `when`."
        )
    kind, values = kinds[0], entry[kinds[0]]
    if not isinstance(values, list) or not values:
        raise StudyInvalid(f"search.{name}.{kind} = {values!r}; wanted a list of values.")
    try:
        checked = [spec.check(value) for value in values]
    except ConfigError as error:
        raise StudyInvalid(f"search.{error}") from error
    if kind == "choice":
        return _choice(name, checked)
    return _range(spec, kind, checked)


def _choice(name: str, values: list[Any]) -> BaseDistribution:
    if len(set(values)) != len(values):
        raise StudyInvalid(f"search.{name}.choice = {values!r} names a value twice; wanted each once.")
    return CategoricalDistribution(values)


def _range(spec: FieldSpec, kind: str, values: list[Any]) -> BaseDistribution:
    wanted_type = int if kind == "int" else float
    if spec.type is not wanted_type:
        raise StudyInvalid(
            f"search.{spec.name} is a {kind} range, but {spec.name} is {spec.type.__name__}; wanted "
            + ("int." if spec.type is int else "uniform or loguniform." if spec.type is float else "choice.")
        )
    if len(values) != 2 or "auto" in values or not values[0] < values[1]:
        raise StudyInvalid(f"search.{spec.name}.{kind} = {values!r}; wanted [lowest, highest] with lowest < highest.")
    low, high = values
    if kind == "int":
        return IntDistribution(low, high)
    if kind == "loguniform" and low <= 0:
        raise StudyInvalid(f"search.{spec.name}.loguniform = {values!r}; wanted a lowest value above 0.")
    return FloatDistribution(low, high, log=kind == "loguniform")
