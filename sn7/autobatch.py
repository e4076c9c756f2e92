"""Batches sized to the device: the most tiles of a training step, and the windows of a prediction."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from sn7.config import TrainConfig
from sn7.device import free_mib, no_room, out_of_memory, release
from sn7.ensemble import Predictor
from sn7.measure import Rehearsal

__all__ = ["largest_batch", "window_batch"]

SHARE = 0.7
"""Of a processor's free memory, which the system and other processes want, too."""
MIB = 2**20
MOST_WINDOWS = 64
"""A GPU is busy with fewer."""


def largest_batch(config: TrainConfig, device: torch.device, most: int) -> int:
    """Return the most tiles, up to `most`, that a training step of `config` can take at a time on `device`.

    A GPU is tried; on a processor, where too much would end the process, the memory of a step with two tiles is
    counted. Raises OutOfMemory where not even one tile fits, EncoderUnknown.
    """
    fits = _tried(config, device) if device.type == "cuda" else _counted(config, device)
    low, high = 0, 2  # normalisation over one tile can fail for another reason than memory, so two come first
    while high <= most and fits(high):
        low, high = high, 2 * high
    high = min(high, most + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    if low == 0:
        raise no_room(config, 1, device)
    return low


def window_batch(predictor: Predictor) -> int:
    """Return how many windows `predictor` should be given at a time.

    On a GPU as many as fit, by what one takes. On a processor one, which occupies all cores: more are no faster, and
    each takes its memory.
    """
    device = predictor.device
    if device.type != "cuda":
        return 1
    release(device)
    before = torch.cuda.memory_allocated(device)
    predictor.outputs(torch.zeros(1, 3, predictor.window, predictor.window, dtype=torch.uint8))
    each = torch.cuda.max_memory_allocated(device) - before
    release(device)
    return int(max(1, min(SHARE * free_mib(device) * MIB // each, MOST_WINDOWS)))


def _tried(config: TrainConfig, device: torch.device) -> Callable[[int], bool]:
    def fits(batch: int) -> bool:
        try:
            rehearsal = Rehearsal(config, batch, device)
            for _ in range(2):  # the second step has the optimizer's state beside it
                rehearsal.train_step()
            rehearsal.validation_step()
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            return False
        finally:
            rehearsal = None  # type: ignore[assignment]
            release(device)
        return True

    return fits


def _counted(config: TrainConfig, device: torch.device) -> Callable[[int], bool]:
    """Return whether a number of tiles fits, by the tensors that a forward pass of two keeps for the backward pass."""
    rehearsal = Rehearsal(config, 2, device)
    weights = {weight.untyped_storage().data_ptr(): weight.nbytes for weight in rehearsal.model.parameters()}
    kept: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(count, lambda tensor: tensor):
        loss = rehearsal.loss(rehearsal.training.batch())
    # Adam has two values a weight, a gradient is one more, and so is a moving average. What is computed on the way back
    # is at most about as much as what was kept, which was for two tiles.
    fixed, each = (5 if rehearsal.average else 4) * sum(weights.values()), sum(kept.values())
    del loss  # until now it held what was kept, so that no two of these had the same place
    room = SHARE * free_mib(device) * MIB
    return lambda batch: fixed + batch * each <= room
