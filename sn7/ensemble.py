"""Model folders → one predictor: the weighted mean of the members' probs, with one threshold fitted out of fold.

ENSEMBLE/ensemble.json   format, threshold, members, their weights, how it was fitted, and, where that was tuned, the
                         way from images to probs and the rules of polygons
ENSEMBLE/members/<n>/    the model folders
"""

import hashlib
import math
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate

from sn7.augment import enlarge
from sn7.config import TrainConfig
from sn7.device import default_device, out_of_memory, release
from sn7.errors import ConfigError, ModelInvalid
from sn7.files import atomic_dir, read_json, write_json
from sn7.metrics import ThresholdCurve
from sn7.modeldir import WEIGHTS, load_model, read_model
from sn7.pooling import POOLS
from sn7.precision import autocast
from sn7.rules import PolygonRules
from sn7.tiles import round_up
from sn7.unet import CLASSES, normalize, output_channels

__all__ = ["FORMAT", "Predictor", "fit_threshold", "load_predictor", "save_ensemble"]

FORMAT = 2
UNWEIGHTED = 1
"""The format before weights, which is read as equal ones: to build its models again may cost days of a GPU."""
PLAIN, TTA = "plain", "tta"
WAY = re.compile(rf"{PLAIN}|{TTA}|({'|'.join(POOLS)}) \d+")
SEED_LEVEL = 0.4
"""Of models with separation outputs, untuned: between what is left of sure probs at a contact and elsewhere."""
MIN_WINDOW = 512
"""Side of prediction windows as the model sees them, at least: smaller ones spend more of their pixels on overlap."""


class Predictor:
    """One model or the weighted mean of several, ready to predict. Members are models with their configurations.

    Where a member has separation outputs, boundary and contact are the weighted means over those members that have.
    The grid of the outputs is `scale` times as fine as the image's; 1 averages what a member enlarges.
    """

    def __init__(
        self,
        name: str,
        members: Sequence[tuple[nn.Module, TrainConfig]],
        threshold: float,
        window: int,
        weights: Sequence[float] | None = None,
        device: torch.device | None = None,
        scale: int = 1,
        rules: PolygonRules | None = None,
        way: str = PLAIN,
        about: Mapping[str, str] | None = None,
    ) -> None:
        """Take models in; `weights`, one a member and above 0, need not sum to 1, and are equal if left out.

        `rules` are those of its polygons, if they were tuned, else the threshold with the other rules' own values, and
        seeds where there are outputs to find them with.
        """
        self.name, self.threshold, self.window, self.scale = name, threshold, window, scale
        weights = weights or [1.0] * len(members)
        self.weights = [weight / math.fsum(weights) for weight in weights]
        """Share of each member in the probs; they sum to 1."""
        self.way = way
        """How probs that suit these rules are made of images: "plain"; "tta", the mean over the 8 symmetries; or "mean
        3", "median 3", …, pooled over so many months, those around the image's own."""
        self.tags = {"MODEL": name, **(about or {})}
        """What the files that it makes say of it."""
        self.device = device or default_device()
        self.members = [
            (model.to(memory_format=torch.channels_last).to(self.device).eval(), config) for model, config in members
        ]
        self.channels = max(output_channels(config) for _, config in members) - 1
        """1, probs, or 3, probs, boundary and contact."""
        self.rules = rules or PolygonRules(threshold=threshold, seed_level=SEED_LEVEL if self.channels > 1 else 0.0)

    @torch.inference_mode()
    def outputs(self, batch: Tensor, precision: str = "") -> Tensor:
        """Return float32 (N, channels, scale · H, scale · W) on the CPU, 0 to 1, of RGB uint8 (N, 3, H, W).

        What overflows in `precision`, if none is given in that of each member's configuration, is computed again in
        fp32; where memory runs out, one half of the batch after the other. Raises ModelInvalid where outputs are not
        finite even so.
        """
        try:
            return self._outputs(batch, precision)
        except RuntimeError as error:
            if len(batch) == 1 or not out_of_memory(error):
                raise
        release(self.device)  # out here, where what the error held is gone
        middle = len(batch) // 2
        return torch.cat([self.outputs(batch[:middle], precision), self.outputs(batch[middle:], precision)])

    def _outputs(self, batch: Tensor, precision: str) -> Tensor:
        rgb = normalize(batch.to(self.device, non_blocking=True).float() / 255)
        outputs = self._mean(rgb, precision)
        if not outputs.isfinite().all():
            outputs = self._mean(rgb, "fp32")
            if not outputs.isfinite().all():
                raise ModelInvalid(
                    f"{self.name} predicts probs that are not finite; train it again with a lower lr_max."
                )
        return outputs

    def probs(self, batch: Tensor, precision: str = "") -> Tensor:
        """Return the building probs alone, float32 (N, scale · H, scale · W); see `outputs`."""
        return self.outputs(batch, precision)[:, 0]

    def _mean(self, rgb: Tensor, precision: str = "") -> Tensor:
        height, width = rgb.shape[2:]
        total = torch.zeros(len(rgb), self.channels, self.scale * height, self.scale * width, device=self.device)
        shares = [0.0] * self.channels
        for weight, (model, config) in zip(self.weights, self.members, strict=True):
            enlarged = enlarge(rgb, config.upscale).contiguous(memory_format=torch.channels_last)
            with autocast(precision or config.precision, self.device):
                logits = model(enlarged)
            outputs = _rescaled(_activated(logits), config.upscale, self.scale)
            for channel in range(outputs.shape[1]):
                total[:, channel] += weight * outputs[:, channel]
                shares[channel] += weight
        for channel, share in enumerate(shares):
            total[:, channel] /= share
        return total.clamp_(0, 1).cpu()  # NaN stays; the rounding of the weights may lead out by 1e-7


