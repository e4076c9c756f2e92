"""`sn7 sample`: a small generated data set."""

import argparse
from pathlib import Path
from typing import Any

__all__ = ["add", "run"]


def add(commands: Any) -> argparse.ArgumentParser:
    """Add the sub-command."""
    command: argparse.ArgumentParser = commands.add_parser(
        "sample", help="generate a small data set in the SpaceNet 7 layout"
    )
    command.add_argument("out", type=Path, help="folder to make")
    command.add_argument(
        "--scenes",
        type=int,
        default=6,
        help="scenes to train on; a third as many come to predict (default: %(default)s)",
    )
    command.add_argument("--months", type=int, default=4, help="monthly images of each scene (default: %(default)s)")
    command.add_argument("--size", type=int, default=320, help="side of an image, px (default: %(default)s)")
    command.add_argument("--seed", type=int, default=0, help="same seed, same files (default: %(default)s)")
    command.set_defaults(command=run)
    return command


def run(options: argparse.Namespace) -> str:
    """Run it; return what it prints."""
    from sn7.sample import make_sample

    report = make_sample(options.out, options.scenes, options.months, options.size, options.seed)
    return (
        f"{options.out}: {report.scenes} scenes to train on, {report.test_scenes} to predict; {report.images} images, "
        f"{report.images_with_udm} of them with UDM; {report.buildings:,} buildings in {report.footprints:,} "
        f"footprints, {report.building_share:.1%} of the pixels"
    )
