"""`sn7 folds`: which scenes are held out together, and what a split would leak."""

import argparse
from pathlib import Path
from typing import Any

__all__ = ["add", "run"]


def add(commands: Any) -> argparse.ArgumentParser:
    """Add the sub-command."""
    command: argparse.ArgumentParser = commands.add_parser(
        "folds", help="divide scenes into folds of whole clusters; report what splits leak"
    )
    command.add_argument("prepared", help="folder, or URL, of `sn7 prepare`")
    command.add_argument(
        "--folds",
        default="5",
        metavar="K|FILE",
        help="number of folds, or a folds.csv to look at (default: %(default)s)",
    )
    command.add_argument("--seed", type=int, default=0, help="same seed, same folds, anywhere (default: %(default)s)")
    command.add_argument(
        "--out", type=Path, metavar="FILE", help="write them as CSV, to change by hand and to train by"
    )
    command.set_defaults(command=run)
    return command


def run(options: argparse.Namespace) -> str:
    """Run it; return what it prints."""
    from sn7.foldsfile import write_folds
    from sn7.prepared import load_prepared
    from sn7.splitreport import choose_folds, describe_folds

    prepared = load_prepared(options.prepared)
    folds = choose_folds(options.folds, prepared, options.seed)
    text = describe_folds(folds, prepared)
    if options.out:
        write_folds(folds, options.out)
        text += f"\n{options.out}: {len(prepared.scenes)} scenes in {len(folds)} folds"
    return text
