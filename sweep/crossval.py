"""The best configurations on every fold, and their out-of-fold probs.

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
from sn7.ensemble import load_predictor
from sn7.files import atomic_file
from sn7.folds import Split
from sn7.prepared import RGB, Prepared
from sn7.windows import predict_array
from sweep.budget import Budget
from sweep.fits import Fit, Told, run_fits
from sweep.oof import PROBS, labelled_images, probs_path, write_speed
from sweep.stopping import StopFile, Stopped
from sweep.study import Study
from sweep.trial import base_folder

__all__ = ["Member", "cross_validate"]


@dataclass(frozen=True)
class Member:
    """A configuration that is trained on every fold."""

    trial: int
    config: TrainConfig


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
        if StopFile(results).requested():
            raise Stopped
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
