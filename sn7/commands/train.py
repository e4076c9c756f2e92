"""`sn7 train`: one configuration on one split."""

import argparse
from pathlib import Path
from typing import Any

from sn7.config import field_specs
from sn7.configfile import parse_config

__all__ = ["add", "run"]


def add(commands: Any) -> argparse.ArgumentParser:
    """Add the sub-command."""
    fields = "\n".join(f"  {spec.name:18} {spec.help} (default: {spec.default})" for spec in field_specs().values())
    command: argparse.ArgumentParser = commands.add_parser(
        "train", help="train one configuration on one split", epilog="fields of a configuration:\n" + fields
    )
    command.add_argument("prepared", help="folder, or URL, of `sn7 prepare`")
    command.add_argument("out", type=Path, help="folder for model/, history.csv, tiles.png and result.json")
    command.add_argument(
        "--config", default="notebook", help="a TOML file of fields, or the name of a recipe (default: %(default)s)"
    )
    command.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="one field; may be repeated")
    which = command.add_mutually_exclusive_group()
    which.add_argument("--split", default="random:0", help="notebook, lxastro0 or random:SEED (default: %(default)s)")
    which.add_argument("--fold", type=int, help="validate on this fold, from 0")
    command.add_argument(
        "--folds", default="5", metavar="K|FILE", help="number of folds, or a folds.csv (default: %(default)s)"
    )
    command.add_argument(
        "--resume", action="store_true", help="continue the training that was interrupted in OUT; else it starts anew"
    )
    command.set_defaults(command=run)
    return command


def run(options: argparse.Namespace) -> str:
    """Run it; return what it prints."""
    config = parse_config(options.config, options.set)
    from sn7.folds import fold_split, named_split
    from sn7.prepared import load_prepared
    from sn7.splitreport import choose_folds
    from sn7.train import train

    prepared = load_prepared(options.prepared)
    if options.fold is None:
        split = named_split(options.split, prepared)
    else:
        split = fold_split(choose_folds(options.folds, prepared, config.seed), options.fold)
    result = train(config, prepared, split, options.out, resume=options.resume)
    best, seen = result.best, result.sampling
    continued = f"; continued after epoch {result.continued_after}" if result.continued_after else ""
    return (
        f"{options.out}/model: Dice {best.dice:.4f}, IoU {best.iou:.4f}, precision {best.precision:.4f}, recall "
        f"{best.recall:.4f} on split {split.name} at epoch {best.epoch} of {result.epochs}; "
        f"{result.training_tiles} training tiles of {seen.images} of {seen.labelled} labelled images "
        f"({seen.tiles_left_out} {'without a building' if config.undersample else 'invalid'} left out), "
        f"{result.validation_tiles} validation tiles, "
        f"{result.parameters:,} parameters, {result.seconds:.0f} s{continued}"
    )
