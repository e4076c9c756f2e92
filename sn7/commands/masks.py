"""`sn7 masks`: prepared arrays → masks as GeoTIFFs."""

import argparse
from pathlib import Path
from typing import Any

__all__ = ["add", "run"]


def add(commands: Any) -> argparse.ArgumentParser:
    """Add the sub-command."""
    command: argparse.ArgumentParser = commands.add_parser(
        "masks",
        help="prepared data set → masks as GeoTIFFs, to look at in QGIS",
        epilog="OUT/<scene>/<image>_mask.tif: 0 background, 1 building, 255 (nodata) not valid",
    )
    command.add_argument("prepared", help="folder, or URL, of `sn7 prepare`")
    command.add_argument("out", type=Path, help="folder for the masks; those of an earlier run are replaced")
    command.set_defaults(command=run)
    return command


def run(options: argparse.Namespace) -> str:
    """Run it; return what it prints."""
    from sn7.maskfiles import write_masks

    done = write_masks(options.prepared, options.out)
    return (
        f"{options.out}: {len(done.written)} masks of {done.scenes} scenes written from "
        f"{len(done.written) + done.unlabelled} images, {done.unlabelled} unlabelled images left out "
        "(nobody knows where their buildings are)"
    )
