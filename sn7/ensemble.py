"""Model folders → one predictor: the weighted mean of the members' probs, with one threshold fitted out of fold.

ENSEMBLE/ensemble.json   format, threshold, members, their weights, and how it was fitted
ENSEMBLE/members/<n>/    the model folders
"""

import math
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sn7.augment import enlarge
from sn7.config import TrainConfig
from sn7.errors import ModelInvalid
from sn7.files import atomic_dir, read_json, write_json
from sn7.learner import default_device
from sn7.metrics import ThresholdCurve
from sn7.modeldir import load_model
from sn7.precision import autocast
from sn7.tiles import round_up
from sn7.trainloop import native_probs
from sn7.unet import normalize

__all__ = ["FORMAT", "Predictor", "fit_threshold", "load_predictor", "save_ensemble"]

FORMAT = 2
UNWEIGHTED = 1
"""The format before weights, which is read as equal ones: to build its models again may cost days of a GPU."""
MIN_WINDOW = 512
"""Side of prediction windows as the model sees them, at least: smaller ones spend more of their pixels on overlap."""


class Predictor:
    """One model or the weighted mean of several, ready to predict. Members are models with their configurations."""

    def __init__(
        self,
        name: str,
        members: Sequence[tuple[nn.Module, TrainConfig]],
        threshold: float,
        window: int,
        weights: Sequence[float] | None = None,
    ) -> None:
        """Take models in; `weights`, one a member and above 0, need not sum to 1, and are equal if left out."""
        self.name, self.threshold, self.window = name, threshold, window
        weights = weights or [1.0] * len(members)
        self.weights = [weight / math.fsum(weights) for weight in weights]
        """Share of each member in the probs; they sum to 1."""
        self.device = default_device()
        self.members = [
            (model.to(memory_format=torch.channels_last).to(self.device).eval(), config) for model, config in members
        ]

    @torch.inference_mode()
    def probs(self, batch: Tensor) -> Tensor:
        """Return the building probs, float32 (N, H, W) on the CPU, of RGB uint8 (N, 3, H, W).

        What overflows in the arithmetic of a member's configuration is computed again in fp32. Raises ModelInvalid
        where probs are not finite even so.
        """
        rgb = normalize(batch.to(self.device, non_blocking=True).float() / 255)
        probs = self._mean(rgb)
        if not probs.isfinite().all():
            probs = self._mean(rgb, "fp32")
            if not probs.isfinite().all():
                raise ModelInvalid(
                    f"{self.name} predicts probs that are not finite; train it again with a lower lr_max."
                )
        return probs

    def _mean(self, rgb: Tensor, precision: str = "") -> Tensor:
        total = torch.zeros(len(rgb), *rgb.shape[2:], device=self.device)
        for weight, (model, config) in zip(self.weights, self.members, strict=True):
            enlarged = enlarge(rgb, config.upscale).contiguous(memory_format=torch.channels_last)
            with autocast(precision or config.precision, self.device):
                logits = model(enlarged)
            total += weight * native_probs(logits, config.upscale)
        return total.clamp_(0, 1).cpu()  # NaN stays; the rounding of the weights may lead out by 1e-7


def load_predictor(folder: Path) -> Predictor:
    """Load a model folder (threshold 0.5) or an ensemble folder.

    Raises ModelInvalid where it is neither, or damaged.
    """
    if (folder / "ensemble.json").exists():
        content = _read_ensemble(folder)
        paths, threshold = [folder / member for member in content["members"]], content["threshold"]
        weights = content["weights"]
    else:
        paths, threshold, weights = [folder], 0.5, [1.0]
    members = [(model, described.config) for model, described in map(load_model, paths)]
    window = max(
        MIN_WINDOW // max(config.upscale for _, config in members),
        *(round_up(config.tile_size) for _, config in members),
    )
    return Predictor(folder.resolve().name, members, threshold, window, weights)


def _read_ensemble(folder: Path) -> dict[str, Any]:
    path = folder / "ensemble.json"
    try:
        content = read_json(path)
    except (OSError, ValueError) as error:
        raise ModelInvalid(f"{path} cannot be read ({error}); copy the ensemble folder again.") from error
    found = content.get("format") if isinstance(content, dict) else type(content).__name__
    if found not in (UNWEIGHTED, FORMAT):
        raise ModelInvalid(f"{path} has format {found!r}; wanted {FORMAT}: build the ensemble again with this version.")
    if not content.get("members") or not isinstance(content.get("threshold"), float):
        raise ModelInvalid(f"{path} names no members or no threshold; build the ensemble again.")
    if found == UNWEIGHTED:
        content["weights"] = [1.0] * len(content["members"])
    _require_weights(path, content.get("weights"), len(content["members"]))
    return content


def _require_weights(path: Path, weights: Any, members: int) -> None:
    """Raise ModelInvalid where these are not one number above 0 for each member."""
    numbers = isinstance(weights, list) and all(type(weight) in (int, float) for weight in weights)
    if not numbers or len(weights) != members or not all(0 < weight < math.inf for weight in weights):
        raise ModelInvalid(
            f"{path} has weights {weights!r}; wanted a number above 0 for each of its {members} members: build the "
            "ensemble again."
        )


def save_ensemble(
    folder: Path,
    members: Sequence[Path],
    threshold: float,
    fitted: dict[str, Any],
    weights: Sequence[float] | None = None,
) -> None:
    """Write an ensemble folder from model folders, whole or not at all.

    `weights`, one a member and above 0, are equal if left out. The models' files are hard links where the file system
    has them, so an ensemble beside its members costs no space.
    """
    names = [f"members/{i}" for i in range(len(members))]
    with atomic_dir(folder) as temporary:
        for name, member in zip(names, members, strict=True):
            shutil.copytree(member, temporary / name, copy_function=_link)
        shares = list(weights or [1.0] * len(names))
        about = {"format": FORMAT, "threshold": threshold, "members": names, "weights": shares, "fitted": fitted}
        write_json(temporary / "ensemble.json", about)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)


def fit_threshold(curves: Sequence[ThresholdCurve]) -> tuple[float, list[float]]:
    """Fit one threshold on the out-of-fold curves of all folds, and one for each fold on the others.

    Returns the threshold to predict with, and for each fold the threshold that its metrics are to be reported
    at: it has not seen that fold. With a single fold there are no others, and it keeps 0.5.
    """
    everything = sum(curves, start=ThresholdCurve.empty())
    nested = [
        sum((curve for i, curve in enumerate(curves) if i != k), start=ThresholdCurve.empty()).best_threshold()
        if len(curves) > 1
        else 0.5
        for k in range(len(curves))
    ]
    return everything.best_threshold(), nested
