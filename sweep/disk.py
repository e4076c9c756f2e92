"""Whether the disk has room for what a study writes, estimated before anything is trained."""

import os
from dataclasses import dataclass, replace
from pathlib import Path

from sn7.errors import DiskFull, EncoderUnknown
from sn7.files import free_bytes
from sweep.costs import parameters
from sweep.oof import PROBS, TTA_PROBS
from sweep.plan import Plan
from sweep.study import Study

__all__ = ["Need", "estimate", "full_disk", "require_room", "weights_bytes"]

CHECKPOINT = 3
"""Size of a checkpoint in units of the weights: the weights, and Adam's two moments of each."""
UNITS = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))


@dataclass(frozen=True)
class Need:
    """What a study has still to write: the rest is small beside these."""

    weights: int
    """Bytes of the largest model."""
    models: int
    """Of trials that train to their end, repeats and folds, without those that are there."""
    checkpoints: int
    """At once, one for each training that runs."""
    probs: int
    """Bytes of out-of-fold probs."""

    @property
    def most(self) -> int:
        """Bytes, if no trial is pruned."""
        return self.weights * (self.models + CHECKPOINT * self.checkpoints) + self.probs

    @property
    def one_trial(self) -> int:
        """Bytes without which not one trial gets to its end."""
        return self.weights * (1 + CHECKPOINT)


def require_room(plan: Plan, results: Path) -> str:
    """Return a warning where the study may fill the disk of its folder `results`; empty where it does not.

    Raises DiskFull where not one trial would fit.
    """
    need, free = estimate(plan, results), free_bytes(results)
    if free >= need.most:
        return ""
    if need.models and free < need.one_trial:
        raise DiskFull(
            f"the disk of {results} has {_size(free)} free, and one trial alone writes {_size(need.one_trial)} "
            f"(a model of {_size(need.weights)} and a checkpoint of {_size(CHECKPOINT * need.weights)}); make room, or "
            "give another --results folder."
        )
    return (
        f"warning: the disk of {results} has {_size(free)} free, and the study may write {_size(need.most)} if nothing "
        f"is pruned ({need.models} models of {_size(need.weights)}, {need.checkpoints} checkpoints of "
        f"{_size(CHECKPOINT * need.weights)} at once, {_size(need.probs)} of "
        "out-of-fold probs); where it fills up, the study stops and goes on with --resume"
    )


def estimate(plan: Plan, results: Path) -> Need:
    """Return what the study has still to write below `results`."""
    study = plan.study
    of_folds = study.refit * len(plan.folds) if plan.fold_epochs else 0
    of_trials = (study.trials + study.refit * (study.repeats - 1)) * len(plan.validation)
    done = sum(1 for _ in results.glob("trials/*/*/model/weights.safetensors"))
    models = max(0, of_trials + of_folds - done)
    at_once = max(1, (os.cpu_count() or 1) // study.resources.cpu)
    return Need(weights_bytes(study), models, min(at_once, models), _probs_bytes(plan, results))


def _probs_bytes(plan: Plan, results: Path) -> int:
    """Return the size of the out-of-fold probs, float16, that are not there yet: all images, and those with TTA."""
    prepared, table = plan.prepared, plan.study.postprocess
    images = [image for scene in prepared.scenes for image in prepared.scene_images(scene)]
    if table.trials and table.tta:
        chosen = (prepared.scene_images(scene, table.images_per_scene, spread=True) for scene in prepared.scenes)
        images += [image for scene in chosen for image in scene]
    most = plan.study.refit * sum(2 * image.height * image.width for image in images)
    there = sum(path.stat().st_size for folder in (PROBS, TTA_PROBS) for path in (results / folder).rglob("*.npy"))
    return max(0, most - there)


def weights_bytes(study: Study) -> int:
    """Return the size of the largest model of a study, in bytes of float32.

    An encoder that cannot be the half of a U-Net has none: its trials fail, and say so.
    """
    sizes = [0]
    for encoder in {*study.space.values("encoder"), study.base.encoder}:
        try:
            sizes.append(4 * parameters(replace(study.base, encoder=encoder)))
        except EncoderUnknown:
            continue
    return max(sizes)


def full_disk(results: Path) -> DiskFull:
    """Return the error that a study ends with whose folder, or the one above, is on a full disk."""
    return DiskFull(
        f"the disk of {results} is full ({_size(free_bytes(results))} free); what was recorded there stays: make room, "
        "and go on with --resume."
    )


def _size(number: int) -> str:
    for unit, name in UNITS:
        if number >= unit:
            return f"{number / unit:.1f} {name}"
    return f"{number} bytes"
