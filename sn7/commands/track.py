"""`sn7 track`: the predictions of a scene's months → footprints that keep their Id."""

import argparse
from pathlib import Path
from typing import Any

from sn7.tracking.config import TrackConfig

__all__ = ["add", "run"]


def add(commands: Any) -> argparse.ArgumentParser:
    """Add the sub-command."""
    command: argparse.ArgumentParser = commands.add_parser(
        "track",
        help="the predictions of a scene's months → footprints that keep their Id, with first and last month",
        epilog="OUT/<scene>/<image>.geojson  the footprints of a month\n"
        "OUT/<scene>/<scene>.gpkg     buildings with first and last month; a table of their months\n"
        "OUT/tracks.csv               the challenge's CSV, pixel coordinates\n"
        "Where no threshold is set, it is the one that the model was fitted with, if the probs carry it.\n\n"
        + TrackConfig.help_lines(),
    )
    command.add_argument(
        "predictions",
        type=Path,
        help="a scene's folder that `sn7 predict` wrote: probs (.tif), else polygons (.geojson); or a folder of such",
    )
    command.add_argument("out", type=Path, help="folder to write to; a scene that is in it is replaced")
    command.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="one rule; may be repeated")
    command.set_defaults(command=run)
    return command


def run(options: argparse.Namespace) -> str:
    """Run it; return what it prints."""
    from sn7.tracking.run import track_folder

    report = track_folder(options.predictions, options.out, options.set)
    lines = [
        f"{scene.scene}: {scene.months} months ({scene.invalid_share:.1%} invalid), {scene.buildings:,} buildings, "
        f"{scene.new:,} of them new, {scene.footprints:,} footprints, {scene.bridged:,} of them bridged; "
        f"threshold {scene.threshold:g}"
        for scene in report.scenes
    ]
    scenes = report.scenes
    lines.append(
        f"{options.out}: {sum(scene.months for scene in scenes):,} months of {len(scenes)} "
        f"scene{'s' if len(scenes) > 1 else ''} tracked, {sum(scene.buildings for scene in scenes):,} buildings in "
        f"{sum(scene.footprints for scene in scenes):,} footprints; no month skipped"
    )
    return "\n".join(lines)
