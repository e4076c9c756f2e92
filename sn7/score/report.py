"""What predictions are worth, for people and as JSON: counts summed before one division, SCOT a mean over scenes."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from sn7.metrics import Counts
from sn7.score.scot import SceneScore, f1

__all__ = ["Report", "SceneReport", "report_text"]


@dataclass(frozen=True)
class SceneReport:
    """The metrics of a scene."""

    scene: str
    objects: SceneScore | None
    """None where no footprints are predicted in any scene."""
    tracked: bool
    """Whether all footprints have an Id, so that SCOT is defined."""
    pixels: Counts | None
    """None where no labelled image of it has predicted pixels."""
    images: int
    """Of the pixel metrics."""
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Report:
    """The metrics of scenes, in order of their names, and of all together."""

    ious: tuple[float, ...]
    """What a match has to exceed for F1."""
    scenes: tuple[SceneReport, ...]

    @property
    def notes(self) -> list[str]:
        """What a reader should know, a sentence each."""
        return [f"{one.scene}: {note}" for one in self.scenes for note in one.notes]

    def overall(self) -> dict[str, Any]:
        """Return the metrics of all scenes: F1 and pixel metrics of summed counts, SCOT and its terms as means."""
        pixels = [one.pixels for one in self.scenes if one.pixels is not None]
        objects = [one.objects for one in self.scenes if one.objects is not None]
        tracked = bool(objects) and all(one.tracked for one in self.scenes)
        return {
            "scenes": len(self.scenes),
            "months": sum(one.months for one in objects),
            "images": sum(one.images for one in self.scenes),
            **_pixels(sum(pixels, start=Counts()) if pixels else None),
            "f1": {
                f"{iou:g}": _f1(sum((one.matches[iou] for one in objects), start=Counts()) if objects else None)
                for iou in self.ious
            },
            **{name: fmean(getattr(one, name) for one in objects) if tracked else None for name in TERMS},
            "mismatches": sum(one.mismatches for one in objects) if tracked else None,
        }

    def to_dict(self) -> dict[str, Any]:
        """Return all metrics by name, those of a scene below its name; None where the inputs do not allow one."""
        scenes = {one.scene: Report(self.ious, (one,)).overall() for one in self.scenes}
        for metrics in scenes.values():
            del metrics["scenes"]
        return {"overall": self.overall(), "scenes": scenes, "notes": self.notes}


TERMS = ("f_track", "f_change", "scot")
PIXELS = ("dice", "iou", "precision", "recall")


def _pixels(counts: Counts | None) -> dict[str, float | None]:
    return dict(counts.metrics()) if counts else dict.fromkeys(PIXELS)


def _f1(counts: Counts | None) -> dict[str, float] | None:
    """Return F1 at an IoU with what it comes from, None without footprints."""
    if counts is None:
        return None
    shares = {"precision": counts.precision, "recall": counts.recall}
    return {"f1": f1(counts), **shares, "tp": counts.tp, "fp": counts.fp, "fn": counts.fn}


def report_text(report: Report) -> str:
    """Return the metrics as a table, a line a scene and one for all, then the notes."""
    whole = report.to_dict()
    rows = [["scene", *_heads(report.ious)]]
    rows += [[scene, *_cells(metrics)] for scene, metrics in whole["scenes"].items()]
    rows.append([f"all {len(report.scenes)} scenes", *_cells(whole["overall"])])
    shown = [i for i in range(len(rows[0])) if i == 0 or any(row[i] not in ("–", "0") for row in rows[1:])]
    widths = [max(len(row[i]) for row in rows) for i in shown]
    lines = list(_aligned(rows, shown, widths))
    return "\n".join([*lines, *(f"note: {note}." for note in report.notes), _closing(report, whole["overall"])])


def _heads(ious: Sequence[float]) -> list[str]:
    f1s = [f"F1@{iou:g}" for iou in ious]
    return ["images", "Dice", "IoU", "precision", "recall", "months", *f1s, "F_track", "F_change", "SCOT"]


def _cells(metrics: Mapping[str, Any]) -> list[str]:
    f1s = [found and found["f1"] for found in metrics["f1"].values()]
    pixels = [_cell(metrics[name]) for name in PIXELS]
    objects = [_cell(value) for value in (*f1s, *(metrics[name] for name in TERMS))]
    return [str(metrics["images"]), *pixels, str(metrics["months"]), *objects]


def _cell(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _aligned(rows: list[list[str]], shown: list[int], widths: list[int]) -> Iterator[str]:
    for row in rows:
        first, *others = (row[i] for i in shown)
        yield "  ".join([first.ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(others, widths[1:], strict=True))])


def _closing(report: Report, overall: Mapping[str, Any]) -> str:
    scenes = len(report.scenes)
    found = next((counts for counts in overall["f1"].values() if counts), None)
    parts = [f"{scenes} scene{'s' if scenes > 1 else ''} scored"]
    if found:
        true, predicted = found["tp"] + found["fn"], found["tp"] + found["fp"]
        parts.append(f"{true} true and {predicted} predicted footprints in {overall['months']} months")
    parts.append(f"pixels of {overall['images']} images" if overall["images"] else "no pixels (no probs or masks)")
    return ", ".join(parts) + f"; {len(report.notes)} notes"
