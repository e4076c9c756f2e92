"""Which configurations the ensemble takes, and with which weights: chosen on out-of-fold probs, fold by fold.

For each fold they are chosen on the other ones, so that the choice can be judged on scenes that it has not seen; what
is built is chosen on all.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import gcd
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sn7.folds import Split
from sn7.metrics import ThresholdCurve
from sn7.prepared import MASK, VALID, Prepared, PreparedImage, load_prepared
from sn7.selection import Taken, select_greedily
from sweep.oof import Weights, labelled_images, probs_path
from sweep.stage import Stage

__all__ = ["Selection", "select"]

STEPS = 12
"""Configurations that are taken, one after the other, the same one again among them: weights are at least 1 / 12."""
PIXELS = 1 << 21
"""Pixels of a fold that the choice is made on, drawn evenly from its valid ones: 15 MB for three configurations."""


@dataclass(frozen=True)
class Selection:
    """Configurations with their weights."""

    weights: Weights
    """Chosen on all folds: what the ensemble is built with."""
    nested: tuple[Weights, ...] = ()
    """For each fold, chosen on the other ones; () where nothing was chosen, so that they are the same."""


@dataclass(frozen=True, eq=False)
class _Pixels:
    """Valid pixels of a fold: probs float16 (configurations, n), and whether they are building, bool (n,)."""

    probs: npt.NDArray[np.float16]
    building: npt.NDArray[np.bool_]

    def curve(self, taken: Taken) -> ThresholdCurve:
        total = np.zeros(len(self.building), np.float32)
        for count, probs in zip(taken, self.probs, strict=True):
            if count:
                total += np.float32(count / sum(taken)) * probs.astype(np.float32)
        return ThresholdCurve.of(total.clip(0, 1)[None], self.building[None], np.ones((1, len(total)), np.bool_))


def select(
    trials: Sequence[int], splits: Sequence[Split], results: Path, prepared: Prepared, stage: Stage
) -> Selection:
    """Choose among the trials' configurations by Dice at its best threshold, on all folds and on all but each one."""
    if len(trials) == 1:
        return Selection({trials[0]: 1.0}, ({trials[0]: 1.0},) * len(splits))
    tasks = [(trials, split, results, prepared.place) for split in splits]
    folds = dict(stage.run(_pixels, tasks, "folds read"))

    @cache
    def curve(fold: int, taken: Taken) -> ThresholdCurve:
        return folds[fold].curve(taken)

    def chosen(on: Sequence[int]) -> Weights:
        def score(taken: Taken) -> float:
            least = tuple(count // gcd(*taken) for count in taken)  # the same mean, however often it was taken
            return float(sum((curve(fold, least) for fold in on), start=ThresholdCurve.empty()).dice().max())

        taken = select_greedily(len(trials), score, STEPS)
        stage.beat()
        return {trial: count / sum(taken) for trial, count in zip(trials, taken, strict=True) if count}

    every = range(len(splits))
    return Selection(chosen(every), tuple(chosen([other for other in every if other != fold]) for fold in every))


def _pixels(trials: Sequence[int], split: Split, results: Path, place: str | Path) -> _Pixels:
    prepared = load_prepared(place)
    images = labelled_images(prepared, split)
    share = min(1.0, PIXELS / max(1.0, sum(image.valid_share * image.height * image.width for image in images)))
    drawn = [_draw(trials, image, share, index, results, prepared) for index, image in enumerate(images)]
    return _Pixels(
        np.concatenate([probs for probs, _ in drawn], axis=1), np.concatenate([building for _, building in drawn])
    )


def _draw(
    trials: Sequence[int], image: PreparedImage, share: float, seed: int, results: Path, prepared: Prepared
) -> tuple[npt.NDArray[np.float16], npt.NDArray[np.bool_]]:
    """Return probs (configurations, n) and building (n,) of a share of an image's valid pixels."""
    pixels = prepared.pixels(image)
    seen = pixels[VALID] == 1
    if share < 1:
        seen &= np.random.default_rng(seed).random(seen.shape, np.float32) < share
    probs = [np.load(probs_path(results, trial, image), mmap_mode="r", allow_pickle=False)[seen] for trial in trials]
    return np.stack(probs), pixels[MASK][seen] == 1
