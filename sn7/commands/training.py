"""What `sn7 train` and `sn7 find-lr` have in common: which configuration, on which split."""

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sn7.config import TrainConfig
from sn7.errors import ConfigError

if TYPE_CHECKING:
    from sn7.folds import Split
    from sn7.prepared import Prepared

__all__ = ["add_training_arguments", "chosen_split", "with_batch_size"]


def add_training_arguments(command: argparse.ArgumentParser) -> None:
    """Add what chooses a configuration and a split."""
    command.add_argument(
        "--config", default="notebook", help="a TOML file of fields, or the name of a recipe (default: %(default)s)"
    )
    command.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="one field; may be repeated")
    which = command.add_mutually_exclusive_group()
    which.add_argument("--split", default="random:0", help="notebook, lxastro0 or random:SEED (default: %(default)s)")
    which.add_argument("--fold", type=int, help="validate on this fold, from 0")
    command.add_argument("--folds", metavar="K|FILE", help="with --fold: number of folds, or a folds.csv (default: 5)")


def chosen_split(options: argparse.Namespace, prepared: "Prepared", config: TrainConfig) -> "Split":
    """Return the split that the arguments name."""
    from sn7.folds import fold_split, named_split
    from sn7.splitreport import choose_folds

    if options.fold is None:
        if options.folds:
            raise ConfigError(f"--folds {options.folds} was given without --fold; say on which fold to validate.")
        return named_split(options.split, prepared)
    return fold_split(choose_folds(options.folds or "5", prepared, config.seed), options.fold)


def with_batch_size(
    config: TrainConfig, prepared: "Prepared", split: "Split", resumed: Path | None = None
) -> TrainConfig:
    """Return the configuration with a number for batch_size = "auto", and say which.

    It is that of the training in the folder `resumed`, where one has begun there, else what the device holds.
    """
    if config.batch_size != "auto":
        return config
    from sn7.autobatch import largest_batch
    from sn7.device import default_device, device_name
    from sn7.tiles import training_tiles
    from sn7.train import begun_config

    if resumed and (begun := begun_config(resumed)):
        print(f"batch_size = auto: {begun.batch_size}, that of the training in {resumed}", file=sys.stderr)
        return replace(config, batch_size=begun.batch_size)
    tiles = len(training_tiles(prepared, split.training, config))
    device = default_device()
    found = largest_batch(config, device, tiles)
    limit = "all training tiles" if found == tiles else "the most that fit"
    print(f"batch_size = auto: {found}, {limit}, on {device_name(device)}", file=sys.stderr)
    return replace(config, batch_size=found)