def _activated(logits: Tensor) -> Tensor:
    """Return probs, and boundary and contact where there are such outputs, float32 (N, 1 or 3, H, W)."""
    logits = logits.float()
    building = logits[:, :CLASSES].softmax(dim=1)[:, 1:]
    return torch.cat([building, logits[:, CLASSES:].sigmoid()], dim=1)


def _rescaled(outputs: Tensor, upscale: int, scale: int) -> Tensor:
    """Return outputs of a grid `upscale` times as fine as the image's on one `scale` times as fine."""
    if upscale % scale == 0:
        return outputs if upscale == scale else avg_pool2d(outputs, upscale // scale)
    return interpolate(outputs, scale_factor=scale / upscale, mode="bilinear", align_corners=False)


def load_predictor(folder: Path, device: torch.device | None = None, fine: bool = False) -> Predictor:
    """Load a model folder (threshold 0.5) or an ensemble folder, onto `device`, the best one if none is given.

    With `fine` the outputs keep the finest grid of a member that enlarges images. Raises ModelInvalid where it is
    neither, or damaged.
    """
    if (folder / "ensemble.json").exists():
        content = _read_ensemble(folder)
        paths, threshold = [folder / member for member in content["members"]], content["threshold"]
        weights, tuned, origin = content["weights"], content.get("tuned"), content.get("fitted")
    else:
        paths, threshold, weights, tuned, origin = [folder], 0.5, [1.0], None, read_model(folder).training
    members = [(model, described.config) for model, described in map(load_model, paths)]
    upscale = max(config.upscale for _, config in members)
    window = round_up(max(MIN_WINDOW // upscale, *(config.tile_size for _, config in members)))
    scale = upscale if fine else 1
    rules, way = (PolygonRules.from_dict(tuned["rules"]), tuned["probs"]) if tuned else (None, PLAIN)
    name, about = folder.resolve().name, _about(paths, weights, origin)
    return Predictor(name, members, threshold, window, weights, device, scale, rules, way, about)


def _about(paths: Sequence[Path], weights: Sequence[float], origin: Any) -> dict[str, str]:
    """Return what tells a predictor from others of its name: study and data, if known, and what it is made of."""
    known = origin if isinstance(origin, dict) else {}
    digest = hashlib.sha256(repr(weights).encode())
    for path in paths:
        with (path / WEIGHTS).open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    origins = {key.upper(): str(known[key]) for key in ("study", "data_fingerprint") if key in known}
    return origins | {"MODEL_SHA256": digest.hexdigest()}


def _read_ensemble(folder: Path) -> dict[str, Any]:
    path = folder / "ensemble.json"
    try:
        content = read_json(path)
    except (OSError, ValueError) as error:
        raise ModelInvalid(f"{path} cannot be read ({error}); copy the ensemble folder again.") from error
    found = content.get("format") if isinstance(content, dict) else type(content).__name__
    if found not in (UNWEIGHTED, FORMAT):
        raise ModelInvalid(f"{path} has format {found!r}; wanted {FORMAT}: build the ensemble again with this version.")
    members, tuned = content.get("members"), content.get("tuned")
    if not isinstance(members, list) or not members or not all(isinstance(member, str) for member in members):
        raise ModelInvalid(f"{path} has members {members!r}; wanted the names of folders: build the ensemble again.")
    if found == UNWEIGHTED:
        content["weights"] = [1.0] * len(members)
    _require_weights(path, content.get("weights"), len(members))
    try:
        PolygonRules(threshold=content.get("threshold"))
        if tuned:
            PolygonRules.from_dict(tuned["rules"])
            if not WAY.fullmatch(tuned["probs"]):
                raise ConfigError(f"probs = {tuned['probs']!r} cannot be used; wanted plain, tta, mean 3, median 3, …")
    except (ConfigError, KeyError, TypeError) as error:
        raise ModelInvalid(f"{path} cannot be used ({error}); build the ensemble again with this version.") from error
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
    tuned: Mapping[str, Any] | None = None,
) -> None:
    """Write an ensemble folder from model folders, whole or not at all.

    `weights`, one a member and above 0, are equal if left out. `tuned` says how footprints are made best: "probs", as
    Predictor.way, and "rules", those of polygons. The models' files are hard links where the file system
    has them, so an ensemble beside its members costs no space.
    """
    names = [f"members/{i}" for i in range(len(members))]
    with atomic_dir(folder) as temporary:
        for name, member in zip(names, members, strict=True):
            shutil.copytree(member, temporary / name, copy_function=_link)
        shares = list(weights or [1.0] * len(names))
        about = {"format": FORMAT, "threshold": threshold, "members": names, "weights": shares, "fitted": fitted}
        write_json(temporary / "ensemble.json", about | ({"tuned": dict(tuned)} if tuned else {}))


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
