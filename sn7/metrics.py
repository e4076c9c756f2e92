"""Pixel metrics of the building class over valid pixels: counts first, one division at the end.

References: Dice = F1 = 2 TP / (2 TP + FP + FN), IoU = TP / (TP + FP + FN).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["BINS", "Counts", "ThresholdCurve", "block_curves"]

BINS = 256
"""Steps of a threshold curve; a threshold is a multiple of 1 / BINS."""


@dataclass(frozen=True)
class Counts:
    """True positive, false positive and false negative pixels; add them up before any metric is read."""

    tp: int = 0
    fp: int = 0
    fn: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn)

    @property
    def dice(self) -> float:
        """Dice, 0 to 1; 1 where there is nothing to find and nothing was found."""
        return _ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def iou(self) -> float:
        """Intersection over union, 0 to 1; 1 where there is nothing to find and nothing was found."""
        return _ratio(self.tp, self.tp + self.fp + self.fn)

    @property
    def precision(self) -> float:
        """Share of the predicted building pixels that are building; 1 where nothing was predicted."""
        return _ratio(self.tp, self.tp + self.fp)

    @property
    def recall(self) -> float:
        """Share of the building pixels that were predicted; 1 where there are none."""
        return _ratio(self.tp, self.tp + self.fn)

    def metrics(self) -> dict[str, float]:
        """Return dice, iou, precision and recall by name."""
        return {"dice": self.dice, "iou": self.iou, "precision": self.precision, "recall": self.recall}


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 1.0


@dataclass(frozen=True)
class ThresholdCurve:
    """Histograms of probs over building and over background pixels; curves of several images add up.

    `building` and `background` are int64 (BINS,): bin k counts probs in [k, k + 1) / BINS, the last one with 1.
    """

    building: npt.NDArray[np.int64]
    background: npt.NDArray[np.int64]

    @classmethod
    def empty(cls) -> "ThresholdCurve":
        """Return a curve over no pixels."""
        return cls(np.zeros(BINS, np.int64), np.zeros(BINS, np.int64))

    @classmethod
    def of(cls, probs: npt.NDArray[Any], mask: npt.NDArray[Any], valid: npt.NDArray[Any]) -> "ThresholdCurve":
        """Return the curve of an image.

        Arguments and errors are those of `block_curves`.
        """
        (curve,) = block_curves(probs, mask, valid, 1)
        return curve

    def __add__(self, other: "ThresholdCurve") -> "ThresholdCurve":
        return ThresholdCurve(self.building + other.building, self.background + other.background)

    def counts(self, threshold: float) -> Counts:
        """Return the counts at `probs >= threshold`, with the threshold rounded to a multiple of 1 / BINS."""
        k = round(threshold * BINS)
        tp = int(self.building[k:].sum())
        return Counts(tp, int(self.background[k:].sum()), int(self.building.sum()) - tp)

    def dice(self) -> npt.NDArray[np.float64]:
        """Return Dice at the thresholds 0, 1 / BINS, …, (BINS - 1) / BINS: float64 (BINS,)."""
        tp = np.cumsum(self.building[::-1])[::-1]
        fp = np.cumsum(self.background[::-1])[::-1]
        whole = tp + fp + self.building.sum()
        return np.where(whole > 0, 2 * tp / np.maximum(whole, 1), 1.0)

    def best_threshold(self) -> float:
        """Return the threshold of the highest Dice, above 0; the middle one where several are as good."""
        dice = self.dice()
        best = np.flatnonzero(dice >= dice.max() - 1e-12)
        return float(max(best[len(best) // 2], 1)) / BINS  # at 0 all would be building, also what is no building


def block_curves(
    probs: npt.NDArray[Any], mask: npt.NDArray[Any], valid: npt.NDArray[Any], parts: int
) -> list[ThresholdCurve]:
    """Return the curves of an image's parts × parts blocks, row by row, which add up to the image's.

    `probs` is float (H, W) in [0, 1], `mask` {0, 1} and `valid` {0, 1} or bool of the same shape. Raises
    ValueError where a valid pixel's prob is not finite or outside [0, 1].
    """
    seen = valid.astype(bool)
    chosen = probs[seen].astype(np.float32)
    if not (np.isfinite(chosen).all() and (chosen >= 0).all() and (chosen <= 1).all()):
        raise ValueError("probs of valid pixels must lie in [0, 1]")
    bins = np.minimum((chosen * BINS).astype(np.int64), BINS - 1)
    rows, cols = (np.arange(length) * parts // length for length in probs.shape)
    block = (rows[:, None] * parts + cols)[seen]
    histograms = np.bincount((block * 2 + mask[seen].astype(bool)) * BINS + bins, minlength=parts * parts * 2 * BINS)
    return [ThresholdCurve(building, background) for background, building in histograms.reshape(-1, 2, BINS)]
