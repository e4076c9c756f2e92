"""`sn7 download`: the public bucket → a data set on disk."""

import argparse
from pathlib import Path
from typing import Any

__all__ = ["SPLITS", "add", "run"]

SPLITS = ("train", "csvs", "test_public")
"""Archives of the data set, as sn7.download.ARCHIVES has them; named here, since that module takes long to import."""


def add(commands: Any) -> argparse.ArgumentParser:
    """Add the sub-command."""
    command: argparse.ArgumentParser = commands.add_parser(
        "download",
        help="the public SpaceNet 7 bucket → a data set; goes on where it was cut",
        epilog="An archive is fetched to OUT/.download, checked, unpacked into OUT and removed.\n"
        "After an interruption the same command continues.",
    )
    command.add_argument("out", type=Path, help="folder of the data set")
    command.add_argument("--split", choices=SPLITS, help="one of the archives (default: all three)")
    command.add_argument(
        "--endpoint-url",
        metavar="URL",
        help="another S3 server that holds the bucket spacenet-dataset (default: AWS)",
    )
    command.set_defaults(command=run)
    return command


def run(options: argparse.Namespace) -> str:
    """Run it; return what it prints."""
    from sn7.download import ARCHIVES, download

    wanted = [ARCHIVES[split] for split in ([options.split] if options.split else SPLITS)]
    done = download(options.out, wanted, options.endpoint_url)
    unpacked = [result.unpacked for result in done if result.unpacked]
    lines = [result.sentence for result in done]
    lines.append(
        f"{options.out}: {len(unpacked)} of {len(done)} archives downloaded and unpacked, "
        f"{len(done) - len(unpacked)} skipped that had been before; "
        f"{sum(found.written for found in unpacked)} files written, "
        f"{sum(found.there for found in unpacked)} skipped that were there with their size"
    )
    return "\n".join(lines)
