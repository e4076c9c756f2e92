"""The [search] table of a study file → Optuna's search space.

    lr_max  = { loguniform = [1e-5, 1e-2] }      building_weight = { uniform = [0.5, 0.95] }
    encoder = { choice = ["xresnet34", "resnet34d"] }       tile_size = { int = [64, 256] }

Bounds are inclusive. Every value must be one that TrainConfig takes, and the notebook recipe's must be among
them, because it is the first trial of every study.
"""

from collections.abc import Mapping
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from sn7.config import RECIPES, FieldSpec, require_field
from sn7.errors import ConfigError, StudyInvalid

__all__ = ["KINDS", "notebook_point", "parse_search"]

KINDS = ("choice", "uniform", "loguniform", "int")
FIXED = ("validation_images",)
"""Fields that say what is measured: trials that differ in them could not be compared."""


def parse_search(table: Mapping[str, Any]) -> dict[str, BaseDistribution]:
    """Return the search space, a distribution a field.

    Raises StudyInvalid for an empty table, an unknown field or kind, or values that the field does not take.
    """
    if not table:
        raise StudyInvalid(
            "[search] is empty; wanted at least one field, such as lr_max = { loguniform = [1e-5, 1e-2] }."
        )
    space = {name: _distribution(name, entry) for name, entry in table.items()}
    for name, distribution in space.items():
        recipe = getattr(RECIPES["notebook"], name)
        if not distribution._contains(_internal(distribution, recipe)):
            raise StudyInvalid(
                f"search.{name} leaves out {recipe!r}, the value of the notebook recipe, which is the first trial of "
                f"every study; wanted it among the values: widen search.{name} or move {name} to [train]."
            )
    return space


def notebook_point(space: Mapping[str, BaseDistribution]) -> dict[str, Any]:
    """Return the notebook recipe's value of each field that varies."""
    return {name: getattr(RECIPES["notebook"], name) for name in space}


def _internal(distribution: BaseDistribution, value: Any) -> float:
    try:
        return distribution.to_internal_repr(value)
    except ValueError:  # a choice that is not among them
        return -1.0


def _distribution(name: str, entry: Any) -> BaseDistribution:
    try:
        spec = require_field(name)
    except ConfigError as error:
        raise StudyInvalid(f"search.{error}") from error
    if name in FIXED:
        raise StudyInvalid(
            f"search.{name} cannot vary: trials would be measured on different images; set it in [train]."
        )
    if not isinstance(entry, dict) or len(entry) != 1 or next(iter(entry)) not in KINDS:
        raise StudyInvalid(
            f"search.{name} = {entry!r} is no search; wanted one of {', '.join(KINDS)}, such as "
            f"{{ choice = [{spec.default!r}] }}."
        )
    kind, values = next(iter(entry.items()))
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
    if len(values) != 2 or not values[0] < values[1]:
        raise StudyInvalid(f"search.{spec.name}.{kind} = {values!r}; wanted [lowest, highest] with lowest < highest.")
    low, high = values
    if kind == "int":
        return IntDistribution(low, high)
    if kind == "loguniform" and low <= 0:
        raise StudyInvalid(f"search.{spec.name}.loguniform = {values!r}; wanted a lowest value above 0.")
    return FloatDistribution(low, high, log=kind == "loguniform")
