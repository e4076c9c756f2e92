"""The closing words of a study: the leaderboard's head, the notebook recipe beside the winner, where things lie."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sweep.board import configuration_text
from sweep.leaderboard import Row
from sweep.search import ATTRIBUTES

__all__ = ["closing", "headline", "polygon_threshold"]

HEAD = 5
"""Rows of the leaderboard that are shown; the notebook recipe's comes on top of them."""
FIXED = ("rank", "trial", "recipe", "state", *ATTRIBUTES, "preempted", "failures", "error")


def headline(summary: Mapping[str, Any]) -> str:
    """Return what a study found, in a sentence."""
    ensemble, winner = summary["ensemble"], summary["winner"]
    notebook = summary["notebook"]
    plain = "plain " if ensemble.get("rules") else ""
    beside = f" (the notebook recipe {notebook['dice']:.3f})" if notebook and notebook["dice"] != "" else ""
    return (
        f"Trial {winner['trial']}, the best of {summary['trials']}, reached Dice {winner['dice']:.3f}{beside} on the "
        f"validation scenes at its best epoch; the ensemble of {ensemble['models']} fold models has "
        f"{ensemble['out_of_fold']['dice']:.3f} out of fold: over all labelled images, each by {plain}probs of the "
        "models that did not see its scene."
    )


def polygon_threshold(summary: Mapping[str, Any]) -> float:
    """Return the threshold that the ensemble makes polygons at: as tuned, where that is used, else as fitted."""
    ensemble = summary["ensemble"]
    return float(ensemble.get("rules", {}).get("threshold", ensemble["threshold"]))


def closing(summary: Mapping[str, Any], rows: Sequence[Row], results: Path, ui: str) -> str:
    """Return the closing summary; `ui` is the command or address that shows the runs in MLflow."""
    shown = [row for i, row in enumerate(rows) if i < HEAD or row["recipe"]]
    ensemble = summary["ensemble"]
    places = [
        ("leaderboard", results / "leaderboard.csv", f"{summary['trials']} trials"),
        ("ensemble", results / "ensemble", f"{ensemble['models']} models, threshold {polygon_threshold(summary):.2f}"),
        ("predictions", results / "predictions", f"{summary['predicted']} images, {len(summary['skipped'])} skipped"),
        ("report", results / "report.html", "opens in any browser"),
        ("MLflow", ui, "every trial, epoch by epoch"),
    ]
    lines = ["", "rank  trial  state      Dice   configuration", *(_line(row) for row in shown)]
    if len(rows) > len(shown):
        lines.append(f"… and {len(rows) - len(shown)} more")
    lines += ["", headline(summary), *filter(None, [summary["noise"], summary.get("gain"), summary.get("tuning")]), ""]
    lines += [f"{what:12} {place}  ({note})" for what, place, note in places]
    lines += [f"left out of the ensemble: {sentence}" for sentence in summary.get("failed", ())]
    lines += [f"skipped: {sentence}" for sentence in summary["skipped"]]
    lines += [f"warning: {sentence}" for sentence in summary.get("warnings", ())]
    if reason := summary.get("none_predicted"):
        lines.append(f"no final scene is predicted: {reason}")
    return "\n".join(lines)


def _line(row: Row) -> str:
    dice = f"{float(row['dice']):.3f}" if row["dice"] != "" else "  –  "
    varied = configuration_text({name: value for name, value in row.items() if name not in FIXED and value != ""})
    recipe = "  ← notebook recipe" if row["recipe"] else ""
    return f"{row['rank']!s:>4}  {row['trial']!s:>5}  {row['state']:9}  {dice}  {varied}{recipe}"
