"""`sn7 changes`: tracks → what was built when."""

import argparse
from pathlib import Path
from typing import Any

from sn7.commands.track import counted

__all__ = ["add", "run"]


def add(commands: Any) -> argparse.ArgumentParser:
    """Add the sub-command."""
    command: argparse.ArgumentParser = commands.add_parser(
        "changes",
        help="tracks → what was built when: a layer, a table, figures",
        epilog="OUT/changes.gpkg          new buildings: first month, between which it lies (95 %), confidence, m²\n"
        "OUT/growth.csv            buildings and built-up area (m²) of each scene and month, with 95 % intervals\n"
        "OUT/<scene>/growth.png    the same as a figure\n"
        "OUT/<scene>/place.png     the place that grows most, in up to eight months",
    )
    command.add_argument("tracks", type=Path, help="folder that `sn7 track` wrote, or one of its scenes")
    command.add_argument("out", type=Path, help="folder to write to")
    command.add_argument("--images", type=Path, help="data set, or a scene of one, to draw below the footprints")
    command.set_defaults(command=run)
    return command


def run(options: argparse.Namespace) -> str:
    """Run it; return what it prints."""
    from sn7.changes.make import find_changes

    report = find_changes(options.tracks, options.out, options.images)
    lines = []
    for scene in report.growth["scene"].unique().tolist():
        months = report.growth[report.growth["scene"] == scene]
        ends = [
            f"{counted(row['buildings'], 'building')} ({row['area_m2'] / 1e4:,.1f} ha) in {row['month']}"
            for row in (months.iloc[0], months.iloc[-1])
        ]
        lines.append(f"{scene}: {', '.join(ends)}")
    lines += [f"{scene}: nothing is new, so no place.png" for scene in report.unchanged]
    lines += [f"{scene}: no image, so drawn on plain ground" for scene in report.without_images]
    lines.append(
        f"{options.out}: {counted(report.new, 'new building')} of {counted(report.growth['scene'].nunique(), 'scene')} "
        f"in {counted(len(report.growth), 'month')}; changes.gpkg, growth.csv, and figures of each scene"
    )
    return "\n".join(lines)
