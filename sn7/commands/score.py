"""`sn7 score`: what predictions are worth beside the truth."""

import argparse
import json
from pathlib import Path
from typing import Any

__all__ = ["add", "run"]

EPILOG = """\
TRUTH and PREDICTIONS are each a data set, a folder of scenes, a scene's folder, or a challenge CSV (filename, id,
geometry in pixels). In folders the names of the files tell scene and month: labels_match/<image>_Buildings.geojson, or
what `sn7 predict` and `sn7 track` write: <image>.geojson, and <image>.tif for the pixel metrics.

Dice, IoU, precision, recall   of building pixels over valid ones, from probs or masks
F1@0.25                        of footprints: true and predicted ones are matched in each month, one to one, where their
                               IoU exceeds 0.25; true ones under 4 px² are not looked for
F_track, F_change, SCOT        whether buildings keep their Id, and are new when they are new; 0 to 1

Counts are summed over scenes before they are divided; SCOT and its terms are means over the scenes of the truth. A
scene or a month of the truth without predictions counts as one in which nothing was found."""


def add(commands: Any) -> argparse.ArgumentParser:
    """Add the sub-command."""
    command: argparse.ArgumentParser = commands.add_parser(
        "score", help="truth and predictions → Dice, F1@0.25, SCOT", epilog=EPILOG
    )
    command.add_argument("truth", type=Path, help="folder or challenge CSV")
    command.add_argument("predictions", type=Path, help="folder or challenge CSV")
    command.add_argument("--json", action="store_true", help="one JSON object, with the counts")
    command.add_argument(
        "--iou", type=float, nargs="+", default=[0.25], help="what a match has to exceed, for F1 (default: 0.25)"
    )
    command.add_argument(
        "--threshold", type=float, help="probs from which a pixel is building (default: that in the file, else 0.5)"
    )
    command.add_argument(
        "--scenes", nargs="+", metavar="SCENE", help="score these scenes only (default: all of the truth)"
    )
    command.add_argument("--workers", type=int, help="processes (default: as many as cores, if there is enough to do)")
    command.set_defaults(command=run)
    return command


def run(options: argparse.Namespace) -> str:
    """Run it; return what it prints."""
    from sn7.score import report_text, score

    report = score(options.truth, options.predictions, options.iou, options.threshold, options.scenes, options.workers)
    return json.dumps(report.to_dict(), indent=2, allow_nan=False) if options.json else report_text(report)
