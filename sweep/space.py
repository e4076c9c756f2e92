"""The search space: which fields vary, over what, and where.

A field with `when` varies only where every other field named there is searched in the same configuration and has one
of the values; elsewhere it keeps its value of [train] or of the notebook recipe.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import BaseTrial

from sn7.config import RECIPES, require_field
from sn7.errors import ConfigError

__all__ = ["Searched", "Space", "When", "notebook_point", "why_not"]

When = Mapping[str, tuple[Any, ...]]


@dataclass(frozen=True)
class Searched:
    """A field that varies, and the values of other fields that it needs: none, and it varies everywhere."""

    distribution: BaseDistribution
    when: When

    def varies(self, active: Mapping[str, Any]) -> bool:
        """Return whether the field varies beside these values of the fields that vary before it."""
        return all(other in active and active[other] in values for other, values in self.when.items())


def _all_values(distribution: Any) -> Sequence[Any]:
    """Return the values of a choice or of a range of whole numbers."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices
    return range(distribution.low, distribution.high + 1)


@dataclass(frozen=True)
class Space:
    """A search space, checked. `searched` has each field after those that its `when` names."""

    searched: dict[str, Searched]

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the fields that vary, each after those that its `when` names."""
        return tuple(self.searched)

    @property
    def conditional(self) -> tuple[str, ...]:
        """Names of the fields that vary only somewhere."""
        return tuple(name for name, field in self.searched.items() if field.when)

    @property
    def size(self) -> int | None:
        """Number of configurations; None where a field of real numbers makes them uncountable."""
        if any(isinstance(field.distribution, FloatDistribution) for field in self.searched.values()):
            return None
        deciding = self._deciding()
        return sum(
            prod(_count(self.searched[name].distribution) for name in branch if name not in deciding)
            for branch in self.branches()
        )

    def draw(self, trial: BaseTrial) -> dict[str, Any]:
        """Return a value of every active field, as `trial` suggests them one after the other."""
        return self._walk(lambda name: _suggest(trial, name, self.searched[name].distribution))

    def point(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the active fields of a configuration that may have all fields; KeyError where one is missing."""
        return self._walk(lambda name: values[name])

    def distributions(self, params: Mapping[str, Any]) -> dict[str, BaseDistribution]:
        """Return the distribution of every active field of a configuration; KeyError where one is missing."""
        return {name: self.searched[name].distribution for name in self.point(params)}

    def values(self, name: str) -> tuple[Any, ...]:
        """Return the choices of a field, or (lowest, highest) of a range, or () of a field that does not vary."""
        if name not in self.searched:
            return ()
        distribution: Any = self.searched[name].distribution
        if isinstance(distribution, CategoricalDistribution):
            return tuple(distribution.choices)
        return distribution.low, distribution.high

    def all_values(self, name: str) -> tuple[Any, ...]:
        """Return every value of a field of choices or whole numbers, or () of a field that does not vary."""
        return tuple(_all_values(self.searched[name].distribution)) if name in self.searched else ()

    def reason_outside(self, params: Mapping[str, Any]) -> str:
        """Return why `params` are not the active fields of one configuration of this space, or "" if they are."""
        for name in params:
            if name not in self.searched:
                return f"{name} = {params[name]!r} is no field of [search]"
        active: dict[str, Any] = {}
        for name, field in self.searched.items():
            varies = field.varies(active)
            if varies != (name in params):
                return f"{name} is missing" if varies else f"{name} = {params[name]!r} stands where it does not vary"
            if varies:
                reason = why_not(name, field.distribution, params[name])
                if reason:
                    return reason
                active[name] = params[name]
        return ""

    def describe(self) -> list[str]:
        """Return a line a field: its values and where it varies."""
        return [
            f"{name}: {_values_text(field.distribution)}{_when_text(field.when)}"
            for name, field in self.searched.items()
        ]

    def configurations(self) -> Iterator[dict[str, Any]]:
        """Yield every configuration of a finite space, none of another."""
        if self.size is None:
            return
        found: list[dict[str, Any]] = [{}]
        for name, field in self.searched.items():
            found = [
                grown
                for active in found
                for grown in (
                    [{**active, name: value} for value in _all_values(field.distribution)]
                    if field.varies(active)
                    else [active]
                )
            ]
        yield from found

    def branches(self) -> list[dict[str, Any]]:
        """Return the active fields of every combination of the values that decide which fields vary.

        Fields that decide nothing have None.
        """
        deciding = self._deciding()
        branches: list[dict[str, Any]] = [{}]
        for name, field in self.searched.items():
            values = self.values(name) if name in deciding else (None,)
            branches = [
                grown
                for branch in branches
                for grown in ([{**branch, name: value} for value in values] if field.varies(branch) else [branch])
            ]
        return branches

    def _deciding(self) -> set[str]:
        return {other for field in self.searched.values() for other in field.when}

    def _walk(self, value: Callable[[str], Any]) -> dict[str, Any]:
        active: dict[str, Any] = {}
        for name, field in self.searched.items():
            if field.varies(active):
                active[name] = value(name)
        return active


def notebook_point(space: Space) -> dict[str, Any]:
    """Return the notebook recipe's value of each field that is active there."""
    return space.point(RECIPES["notebook"].to_dict())


def _suggest(trial: BaseTrial, name: str, distribution: BaseDistribution) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return trial.suggest_categorical(name, distribution.choices)
    if isinstance(distribution, IntDistribution):
        return trial.suggest_int(name, distribution.low, distribution.high)
    assert isinstance(distribution, FloatDistribution)
    return trial.suggest_float(name, distribution.low, distribution.high, log=distribution.log)


def why_not(name: str, distribution: Any, value: Any) -> str:
    """Return why `value` is none of the field's, or "" if it is."""
    try:
        checked = require_field(name).check(value)
    except ConfigError as error:
        return str(error).rstrip(".")
    if isinstance(distribution, CategoricalDistribution):
        listed = ", ".join(map(repr, distribution.choices))
        return "" if checked in distribution.choices else f"{name} = {value!r} is not among {listed}"
    inside = distribution.low <= checked <= distribution.high
    return "" if inside else f"{name} = {value!r} is outside [{distribution.low}, {distribution.high}]"


def _count(distribution: Any) -> int:
    if isinstance(distribution, CategoricalDistribution):
        return len(distribution.choices)
    return int(distribution.high) - int(distribution.low) + 1


def _values_text(distribution: Any) -> str:
    if isinstance(distribution, CategoricalDistribution):
        return ", ".join(map(str, distribution.choices))
    return f"{distribution.low} to {distribution.high}" + (", logarithmic" if distribution.log else "")


def _when_text(when: When) -> str:
    texts = [f"{other} is {' or '.join(map(str, values))}" for other, values in when.items()]
    return f" where {' and '.join(texts)}" if texts else ""
