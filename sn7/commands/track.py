"""`sn7 track`: the predictions of a scene's months → footprints that keep their Id."""

import argparse
from pathlib import Path
from typing import Any

from sn7.configfile import read_values
from sn7.tracking.config import TrackConfig

__all__ = ["add", "counted", "run"]


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
    command.add_argument("--config", type=Path, metavar="FILE", help="a TOML file of rules, such as a tuning's")
    command.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="one rule; may be repeated")
    command.set_defaults(command=run)
    return command


def run(options: argparse.Namespace) -> str:
    """Run it; return what it prints."""
    from sn7.tracking.run import track_folder

    rules = read_values(options.config, TrackConfig, "track") if options.config else {}
    report = track_folder(options.predictions, options.out, rules | TrackConfig.parse(options.set))
    lines = [
        f"{scene.scene}: {counted(scene.months, 'month')} ({scene.invalid_share:.1%} invalid), "
        f"{counted(scene.buildings, 'building')}, {scene.new:,} of them new, {counted(scene.footprints, 'footprint')}, "
        f"{scene.bridged:,} of them bridged; threshold {scene.threshold:g}"
        for scene in report.scenes
    ]
    scenes = report.scenes
    lines += [
        f"warning: the probs of {scene.scene} are pooled over months already, and tracking pools them again, which "
        "blurs when a building came: predict them with --no-tta --pool none."
        for scene in scenes
        if scene.pooled
    ]
    lines += [f"left out: {path}, a map pooled over the months" for scene in scenes for path in scene.left_out]
    lines.append(
        f"{options.out}: {counted(sum(scene.months for scene in scenes), 'month')} of "
        f"{counted(len(scenes), 'scene')} tracked, {counted(sum(scene.buildings for scene in scenes), 'building')} in "
        f"{counted(sum(scene.footprints for scene in scenes), 'footprint')}; "
        f"{counted(sum(len(scene.left_out) for scene in scenes), 'file')} left out"
    )
    return "\n".join(lines)


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, in the plural where it is not one."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
