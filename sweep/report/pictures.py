"""Predictions to look at: out of fold, and of the final scenes."""

from sn7.panels import tile_panels
from sweep.report.findings import Findings
from sweep.report.page import Block, Panels, Picture, Section, Text

__all__ = ["final_scenes", "predictions"]

PREVIEWS = 6
"""Final scenes that are shown."""


def predictions(findings: Findings) -> Section | None:
    """Return the best, median and worst scenes, out of fold; None where no scene has a building."""
    if not findings.examples:
        return None
    words = Text(
        "The ensemble's out-of-fold prediction of the scenes with the highest Dice, around the median, and with the "
        "lowest, each a crop where buildings are densest. In the prediction white is found, orange too much, blue "
        f"missed; in the probability brighter is more probable. Grey is unusable or unlabelled.{findings.as_tuned}"
    )
    return Section(
        "Best, median, worst", [words, *(Panels(tile_panels(tile), tile.title) for tile in findings.examples)]
    )


def final_scenes(findings: Findings) -> Section:
    """Return the predictions of the final scenes, or that there are none."""
    skipped, predicted = findings.summary["skipped"], findings.summary["predicted"]
    blocks: list[Block] = []
    if predicted:
        shown = min(PREVIEWS, len(findings.previews))
        blocks.append(
            Text(
                f"{predicted} images, predicted by the ensemble; no model saw these scenes. Shown is the middle of an "
                f"image of {shown} of {len(findings.previews)} scenes, with the predicted polygons in yellow; all are "
                "in predictions/."
            )
        )
    else:
        blocks.append(Text(f"None was predicted: {findings.summary['none_predicted']}."))
    blocks += [Text(f"Skipped: {sentence}") for sentence in skipped]
    blocks += [Text(f"Warning: {sentence}") for sentence in findings.summary.get("warnings", ())]
    blocks += [Picture(path, f"{path.parent.name}, {path.stem}") for path in findings.previews[:PREVIEWS]]
    return Section("Final scenes", blocks)
