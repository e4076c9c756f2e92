"""What a model is worth on its validation scenes: scene by scene, over thresholds, and how sure that is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

from sn7.metrics import Counts, ThresholdCurve

__all__ = ["Evaluation", "ValidationCounts", "dice_interval", "evaluate", "gain_interval", "scene_curves"]

RESAMPLES = 2000
INTERVAL = (2.5, 97.5)
"""Percentiles of the resampled Dice: a 95 % interval."""


@dataclass(frozen=True)
class ValidationCounts:
    """What an epoch's predictions count to, on the images' own grid, on the CPU."""

    tiles: Tensor
    """TP, FP and FN of each validation tile at probs >= 0.5, int64 (tiles, 3)."""
    curves: Tensor
    """Histograms of the probs of building (first) and background pixels, int64 (scenes, 2, BINS)."""


@dataclass(frozen=True)
class Evaluation:
    """Metrics are of the building class, from counts summed over valid pixels."""

    scenes: dict[str, dict[str, float]]
    """Dice, IoU, precision and recall of each scene at probs >= 0.5."""
    dice_low: float
    dice_high: float
    """95 % interval of Dice: scenes drawn with replacement, 2,000 times. As wide as scenes are few."""
    threshold: float
    """That of the highest Dice on these very scenes, so a little flattering."""
    threshold_dice: float
    ceiling_dice: float
    """Of footprints rasterised at 4 × and averaged back: more than the pixels of the labels allow is luck."""

    def metrics(self) -> dict[str, float]:
        """Return the interval, the best threshold and its Dice, and the ceiling, by name."""
        return {name: value for name, value in vars(self).items() if name != "scenes"}


def scene_curves(counts: ValidationCounts, scenes: list[str]) -> dict[str, ThresholdCurve]:
    """Return the threshold curve of each of the validation scenes, which are in the order of the counts."""
    return {
        scene: ThresholdCurve(building.numpy(), background.numpy())
        for scene, (building, background) in zip(scenes, counts.curves, strict=True)
    }


def evaluate(curves: Mapping[str, ThresholdCurve], ceiling: Counts, seed: int) -> Evaluation:
    """Return what the threshold curves of validation scenes say; `seed` is that of the resampling."""
    counts = {scene: curve.counts(0.5) for scene, curve in curves.items()}
    low, high = dice_interval(list(counts.values()), seed)
    together = sum(curves.values(), start=ThresholdCurve.empty())
    threshold = together.best_threshold()
    return Evaluation(
        scenes={scene: count.metrics() for scene, count in counts.items()},
        dice_low=low,
        dice_high=high,
        threshold=threshold,
        threshold_dice=together.counts(threshold).dice,
        ceiling_dice=ceiling.dice,
    )


def dice_interval(counts: Sequence[Counts], seed: int) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of Dice over units that are drawn with replacement: scenes, or blocks."""
    low, high = np.percentile(_resampled(counts, seed), INTERVAL)
    return float(low), float(high)


def gain_interval(new: Sequence[Counts], old: Sequence[Counts], seed: int) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of what Dice gains from `old` to `new`, both of the same units.

    Each resample draws the same units for both, so that a unit which is hard for both widens nothing.
    """
    low, high = np.percentile(_resampled(new, seed) - _resampled(old, seed), INTERVAL)
    return float(low), float(high)


def _resampled(counts: Sequence[Counts], seed: int) -> npt.NDArray[np.float64]:
    """Return Dice of each bootstrap resample (Efron 1979), float64 (RESAMPLES,)."""
    drawn = np.random.default_rng(seed).multinomial(len(counts), [1 / len(counts)] * len(counts), RESAMPLES)
    tp, fp, fn = (drawn @ np.array([(count.tp, count.fp, count.fn) for count in counts])).T
    whole = 2 * tp + fp + fn
    return np.where(whole > 0, 2 * tp / np.maximum(whole, 1), 1.0)
