"""The best configurations on every fold; their out-of-fold probs; the ensemble's threshold.

Fold models are of the last epoch: the best one would be chosen on the scenes they are judged by.
"""

import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from sn7.config import TrainConfig
from sn7.ensemble import fit_threshold, load_predictor
from sn7.files import atomic_file
from sn7.folds import Split
from sn7.metrics import Counts, ThresholdCurve
from sn7.prepared import RGB, Prepared
from sn7.windows import predict_array
from sweep.budget import Budget
from sweep.fits import Fit, Told, run_fits
from sweep.oof import PROBS, Weights, labelled_images, mean_probs, probs_path, write_speed
from sweep.scenes import SceneCurves, read_scene
from sweep.selection import Selection
from sweep.study import Study
from sweep.trial import base_folder

__all__ = [
    "FoldScore",
    "Member",
    "OutOfFold",
    "cross_validate",
    "score_out_of_fold",
]


@dataclass(frozen=True)
class Member:
    """A configuration that is trained on every fold."""

    trial: int
    config: TrainConfig


@dataclass(frozen=True)
class FoldScore:
    """Out-of-fold counts on one fold."""

    fold: int
    threshold: float
    """Fitted on the other folds."""
    scenes: tuple[SceneCurves, ...]
    weights: Weights
    """Of the configurations, fitted on the other folds where they were fitted at all."""

    @property
    def curve(self) -> ThresholdCurve:
        """The threshold curve of the fold."""
        return _sum(self.scenes)

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


def cross_validate(
    members: Sequence[Member],
    splits: Sequence[Split],
    study: Study,
    results: Path,
    prepared: str | Path,
    budget: Budget,
    told: Told,
) -> Iterator[tuple[Fit, str]]:
    """Train every member on every fold and keep its out-of-fold probs; see run_fits for what is told and yielded."""
    fits = [
        Fit(
            member.trial,
            f"fold {fold}",
            fold,
            member.config,
            split,
            base_folder(results, member.trial, split.name),
            "last",
        )
        for member in members
        for fold, split in enumerate(splits)
    ]
    predict = partial(_predict_out_of_fold, results)
    for fit, error in run_fits(fits, "folds", study, results, prepared, budget, predict, told):
        if not error:
            _take_probs(results, fit)
        yield fit, error


def _predict_out_of_fold(results: Path, fit: Fit, out: Path, prepared: Prepared) -> None:
    """Write the probs that the results lack into the training's own folder, where no late writer harms the results."""
    images = labelled_images(prepared, fit.split)
    missing = [image for image in images if not probs_path(results, fit.trial, image).exists()]
    if not missing:
        return
    predictor, seconds = load_predictor(out / "model"), []
    for image in missing:
        started = time.perf_counter()
        probs = predict_array(np.ascontiguousarray(prepared.pixels(image)[RGB]), predictor)
        seconds.append((time.perf_counter() - started) / probs.size)
        with atomic_file(out / PROBS / image.array) as temporary:
            np.save(temporary, probs.astype(np.float16))  # steps of 1/2048 at most, a quarter of the disk
    write_speed(out / PROBS / f"{fit.split.name}.json", seconds)


def _take_probs(results: Path, fit: Fit) -> None:
    """Move the probs of a training that has ended to those of its trial."""
    made = fit.out / PROBS
    for path in sorted(path for path in made.rglob("*") if path.is_file()):
        target = results / PROBS / f"{fit.trial:04d}" / path.relative_to(made)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.replace(target)
    shutil.rmtree(made, ignore_errors=True)


def score_out_of_fold(selection: Selection, splits: Sequence[Split], results: Path, prepared: Prepared) -> OutOfFold:
    """Score a mean of out-of-fold probs on each fold, with weights and at a threshold fitted on the others.

    With a single fold there are no others: it keeps the selection's weights and 0.5. One image is in memory at a time.
    """
    nested = selection.nested or (selection.weights,) * len(splits)
    known: dict[tuple[tuple[int, float], ...], list[tuple[SceneCurves, ...]]] = {}
    for weights in (selection.weights, *nested):  # mostly the same ones
        if tuple(weights.items()) not in known:
            probs = partial(mean_probs, weights, results)
            known[tuple(weights.items())] = [
                tuple(read_scene(scene, probs, prepared) for scene in split.validation) for split in splits
            ]
    of_all = [_sum(scenes) for scenes in known[tuple(selection.weights.items())]]
    threshold, _ = fit_threshold(of_all)
    scores = []
    for fold, weights in enumerate(nested):
        of_these = known[tuple(weights.items())]
        apart = fit_threshold([_sum(scenes) for scenes in of_these])[1][fold]
        scores.append(FoldScore(fold, apart, of_these[fold], weights))
    return OutOfFold(threshold, tuple(scores), sum(of_all, start=ThresholdCurve.empty()).counts(threshold))


def _sum(scenes: Sequence[SceneCurves]) -> ThresholdCurve:
    return sum((scene.curve for scene in scenes), start=ThresholdCurve.empty())
