"""An interrupted training as a file: all that the next epoch depends on.

It holds tensors and plain values only, and is read without executing code.
"""

import pickle
import random
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sn7.errors import ModelInvalid, ResultsConflict
from sn7.evaluation import ValidationCounts
from sn7.files import atomic_file
from sn7.history import EpochMetrics
from sn7.midway import Midway

__all__ = [
    "Checkpoint",
    "checkpoint_config",
    "checkpoint_history",
    "load_checkpoint",
    "random_states",
    "require_same",
    "restore_random_states",
    "save_checkpoint",
]

FORMAT = 3
_UNREADABLE = (AttributeError, EOFError, KeyError, OSError, RuntimeError, TypeError, ValueError, pickle.UnpicklingError)
"""What torch raises for a file that it did not write, or not to its end."""


@dataclass(frozen=True)
class Checkpoint:
    """A training after one of its epochs, or within one; tensors are on the CPU once it is loaded."""

    identity: dict[str, Any]
    """What decides the result: configuration, split, data fingerprint and which epoch's model is kept."""
    model: dict[str, Tensor]
    optimizer: list[dict[str, Any]]
    """State of each parameter."""
    random: dict[str, Any]
    """See random_states()."""
    history: list[EpochMetrics]
    """From epoch 1."""
    best_model: dict[str, Tensor] | None
    """Weights of the best epoch; None where these are `model`, or where the last epoch is kept."""
    counts: ValidationCounts | None
    """Of the best epoch; None where the last one is kept."""
    average: dict[str, Tensor | int] | None
    """State of the moving average of the weights, where there is one."""
    scaler: dict[str, Any] | None
    """State of the scale of fp16's gradients, where there is one."""
    micro_batch: int
    seconds: float
    """Spent on the training so far."""
    midway: Midway
    """What of the next epoch is done."""


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint, in place of an older one, whole or not at all."""
    content = {field.name: getattr(checkpoint, field.name) for field in fields(checkpoint)}
    history = [asdict(metrics) for metrics in checkpoint.history]
    counts, midway = checkpoint.counts and vars(checkpoint.counts), vars(checkpoint.midway)
    content |= {"format": FORMAT, "history": history, "counts": counts, "midway": midway}
    with atomic_file(path) as temporary:
        torch.save(content, temporary)


def load_checkpoint(path: Path, identity: Mapping[str, Any]) -> Checkpoint | None:
    """Read the checkpoint of the training `identity`, or return None where there is none.

    Raises ModelInvalid where it is damaged, ResultsConflict where it is of another training.
    """
    if not path.exists():
        return None
    require_whole(path)
    checkpoint = _read(path)
    require_same(path, checkpoint.identity, identity)
    return checkpoint


def require_whole(path: Path) -> None:
    """Raise ModelInvalid where a checkpoint is damaged, be it by a bit, which torch itself reads as a weight."""
    try:
        with zipfile.ZipFile(path) as file:
            damaged = file.testzip()
    except (EOFError, OSError, zipfile.BadZipFile) as error:
        raise _damaged(path, error) from error
    if damaged:
        raise _damaged(path, f"{damaged} has a wrong checksum")


def checkpoint_history(path: Path) -> list[EpochMetrics]:
    """Return the epochs of a checkpoint, none where there is no such file; its weights are not read.

    Raises ModelInvalid where it is damaged.
    """
    return _read(path, mmap=True).history if path.exists() else []


def checkpoint_config(path: Path) -> dict[str, Any]:
    """Return the configuration of the training that a checkpoint is of; its weights are not read.

    Raises ModelInvalid where it is damaged.
    """
    config: dict[str, Any] = _read(path, mmap=True).identity["config"]
    return config


def _read(path: Path, mmap: bool = False) -> Checkpoint:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
        if (found := content.pop("format")) != FORMAT:
            raise ValueError(f"format {found!r}, wanted {FORMAT}")
        history = [EpochMetrics(**metrics) for metrics in content["history"]]
        counts = content["counts"] and ValidationCounts(**content["counts"])
        midway = Midway(**content["midway"])
        return Checkpoint(**{**content, "history": history, "counts": counts, "midway": midway})
    except _UNREADABLE as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, reason: object) -> ModelInvalid:
    short = " ".join(str(reason).split())[:200]
    return ModelInvalid(f"{path} cannot be read ({short}); remove it, and the training starts anew.")


def require_same(path: Path, there: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    """Raise ResultsConflict, naming each field that differs, where `path` is of another training than `here`."""
    old, new = _flat(there), _flat(here)
    different = [name for name in {**old, **new} if old.get(name, _ABSENT) != new.get(name, _ABSENT)]
    if different:
        listed = "; ".join(
            f"{name} is {_show(old, new, name)} there and {_show(new, old, name)} here" for name in different
        )
        raise ResultsConflict(
            f"{path} is of another training: {listed}; wanted the same to continue it: give another folder, or "
            "start anew without resume."
        )


_ABSENT = object()


def _flat(identity: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested fields as `outer.inner`, with lists for tuples, as JSON has them."""
    flat: dict[str, Any] = {}
    for name, value in identity.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = list(value) if isinstance(value, tuple) else value
    return flat


def _show(values: Mapping[str, Any], others: Mapping[str, Any], name: str) -> str:
    """Return a field's value for people: of a list only what the other one lacks."""
    if name not in values:
        return "absent"
    value, other = values[name], others.get(name)
    if not (isinstance(value, list) and isinstance(other, list)):
        return repr(value)
    if sorted(value) == sorted(other):
        return "in another order"
    lacking = [str(item) for item in value if item not in other]
    more = f" and {len(lacking) - 3} more" if len(lacking) > 3 else ""
    return f"with {', '.join(lacking[:3])}{more}" if lacking else "without"


def random_states(order: np.random.Generator) -> dict[str, Any]:
    """Return all random states that a training draws from, `order` of its tiles among them."""
    name, keys, *rest = np.random.get_state()  # noqa: NPY002 - fastai draws from the global state
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
        "numpy": [name, torch.from_numpy(np.asarray(keys, np.int64)), *rest],
        "python": random.getstate(),
        "order": order.bit_generator.state,
    }


def restore_random_states(states: Mapping[str, Any], order: np.random.Generator) -> None:
    """Set what random_states() has returned; a GPU's state only where both machines have one."""
    torch.set_rng_state(states["torch"])
    if states["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002 - as above
    random.setstate(states["python"])
    order.bit_generator.state = states["order"]
