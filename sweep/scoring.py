"""Means of configurations, scored on out-of-fold probs: fold by fold, at thresholds fitted on the other folds."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sn7.ensemble import fit_threshold
from sn7.folds import Split
from sn7.metrics import Counts, ThresholdCurve
from sn7.prepared import Prepared, load_prepared
from sweep.oof import Weights, mean_probs
from sweep.scenes import SceneCurves, read_scene
from sweep.selection import Selection
from sweep.stage import Stage

__all__ = ["FoldScore", "OutOfFold", "Scorer", "total"]

Scenes = tuple[SceneCurves, ...]


def total(scenes: Sequence[SceneCurves]) -> ThresholdCurve:
    """Return the curve of all these scenes."""
    return sum((scene.curve for scene in scenes), start=ThresholdCurve.empty())


@dataclass(frozen=True)
class FoldScore:
    """Out-of-fold counts on one fold."""

    fold: int
    threshold: float
    """Fitted on the other folds."""
    scenes: Scenes
    weights: Weights
    """Of the configurations, fitted on the other folds where they were fitted at all."""

    @property
    def curve(self) -> ThresholdCurve:
        """The threshold curve of the fold."""
        return total(self.scenes)

    @property
    def counts(self) -> Counts:
        """The counts at the threshold."""
        return self.curve.counts(self.threshold)


@dataclass(frozen=True)
class OutOfFold:
    """How well the members do on scenes that they did not see, fold by fold."""

    threshold: float
    """Fitted on all folds together: what the ensemble predicts with, and is not reported at."""
    folds: tuple[FoldScore, ...]
    optimistic: Counts
    """Of all folds, with weights and threshold fitted on these very folds: beside `counts`, what that flatters by."""

    @property
    def counts(self) -> Counts:
        """The counts of all folds, each at its own fold's threshold."""
        return sum((fold.counts for fold in self.folds), start=Counts())

    @property
    def by_scene(self) -> dict[str, Counts]:
        """The counts of each scene, at its fold's threshold."""
        return {s.scene: s.curve.counts(fold.threshold) for fold in self.folds for s in fold.scenes}

    @property
    def dice_by_fold(self) -> list[float]:
        """Dice of each fold."""
        return [fold.counts.dice for fold in self.folds]


class Scorer:
    """Scores means of configurations. Curves of a fold are read once for each mean, several folds at a time."""

    def __init__(self, results: Path, prepared: Prepared, stage: Stage) -> None:
        self.results, self.prepared, self.stage = results, prepared, stage
        self._known: dict[tuple[frozenset[tuple[int, float]], str], Scenes] = {}

    def read(self, asked: Sequence[tuple[Weights, Split]]) -> list[Scenes]:
        """Return the curves of each split's validation scenes under the mean that stands beside it."""
        keys = [(frozenset(weights.items()), split.name) for weights, split in asked]
        missing = {key: pair for key, pair in zip(keys, asked, strict=True) if key not in self._known}
        tasks = [(*pair, self.results, self.prepared.place) for pair in missing.values()]
        new = list(missing)
        for number, scenes in self.stage.run(_read, tasks, "folds scored"):
            self._known[new[number]] = scenes
        return [self._known[key] for key in keys]

    def score(self, selection: Selection, splits: Sequence[Split]) -> OutOfFold:
        """Score a mean on each fold, with weights and at a threshold fitted on the others.

        With a single fold there are no others: it keeps the selection's weights and 0.5.
        """
        nested = selection.nested or (selection.weights,) * len(splits)
        found = self.read([(weights, split) for weights in (selection.weights, *nested) for split in splits])
        of_all, *of_nested = (found[start : start + len(splits)] for start in range(0, len(found), len(splits)))
        curves = [total(scenes) for scenes in of_all]
        threshold, _ = fit_threshold(curves)
        scores = []
        for fold, (weights, of_these) in enumerate(zip(nested, of_nested, strict=True)):
            apart = fit_threshold([total(scenes) for scenes in of_these])[1][fold]
            scores.append(FoldScore(fold, apart, of_these[fold], weights))
        return OutOfFold(threshold, tuple(scores), sum(curves, start=ThresholdCurve.empty()).counts(threshold))


def _read(weights: Weights, split: Split, results: Path, place: str | Path) -> Scenes:
    """Return the curves of a split's validation scenes; one image is in memory at a time."""
    prepared, probs = load_prepared(place), partial(mean_probs, weights, results)
    return tuple(read_scene(scene, probs, prepared) for scene in split.validation)
