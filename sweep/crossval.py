"""The best configurations on every fold, as Ray tasks; their out-of-fold probs; the ensemble's threshold.

A fold that has been trained already, in an earlier start or because the search itself ran over the folds, is
not trained again. Fold models are of the last epoch: the best one would be chosen on the scenes they are judged by.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import ray
from ray.util.queue import Empty, Queue

from sn7.config import TrainConfig
from sn7.ensemble import fit_threshold, load_predictor
from sn7.errors import Sn7Error
from sn7.files import atomic_file
from sn7.folds import Split
from sn7.metrics import Counts, ThresholdCurve
from sn7.prepared import MASK, RGB, VALID, Prepared, PreparedImage, load_prepared
from sn7.train import EpochMetrics, read_result, train
from sn7.windows import predict_array
from sweep.board import Board
from sweep.study import Resources
from sweep.trial import split_folder

__all__ = [
    "FoldScore",
    "Member",
    "OutOfFold",
    "cross_validate",
    "labelled_images",
    "mean_probs",
    "result",
    "score_out_of_fold",
]


@dataclass(frozen=True)
class Member:
    """A configuration that is trained on every fold."""

    trial: int
    config: TrainConfig


@dataclass(frozen=True)
class FoldJob:
    """One configuration on one fold."""

    index: int
    member: Member
    fold: int
    split: Split
    results: Path
    prepared: Path

    @property
    def out(self) -> Path:
        """The folder of the training."""
        return split_folder(self.results, self.member.trial, self.split.name)


@dataclass(frozen=True)
class FoldScore:
    """Out-of-fold counts on one fold."""

    fold: int
    threshold: float
    """Fitted on the other folds."""
    counts: Counts


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
    def dice_by_fold(self) -> list[float]:
        """Dice of each fold."""
        return [fold.counts.dice for fold in self.folds]


def cross_validate(
    members: Sequence[Member], splits: Sequence[Split], results: Path, prepared: Path, resources: Resources
) -> Iterator[tuple[Member, int, str]]:
    """Train every member on every fold and keep its out-of-fold probs.

    Yields (member, fold, error) as each is done; the error is empty where all went well, and does not stop the
    others.
    """
    jobs = [
        FoldJob(index, member, fold, splits[fold], results, prepared)
        for index, (member, fold) in enumerate((member, fold) for member in members for fold in range(len(splits)))
    ]
    todo = sum(read_result(job.out) is None for job in jobs)
    board = Board(len(jobs), todo * members[0].config.epochs, "folds")
    progress = Queue(actor_options={"num_cpus": 0})
    task = ray.remote(num_cpus=resources.cpu, num_gpus=resources.gpu)(_run_fold)
    waiting = {task.remote(job, progress): job for job in jobs}
    while waiting:
        done, _ = ray.wait(list(waiting), timeout=0.5)
        for index, where, dice in _drain(progress):
            board.epoch(index, where, dice)
        for reference in done:
            job = waiting.pop(reference)
            error = _error(reference)
            board.end(job.index, "FAILED" if error else "COMPLETE")
            yield job.member, job.fold, error
    board.close()
    progress.shutdown()


def _error(reference: ray.ObjectRef) -> str:
    """Return why a task has failed, in a line, or nothing."""
    try:
        result(reference)
    except (Sn7Error, OSError, RuntimeError, ray.exceptions.RayError) as error:
        # RuntimeError is torch's, out of memory among them; RayError a worker that was killed.
        return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return ""


def result(reference: ray.ObjectRef) -> Any:
    """Return what a Ray task has returned, or raise what it has raised."""
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error  # ours to report; Ray's own is the worker's traceback as text


def _drain(progress: Queue) -> Iterator[tuple[int, str, float]]:
    while True:
        try:
            yield progress.get_nowait()
        except Empty:
            return


def _run_fold(job: FoldJob, progress: Queue) -> None:
    prepared = load_prepared(job.prepared)
    if read_result(job.out) is None:

        def report(metrics: EpochMetrics) -> None:
            where = f"trial {job.member.trial} {job.split.name} epoch {metrics.epoch}/{job.member.config.epochs}"
            progress.put((job.index, where, metrics.dice))

        train(job.member.config, prepared, job.split, job.out, report, keep="last")
    _predict_out_of_fold(job, prepared)


def _predict_out_of_fold(job: FoldJob, prepared: Prepared) -> None:
    images = labelled_images(prepared, job.split)
    missing = [image for image in images if not _probs_path(job.results, job.member.trial, image).exists()]
    if not missing:
        return
    predictor = load_predictor(job.out / "model")
    for image in missing:
        probs = predict_array(np.ascontiguousarray(prepared.pixels(image)[RGB]), predictor)
        with atomic_file(_probs_path(job.results, job.member.trial, image)) as temporary:
            np.save(temporary, probs.astype(np.float16))  # steps of 1/2048 at most, a quarter of the disk


def labelled_images(prepared: Prepared, split: Split) -> list[PreparedImage]:
    """Return the labelled images of the scenes that a split validates on."""
    return [image for scene in split.validation for image in prepared.scene_images(scene)]


def _probs_path(results: Path, trial: int, image: PreparedImage) -> Path:
    return results / "oof" / f"{trial:04d}" / image.array


def score_out_of_fold(trials: Sequence[int], splits: Sequence[Split], results: Path, prepared: Prepared) -> OutOfFold:
    """Score the mean of the trials' out-of-fold probs on each fold, at a threshold fitted on the others.

    One image is in memory at a time.
    """
    curves = [_curve(trials, split, results, prepared) for split in splits]
    threshold, nested = fit_threshold(curves)
    scores = [FoldScore(fold, nested[fold], curve.counts(nested[fold])) for fold, curve in enumerate(curves)]
    return OutOfFold(threshold, tuple(scores))


def _curve(trials: Sequence[int], split: Split, results: Path, prepared: Prepared) -> ThresholdCurve:
    total = ThresholdCurve.empty()
    for image in labelled_images(prepared, split):
        pixels = prepared.pixels(image)
        total += ThresholdCurve.of(mean_probs(trials, results, image), pixels[MASK], pixels[VALID])
    return total


def mean_probs(trials: Sequence[int], results: Path, image: PreparedImage) -> npt.NDArray[np.float32]:
    """Return the mean of the trials' out-of-fold probs of an image, float32 (height, width)."""
    probs = [np.load(_probs_path(results, trial, image), allow_pickle=False).astype(np.float32) for trial in trials]
    return np.mean(probs, axis=0)
