"""A training configuration from a recipe's name or a TOML file, with assignments of the command line on top."""

import tomllib
from collections.abc import Sequence
from pathlib import Path

from sn7.config import RECIPES, TrainConfig
from sn7.errors import ConfigError

__all__ = ["parse_config"]


def parse_config(name: str, assignments: Sequence[str]) -> TrainConfig:
    """Return the configuration of a recipe's name or a TOML file, with FIELD=VALUE assignments on top.

    Raises ConfigError for a file that cannot be read, an unknown field, or a value that the field does not take.
    """
    base = RECIPES.get(name) or _config_file(Path(name))
    return TrainConfig.from_texts(assignments, base)


def _config_file(path: Path) -> TrainConfig:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(
            f"{path} cannot be read as TOML ({error}); wanted a file of fields, or one of the recipes "
            f"{', '.join(RECIPES)}."
        ) from error
    try:
        return TrainConfig.from_dict(content.get("train", content))  # a study file's [train] serves as well
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
