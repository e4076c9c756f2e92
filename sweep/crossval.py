"""The best configurations on every fold; their out-of-fold probs; the ensemble's threshold.

Fold models are of the last epoch: the best one would be chosen on the scenes they are judged by.
"""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sn7.config import TrainConfig
from sn7.ensemble import fit_threshold, load_predictor
from sn7.files import atomic_file
from sn7.folds import Split
from sn7.metrics import Counts, ThresholdCurve
from sn7.prepared import RGB, Prepared, PreparedImage
from sn7.windows import predict_array
from sweep.budget import Budget
from sweep.fits import Fit, run_fits
from sweep.scenes import SceneCurves, read_scene
from sweep.study import Study
from sweep.trial import base_folder

__all__ = [
    "FoldScore",
    "Member",
    "OutOfFold",
    "cross_validate",
    "labelled_images",
    "mean_probs",
    "score_out_of_fold",
]


PROBS = "oof"
"""Folder of out-of-fold probs."""


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

    @property
    def curve(self) -> ThresholdCurve:
        """The threshold curve of the fold."""
        return sum((scene.curve for scene in self.scenes), start=ThresholdCurve.empty())

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
) -> Iterator[tuple[Fit, str]]:
    """Train every member on every fold and keep its out-of-fold probs; see run_fits for what is yielded."""
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
    for fit, error in run_fits(fits, "folds", study, results, prepared, budget, predict):
        if not error:
            _take_probs(results, fit)
        yield fit, error


def _predict_out_of_fold(results: Path, fit: Fit, out: Path, prepared: Prepared) -> None:
    """Write the probs that the results lack into the training's own folder, where no late writer harms the results."""
    images = labelled_images(prepared, fit.split)
    missing = [image for image in images if not _probs_path(results, fit.trial, image).exists()]
    if not missing:
        return
    predictor = load_predictor(out / "model")
    for image in missing:
        probs = predict_array(np.ascontiguousarray(prepared.pixels(image)[RGB]), predictor)
        with atomic_file(out / PROBS / image.array) as temporary:
            np.save(temporary, probs.astype(np.float16))  # steps of 1/2048 at most, a quarter of the disk


def _take_probs(results: Path, fit: Fit) -> None:
    """Move the probs of a training that has ended to those of its trial."""
    made = fit.out / PROBS
    for path in sorted(made.rglob("*.npy")):
        target = results / PROBS / f"{fit.trial:04d}" / path.relative_to(made)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.replace(target)
    shutil.rmtree(made, ignore_errors=True)


def labelled_images(prepared: Prepared, split: Split) -> list[PreparedImage]:
    """Return the labelled images of the scenes that a split validates on."""
    return [image for scene in split.validation for image in prepared.scene_images(scene)]


def _probs_path(results: Path, trial: int, image: PreparedImage) -> Path:
    return results / PROBS / f"{trial:04d}" / image.array


def score_out_of_fold(trials: Sequence[int], splits: Sequence[Split], results: Path, prepared: Prepared) -> OutOfFold:
    """Score the mean of the trials' out-of-fold probs on each fold, at a threshold fitted on the others.

    One image is in memory at a time.
    """
    probs = partial(mean_probs, trials, results)
    scenes = [tuple(read_scene(scene, probs, prepared) for scene in split.validation) for split in splits]
    curves = [sum((scene.curve for scene in fold), start=ThresholdCurve.empty()) for fold in scenes]
    threshold, nested = fit_threshold(curves)
    return OutOfFold(threshold, tuple(FoldScore(fold, nested[fold], scenes[fold]) for fold in range(len(splits))))


def mean_probs(trials: Sequence[int], results: Path, image: PreparedImage) -> npt.NDArray[np.float32]:
    """Return the mean of the trials' out-of-fold probs of an image, float32 (height, width)."""
    probs = [np.load(_probs_path(results, trial, image), allow_pickle=False).astype(np.float32) for trial in trials]
    return np.mean(probs, axis=0)
