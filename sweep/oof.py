"""Out-of-fold probs on disk.

    results/<study>/oof/<trial>/<scene>/<image>.npy   float16 (height, width) in [0, 1]
    results/<study>/oof/<trial>/<split>.json          seconds a pixel that predicting them took
    results/<study>/oof_tta/…                         the mean over the 8 symmetries, of some images

An image's are from the one fold model of a configuration that did not train on its scene. So they tell configurations
apart, and mixtures of them, but not the fold models of one configuration: no two of these share a scene that neither
was trained on. What is weighed are therefore configurations; all fold models of one have the same weight.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

import numpy as np
import numpy.typing as npt

from sn7.files import read_json, write_json
from sn7.folds import Split
from sn7.prepared import Prepared, PreparedImage

__all__ = [
    "PROBS",
    "TTA_PROBS",
    "Weights",
    "equal",
    "labelled_images",
    "mean_probs",
    "probs_path",
    "read_speeds",
    "write_speed",
]

PROBS = "oof"
"""Folder of out-of-fold probs."""
TTA_PROBS = f"{PROBS}_tta"
"""The same with test-time augmentation, of the images that rules are judged on alone."""

Weights = Mapping[int, float]
"""Share of each trial's configuration in the mean, above 0; they sum to 1."""


def equal(trials: Sequence[int]) -> Weights:
    """Return the weights of a plain mean."""
    return dict.fromkeys(trials, 1 / len(trials))


def labelled_images(prepared: Prepared, split: Split) -> list[PreparedImage]:
    """Return the labelled images of the scenes that a split validates on."""
    return [image for scene in split.validation for image in prepared.scene_images(scene)]


def probs_path(results: Path, trial: int, image: PreparedImage, folder: str = PROBS) -> Path:
    """Return where a trial's out-of-fold probs of an image lie."""
    return results / folder / f"{trial:04d}" / image.array


def mean_probs(weights: Weights, results: Path, image: PreparedImage, folder: str = PROBS) -> npt.NDArray[np.float32]:
    """Return the weighted mean of configurations' out-of-fold probs of an image, float32 (height, width)."""
    total = np.zeros((image.height, image.width), np.float32)
    for trial, weight in weights.items():
        probs = np.load(probs_path(results, trial, image, folder), allow_pickle=False)
        total += np.float32(weight) * probs.astype(np.float32)
    return total.clip(0, 1, out=total)  # the rounding of the weights may lead out by 1e-7


def write_speed(path: Path, seconds: Sequence[float]) -> None:
    """Write the median of the seconds a pixel that a fold model's images took: the first one also warms up."""
    write_json(path, {"seconds_per_pixel": median(seconds)})


def read_speeds(results: Path, trial: int) -> list[float]:
    """Return the seconds a pixel of a configuration's fold models, as far as they were measured."""
    return [read_json(path)["seconds_per_pixel"] for path in (results / PROBS / f"{trial:04d}").glob("*.json")]
