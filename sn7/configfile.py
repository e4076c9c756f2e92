"""Configurations from TOML files; a training's also by a recipe's name, with assignments of the command line on top."""

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sn7.config import RECIPES, TrainConfig
from sn7.errors import ConfigError
from sn7.fields import Fields

__all__ = ["parse_config", "read_values"]


def parse_config(name: str, assignments: Sequence[str]) -> TrainConfig:
    """Return the configuration of a recipe's name or a TOML file, with FIELD=VALUE assignments on top.

    Raises ConfigError for a file that cannot be read, an unknown field, or a value that the field does not take.
    """
    base = RECIPES.get(name) or _config_file(Path(name))
    return TrainConfig.from_texts(assignments, base)


def _config_file(path: Path) -> TrainConfig:
    return TrainConfig.from_dict(read_values(path, TrainConfig, "train", f"or one of the recipes {', '.join(RECIPES)}"))


def read_values(path: Path, kind: type[Fields], table: str, other: str = "") -> dict[str, Any]:
    """Return the fields of the configuration `kind` that a TOML file sets: in its table `table`, else at its top.

    `other` says in a message what else could have been given. Raises ConfigError for a file that cannot be read, an
    unknown field, or a value that the field does not take.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        wanted = "a file of fields" + (f", {other}" if other else "")
        raise ConfigError(f"{path} cannot be read as TOML ({error}); wanted {wanted}.") from error
    values: dict[str, Any] = content.get(table, content)  # a study file's table serves as well
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: {table} = {values!r} is no table; wanted [{table}] with fields below it.")
    try:
        kind.from_dict(values)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    return values
