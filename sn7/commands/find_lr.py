"""`sn7 find-lr`: which learning rate to train with."""

import argparse
from pathlib import Path
from typing import Any

from sn7.commands.training import add_training_arguments, chosen_split, with_batch_size
from sn7.config import TrainConfig
from sn7.configfile import parse_config

__all__ = ["add", "run"]


def add(commands: Any) -> argparse.ArgumentParser:
    """Add the sub-command."""
    command: argparse.ArgumentParser = commands.add_parser(
        "find-lr",
        help="suggest lr_max: a short mock training at growing learning rates",
        epilog=TrainConfig.help_lines(),
    )
    command.add_argument("prepared", help="folder, or URL, of `sn7 prepare`")
    command.add_argument("--out", type=Path, required=True, help="folder for lr_find.png and lr_find.csv")
    command.add_argument("--steps", type=int, default=100, help="optimizer steps, from 20 (default: %(default)s)")
    add_training_arguments(command)
    command.set_defaults(command=run)
    return command


def run(options: argparse.Namespace) -> str:
    """Run it; return what it prints."""
    config = parse_config(options.config, options.set)
    from sn7.findlr import find_lr
    from sn7.prepared import load_prepared

    prepared = load_prepared(options.prepared)
    split = chosen_split(options, prepared, config)
    config = with_batch_size(config, prepared, split)
    test = find_lr(config, prepared, split, options.out, options.steps)
    lowest, where = min(zip(test.losses, test.lrs, strict=True))
    return (
        f"{options.out}/lr_find.png: suggested lr_max = {test.suggestion:.2e}, of {len(test.lrs)} learning rates from "
        f"{test.lrs[0]:.1e} to {test.lrs[-1]:.1e}; lowest loss {lowest:.3f} at {where:.1e}"
    )
