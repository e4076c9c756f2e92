"""`sn7 check`: what is in a data set, and what is wrong with it."""

import argparse
import json
from typing import Any

from sn7.errors import DataDefective

__all__ = ["add", "run"]


def add(commands: Any) -> argparse.ArgumentParser:
    """Add the sub-command."""
    command: argparse.ArgumentParser = commands.add_parser(
        "check",
        help="data set → every scene, every defect and what it leads to",
        epilog="Exit status 1 where `sn7 prepare` would refuse the data set, so that nothing could be trained.",
    )
    command.add_argument("data", help="data set in the SpaceNet 7 layout, a folder or a URL such as s3://bucket/folder")
    command.add_argument("--json", action="store_true", help="one JSON object, with every file that is concerned")
    command.add_argument("--workers", type=int, help="processes (default: as many as cores, if there is enough to do)")
    command.set_defaults(command=run)
    return command


def run(options: argparse.Namespace) -> str:
    """Run it; return what it prints. Where nothing could be trained it prints that itself and raises DataDefective."""
    from sn7.check import check_data, report_text
    from sn7.storage import local

    report = check_data(local(options.data), options.workers)
    text = json.dumps(report.to_dict(), indent=2, allow_nan=False) if options.json else report_text(report)
    if report.stopping:
        print(text)
        count = len(report.stopping)
        raise DataDefective(
            f"{options.data} has {count} defect{'s that stop' if count > 1 else ' that stops'} `sn7 prepare`; wanted "
            f"none: mend or remove what is listed as such, first {report.stopping[0].path}."
        )
    return text
