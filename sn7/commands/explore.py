"""`sn7 explore`: pictures and numbers of a data set."""

import argparse
from pathlib import Path
from typing import Any

from sn7.config import TrainConfig

__all__ = ["add", "run"]


def add(commands: Any) -> argparse.ArgumentParser:
    """Add the sub-command."""
    command: argparse.ArgumentParser = commands.add_parser(
        "explore", help="data set → pictures and numbers.json of what is in it"
    )
    command.add_argument("data", help="data set in the SpaceNet 7 layout, a folder or a URL such as s3://bucket/folder")
    command.add_argument("--out", type=Path, required=True, help="folder for the pictures and numbers.json")
    command.add_argument(
        "--tile-size",
        type=int,
        default=TrainConfig().tile_size,
        help="side of the tiles that are counted and shown, px (default: %(default)s)",
    )
    command.add_argument("--seed", type=int, default=0, help="of the random tiles (default: %(default)s)")
    command.add_argument("--workers", type=int, help="processes (default: as many as cores, if there is enough to do)")
    command.set_defaults(command=run)
    return command


def run(options: argparse.Namespace) -> str:
    """Run it; return what it prints."""
    from sn7.explore import explore
    from sn7.storage import local

    done = explore(local(options.data), options.out, options.tile_size, options.seed, options.workers)
    numbers = done.numbers
    scenes, images, footprints = numbers["scenes"], numbers["images"], numbers["footprints"]
    lines = [f"left out: {sentence}" for sentence in done.left_out]
    lines.append(
        f"{options.out}: numbers.json and {len(done.pictures)} pictures of {images['training']:,} images of "
        f"{scenes['training']:,} scenes to train on ({images['unlabelled']:,} unlabelled) and {images['final']:,} of "
        f"{scenes['final']:,} to predict; {footprints['used']:,} footprints, {footprints['left_out']:,} left out"
    )
    return "\n".join(lines)
