"""Typed configurations: one sentence and one range a field, checked at construction, read from text or a mapping."""

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self, get_type_hints

from sn7.errors import ConfigError

__all__ = ["FieldSpec", "Fields", "field"]


@dataclass(frozen=True)
class FieldSpec:
    """What a field of a configuration takes.

    `low` and `high` are inclusive bounds, of numbers; `choices` lists the only values, where they are few.
    """

    name: str
    type: type
    default: Any
    help: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    auto: bool = False
    """Whether the text "auto" is taken as well: the training then finds the value itself."""

    def check(self, value: Any) -> Any:
        """Return `value` in the field's type.

        Raises ConfigError with the value found and the values wanted. Whole numbers are taken for a float
        field; True and False are never taken for numbers.
        """
        if self.auto and value == "auto":
            return value
        if self.type is float and type(value) is int:
            value = float(value)
        checked: Any = value
        if type(value) is not self.type:  # isinstance would take True for a whole number
            raise ConfigError(f"{self.name} = {value!r} is of type {type(value).__name__}; wanted {self._wanted()}.")
        low, high = self.low, self.high
        outside = low is not None and high is not None and not low <= checked <= high  # so written, it refuses NaN
        if outside or (self.choices and value not in self.choices):
            raise ConfigError(f"{self.name} = {value!r} cannot be used; wanted {self._wanted()}.")
        return value

    def parse(self, text: str) -> Any:
        """Return the value that a text means, or the text itself, of which `check` says what it wanted."""
        if self.type is bool:
            return {"true": True, "false": False}.get(text.lower(), text)
        try:
            return self.type(text)
        except ValueError:
            return text

    def _wanted(self) -> str:
        if self.choices:
            return "one of " + ", ".join(self.choices)
        name = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}[self.type]
        wanted = name if self.low is None else f"{name} from {self.low:g} to {self.high:g}"
        return f'{wanted}, or "auto"' if self.auto else wanted


def field(
    default: Any,
    help: str,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    auto: bool = False,
) -> Any:
    """Declare a field: its default, what it is in words, and what it takes (see FieldSpec)."""
    metadata = {"help": help, "low": low, "high": high, "choices": choices, "auto": auto}
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Fields:
    """Base of the configurations: frozen dataclasses whose fields are declared with `field`.

    Raises ConfigError at construction where a value has a wrong type or is out of range.
    """

    what: ClassVar[str] = "a configuration"
    """What messages call it."""

    def __post_init__(self) -> None:
        for spec in self.specs().values():
            object.__setattr__(self, spec.name, spec.check(getattr(self, spec.name)))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], base: Self | None = None) -> Self:
        """Return `base` (the defaults, if none) with `values` in place of its own.

        Raises ConfigError for an unknown field, naming the nearest known one.
        """
        for name in values:
            cls.spec(name)
        return dataclasses.replace(base or cls(), **values)

    @classmethod
    def from_texts(cls, assignments: Sequence[str], base: Self | None = None) -> Self:
        """Return `base` (the defaults, if none) with assignments FIELD=VALUE of the command line on top.

        Raises ConfigError for what is no assignment, an unknown field, or a value that the field does not take.
        """
        return cls.from_dict(cls.parse(assignments), base)

    @classmethod
    def parse(cls, assignments: Sequence[str]) -> dict[str, Any]:
        """Return the values of assignments FIELD=VALUE, unchecked.

        Raises ConfigError for what is no assignment or an unknown field.
        """
        values: dict[str, Any] = {}
        for assignment in assignments:
            name, equals, text = assignment.partition("=")
            if not equals:
                raise ConfigError(f"--set {assignment} is no assignment; wanted FIELD=VALUE, such as {cls._example()}.")
            values[name] = cls.spec(name).parse(text)
        return values

    def to_dict(self) -> dict[str, str | int | float | bool]:
        """Return all fields with their values, in the order of declaration."""
        return dataclasses.asdict(self)

    @classmethod
    def specs(cls) -> dict[str, FieldSpec]:
        """Return the specification of every field, by name, in the order of declaration."""
        types = get_type_hints(cls)
        return {
            one.name: FieldSpec(one.name, types[one.name], one.default, **one.metadata)
            for one in dataclasses.fields(cls)
        }

    @classmethod
    def spec(cls, name: str) -> FieldSpec:
        """Return the specification of the field `name`; raise ConfigError, with the nearest name, if there is none."""
        specs = cls.specs()
        if name not in specs:
            near = difflib.get_close_matches(name, specs, n=1)
            hint = f"did you mean {near[0]}?" if near else "known fields are " + ", ".join(specs) + "."
            raise ConfigError(f"{name} is not a field of {cls.what}; {hint}")
        return specs[name]

    @classmethod
    def help_lines(cls) -> str:
        """Return the fields, a line each, with what they are and their defaults."""
        lines = [f"  {spec.name:18} {spec.help} (default: {spec.default})" for spec in cls.specs().values()]
        return "\n".join([f"fields of {cls.what}:", *lines])

    @classmethod
    def _example(cls) -> str:
        spec = next(iter(cls.specs().values()))
        return f"{spec.name}={spec.default}"
