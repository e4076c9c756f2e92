"""What a training of a configuration takes: memory and tiles a second, measured over a few steps on random tiles."""

import os
import platform
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from fastai.torch_core import set_seed
from torch import Tensor

from sn7.augment import augmentation, enlarge
from sn7.config import TrainConfig
from sn7.learner import default_device
from sn7.losses import build_loss
from sn7.optimizer import FusedAdam
from sn7.precision import autocast, out_of_memory, release
from sn7.tiles import round_up
from sn7.unet import build_unet, normalize, parameter_groups

__all__ = ["BatchCost", "Rehearsal", "device_name", "free_mib", "measure_batch"]

MIB = 2**20


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
    """Most memory held at a time, MiB.

    On a GPU what torch's allocator had reserved, and what is held besides it: the process's CUDA context, without
    which a packing of many small trainings would not fit (and what other processes hold, where there are any). On a
    processor the peak of the whole process, its libraries among it: it is clean in a fresh process only.
    """
    total_mib: float
    """Memory of the device, MiB; of a processor the least of the machine's and its control groups' limits."""
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
    set_seed(config.seed, reproducible=True)  # as in a training: it forbids the faster of cuDNN's algorithms
    batch, peak, rates = config.batch_size, 0.0, (0.0, 0.0)
    while batch:
        release(device)
        try:
            rates = _rates(config, batch, device, batches)
            peak = _peak_mib(device)
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
        total_mib=_total_mib(device),
        tiles_per_s=rates[0],
        validation_tiles_per_s=rates[1],
        fits=fits,
        reason="" if fits else "out of memory",
        largest_batch=batch,
    )


def device_name(device: torch.device | None = None) -> str:
    """Return the GPU's name, or the processor's kind and the threads that torch computes in."""
    device = device or default_device()
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return f"CPU {platform.machine()}, {torch.get_num_threads()} threads"


def _rates(config: TrainConfig, batch: int, device: torch.device, batches: int) -> tuple[float, float]:
    """Return tiles a second in training and in validation, of `batch` tiles at a time."""
    rehearsal = Rehearsal(config, batch, device)
    training = _rate(rehearsal.train_step, batch, device, batches)
    return training, _rate(rehearsal.validation_step, batch, device, batches)


class Rehearsal:
    """The steps of a training of `config`, with `batch` random tiles at a time."""

    def __init__(self, config: TrainConfig, batch: int, device: torch.device) -> None:
        self.config, self.device = config, device
        self.model = build_unet(config).to(memory_format=torch.channels_last).to(device)
        self.loss_func = build_loss(config).to(device)
        self.optimizer = FusedAdam(parameter_groups(self.model), lr=config.lr_max, wd=config.weight_decay)
        self.training = _RandomTiles(config, batch, config.tile_size, device, training=True)
        self.validation = _RandomTiles(config, batch, round_up(config.tile_size), device, training=False)

    def loss(self) -> Tensor:
        """Return the loss of a training batch."""
        self.model.train()
        return self._loss(self.training.batch())

    def train_step(self) -> None:
        """Make one optimizer step."""
        self.loss().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    @torch.no_grad()
    def validation_step(self) -> None:
        """Predict the slightly larger validation tiles."""
        self.model.eval()
        self._loss(self.validation.batch())

    def _loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
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

    def batch(self) -> tuple[Tensor, Tensor]:
        rgb, target = self.rgb.float() / 255, self.target
        if self.augment:
            rgb, target = self.augment(rgb, target)
        else:
            rgb = enlarge(rgb, self.upscale)
        return normalize(rgb).contiguous(memory_format=torch.channels_last), target


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


def _peak_mib(device: torch.device) -> float:
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        besides = max(0, total - free - torch.cuda.memory_reserved(device))
        return float(torch.cuda.max_memory_reserved(device) + besides) / MIB
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (MIB if sys.platform == "darwin" else 1024)  # bytes there, KiB on Linux


def _total_mib(device: torch.device) -> float:
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[1]) / MIB
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = _group_limits(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"))
    return min([physical, *limits]) / MIB


def free_mib(device: torch.device) -> float:
    """Return the memory of the device that nobody holds, MiB; of a processor at most what this process may have."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0]) / MIB
    return min(psutil.virtual_memory().available / MIB, _total_mib(device))


def _group_limits(groups: Path, root: Path) -> list[int]:
    """Return the memory limits in bytes of this process's control group and those around it, version 1 or 2."""
    limits = []
    for line in groups.read_text().splitlines() if groups.exists() else []:
        _, controllers, name = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        top = root / "memory" if controllers else root
        file = "memory.limit_in_bytes" if controllers else "memory.max"
        group = top / name.lstrip("/")
        # In a container the name is often that of the host, where only the top is to be seen.
        for folder in (group, *group.parents):
            if folder.is_relative_to(top) and (folder / file).exists():
                text = (folder / file).read_text().strip()
                limits += [int(text)] if text.isdigit() else []  # "max" is no limit
    return limits
