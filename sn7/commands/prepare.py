"""`sn7 prepare`: a data set → prepared arrays."""

import argparse
from pathlib import Path
from typing import Any

__all__ = ["add", "run"]


def add(commands: Any) -> argparse.ArgumentParser:
    """Add the sub-command."""
    command: argparse.ArgumentParser = commands.add_parser(
        "prepare", help="data set → memory-mapped arrays and an index"
    )
    command.add_argument("data", help="data set in the SpaceNet 7 layout, a folder or a URL such as s3://bucket/folder")
    command.add_argument("out", help="folder of the prepared data set, or a URL")
    command.add_argument("--workers", type=int, help="processes (default: as many as cores, if there is enough to do)")
    command.add_argument(
        "--separation", action="store_true", help="two more channels, boundary and contact, that keep neighbours apart"
    )
    command.add_argument(
        "--upscale",
        type=int,
        choices=(2, 3, 4),
        action="append",
        default=[],
        help="labels at so many times the resolution of the images, for trainings with that upscale; may be repeated",
    )
    command.set_defaults(command=run)
    return command


def run(options: argparse.Namespace) -> str:
    """Run it; return what it prints."""
    from sn7.prepare import prepare
    from sn7.publish import publish
    from sn7.storage import changing, is_url, local

    data, sent = local(options.data), ""
    labels = options.separation, options.upscale
    if is_url(options.out):
        with changing(options.out) as folder:
            done = prepare(data, folder, options.workers, *labels)
            sent = f"; {publish(folder, options.out)} files sent"
    else:
        done = prepare(data, Path(options.out), options.workers, *labels)
    lines = [f"left out: {sentence}" for sentence in done.left_out]
    lines.append(
        f"{options.out}: {len(done.prepared.images)} images of {len(done.prepared.scenes)} scenes, "
        f"{done.written} prepared, {done.reused} reused, {done.unlabelled} unlabelled (invalid everywhere){sent}"
    )
    return "\n".join(lines)
