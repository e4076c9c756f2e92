"""What a model is worth on its validation scenes: scene by scene, over thresholds, and how sure that is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, stdtrit
from torch import Tensor

from sn7.metrics import Counts, ThresholdCurve

__all__ = [
    "FEWEST",
    "Evaluation",
    "Interval",
    "ValidationCounts",
    "by_cluster",
    "dice_interval",
    "evaluate",
    "gain_interval",
    "scene_curves",
]

Interval = tuple[float, float] | None
"""From, to; None where there are fewer units than FEWEST."""
FEWEST = 6
"""Units that an interval is told of at least: resampling fewer says little of those that might have been there."""
RESAMPLES = 2000
BEYOND = 0.025
"""Share of cases on either side of a 95 % interval."""


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
    dice_low: float | None
    dice_high: float | None
    """95 % interval of Dice over geographic clusters of scenes (see sn7.folds); None where there are too few."""
    threshold: float
    """That of the highest Dice on these very scenes, so a little flattering."""
    threshold_dice: float
    ceiling_dice: float
    """Of footprints rasterised at 4 × and averaged back: more than the pixels of the labels allow is luck."""

    def metrics(self) -> dict[str, float]:
        """Return the interval, if there is one, the best threshold and its Dice, and the ceiling, by name."""
        return {name: value for name, value in vars(self).items() if name != "scenes" and value is not None}


def scene_curves(counts: ValidationCounts, scenes: list[str]) -> dict[str, ThresholdCurve]:
    """Return the threshold curve of each of the validation scenes, which are in the order of the counts."""
    return {
        scene: ThresholdCurve(building.numpy(), background.numpy())
        for scene, (building, background) in zip(scenes, counts.curves, strict=True)
    }


def evaluate(
    curves: Mapping[str, ThresholdCurve], ceiling: Counts, clusters: Mapping[str, int], seed: int
) -> Evaluation:
    """Return what the threshold curves of validation scenes say.

    `clusters` are those of `by_cluster`, `seed` is that of the resampling.
    """
    counts = {scene: curve.counts(0.5) for scene, curve in curves.items()}
    low, high = dice_interval(by_cluster(counts, clusters), seed) or (None, None)
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


def by_cluster(counts: Mapping[str, Counts], clusters: Mapping[str, int]) -> list[Counts]:
    """Return the counts of each geographic cluster, as sn7.folds.clusters numbers them, in order.

    They are the units of an interval: scenes beside each other share roofs and weather, and are no further evidence.
    """
    sums: dict[int, Counts] = {}
    for scene, count in counts.items():
        sums[clusters[scene]] = sums.get(clusters[scene], Counts()) + count
    return [count for _, count in sorted(sums.items())]


def dice_interval(counts: Sequence[Counts], seed: int) -> Interval:
    """Return the 95 % bootstrap interval of Dice over units that are drawn with replacement: clusters, or blocks."""
    return _interval(_resampled(counts, seed), len(counts)) if len(counts) >= FEWEST else None


def gain_interval(new: Sequence[Counts], old: Sequence[Counts], seed: int) -> Interval:
    """Return the 95 % bootstrap interval of what Dice gains from `old` to `new`, both of the same units.

    Each resample draws the same units for both, so that a unit which is hard for both widens nothing.
    """
    return _interval(_resampled(new, seed) - _resampled(old, seed), len(new)) if len(new) >= FEWEST else None


def _interval(resampled: npt.NDArray[np.float64], units: int) -> tuple[float, float]:
    """Return the percentiles of a 95 % interval, widened for few units as Student's t is (Hesterberg 2015)."""
    beyond = ndtr(stdtrit(units - 1, BEYOND) * (units / (units - 1)) ** 0.5)
    low, high = np.quantile(resampled, (beyond, 1 - beyond))
    return float(low), float(high)


def _resampled(counts: Sequence[Counts], seed: int) -> npt.NDArray[np.float64]:
    """Return Dice of each bootstrap resample (Efron 1979), float64 (RESAMPLES,)."""
    drawn = np.random.default_rng(seed).multinomial(len(counts), [1 / len(counts)] * len(counts), RESAMPLES)
    tp, fp, fn = (drawn @ np.array([(count.tp, count.fp, count.fn) for count in counts])).T
    whole = 2 * tp + fp + fn
    return np.where(whole > 0, 2 * tp / np.maximum(whole, 1), 1.0)
