"""What a training of a configuration takes: memory and tiles a second, measured over a few steps on random tiles."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from fastai.torch_core import set_seed
from torch import Tensor

from sn7.augment import augmentation
from sn7.config import TrainConfig
from sn7.device import default_device, device_name, held_mib, out_of_memory, release, total_mib
from sn7.loader import network_input
from sn7.losses import build_loss
from sn7.optimizer import FusedAdam
from sn7.precision import autocast
from sn7.steps import MovingAverage
from sn7.tiles import round_up
from sn7.unet import build_unet, parameter_groups

__all__ = ["BatchCost", "Rehearsal", "measure_batch"]


@dataclass(frozen=True)
class BatchCost:
    """What `largest_batch` tiles at a time take: `batch_size` of them where that fits, else fewer."""

    encoder: str
    tile_size: int
    batch_size: int
    """Tiles in a training step, as configured."""
    device: str
    gpu: bool
    """Whether the device is one."""
    peak_mib: float
    """Most memory held at a time, MiB: see sn7.device.held_mib."""
    total_mib: float
    """Memory of the device, MiB: see sn7.device.total_mib."""
    tiles_per_s: float
    """In training, augmented, without reading them; 0 where nothing fits."""
    validation_tiles_per_s: float
    """In validation, of its slightly larger tiles."""
    fits: bool
    """Whether `batch_size` tiles fit."""
    reason: str
    """Why they do not, or nothing."""
    largest_batch: int
    """Tiles that fit at a time, of batch_size, half of it, a quarter …; 0 where none is known to."""


def measure_batch(config: TrainConfig, device: torch.device | None = None, batches: int = 3) -> BatchCost:
    """Train and validate a U-Net on `batches` random batches, after one to warm up, and say what that took.

    Where memory runs out the batch is halved until it fits, as a training does it. Seeds like a training and keeps
    nothing. Raises EncoderUnknown, and RuntimeError or ValueError for whatever else torch trips over.
    """
    device = device or default_device()
    batch, peak, rates = config.batch_size, 0.0, (0.0, 0.0)
    while batch:
        release(device)
        try:
            rates = _rates(config, batch, device, batches)
            peak = held_mib(device)
            break
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
        # Halved out here, where the exception, and with it the model in its traceback, is gone.
        batch //= 2
    release(device)
    fits = batch == config.batch_size
    return BatchCost(
        encoder=config.encoder,
        tile_size=config.tile_size,
        batch_size=config.batch_size,
        device=device_name(device),
        gpu=device.type == "cuda",
        peak_mib=peak,
        total_mib=total_mib(device),
        tiles_per_s=rates[0],
        validation_tiles_per_s=rates[1],
        fits=fits,
        reason="" if fits else "out of memory",
        largest_batch=batch,
    )


def _rates(config: TrainConfig, batch: int, device: torch.device, batches: int) -> tuple[float, float]:
    """Return tiles a second in training and in validation, of `batch` tiles at a time."""
    rehearsal = Rehearsal(config, batch, device)
    training = _rate(rehearsal.train_step, batch, device, batches)
    return training, _rate(rehearsal.validation_step, batch, device, batches)


Batch = tuple[Tensor, Tensor]
"""RGB and target, as TileLoader's."""


class Rehearsal:
    """The steps of a training of `config`, with `batch` random tiles at a time."""

    def __init__(self, config: TrainConfig, batch: int, device: torch.device) -> None:
        set_seed(config.seed, reproducible=True)  # as in a training: it forbids the faster of cuDNN's algorithms
        self.config, self.device = config, device
        self.model = build_unet(config).to(memory_format=torch.channels_last).to(device)
        self.loss_func = build_loss(config).to(device)
        self.optimizer = FusedAdam(parameter_groups(self.model), lr=config.lr_max, wd=config.weight_decay)
        self.average = MovingAverage(self.model, config.ema_decay) if config.ema_decay else None
        self.training = _RandomTiles(config, batch, config.tile_size, device, training=True)
        self.validation = _RandomTiles(config, batch, round_up(config.tile_size), device, training=False)

    def train_step(self) -> None:
        """Make one optimizer step."""
        self.step(self.training.batch())

    def step(self, batch: Batch) -> None:
        """Make one optimizer step on a batch."""
        self.loss(batch).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.average:
            self.average.update()

    def loss(self, batch: Batch) -> Tensor:
        """Return the loss of a batch in training."""
        self.model.train()
        return self._loss(batch)

    @torch.no_grad()
    def validation_step(self) -> None:
        """Predict the slightly larger validation tiles."""
        self.model.eval()
        self._loss(self.validation.batch())

    def _loss(self, batch: Batch) -> Tensor:
        with autocast(self.config.precision, self.device):
            loss: Tensor = self.loss_func(self.model(batch[0]), batch[1])
        return loss


class _RandomTiles:
    """Batches like TileLoader's, from the same random bytes each time."""

    def __init__(self, config: TrainConfig, count: int, size: int, device: torch.device, training: bool) -> None:
        fine, self.upscale = size * config.upscale, config.upscale
        self.rgb = torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, device=device)
        self.target = torch.randint(0, 2, (count, fine, fine), device=device)
        self.augment = augmentation(config) if training else None

    def batch(self) -> Batch:
        return network_input(self.rgb, self.target, self.augment, self.upscale)


def _rate(step: Callable[[], None], batch: int, device: torch.device, batches: int) -> float:
    step()  # algorithms are chosen and the optimizer's state is allocated
    _wait(device)
    started = time.perf_counter()
    for _ in range(batches):
        step()
    _wait(device)
    return batch * batches / (time.perf_counter() - started)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
