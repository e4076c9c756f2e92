"""The device that computes: which one, and how much memory it has, holds and lacks."""

import gc
import os
import platform
import resource
import sys
from pathlib import Path

import psutil
import torch

from sn7.config import TrainConfig
from sn7.errors import ConfigError, OutOfMemory

__all__ = [
    "default_device",
    "device_name",
    "free_mib",
    "held_mib",
    "named_device",
    "no_room",
    "out_of_memory",
    "release",
    "tensors_mib",
    "total_mib",
]

MIB = 2**20


def default_device() -> torch.device:
    """Return the GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def named_device(name: str) -> torch.device:
    """Return the device that is called `name`, as torch does, or "auto". Raises ConfigError where it is not there."""
    if name == "auto":
        return default_device()
    there = ["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
    if name not in there and not (name == "cuda" and len(there) > 1):
        raise ConfigError(f"there is no device {name!r} here; wanted auto or one of {', '.join(there)}.")
    return torch.device(name)


def device_name(device: torch.device | None = None) -> str:
    """Return the GPU's name, or the processor's kind and the threads that torch computes in."""
    device = device or default_device()
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return f"CPU {platform.machine()}, {torch.get_num_threads()} threads"


def out_of_memory(error: BaseException) -> bool:
    """Return whether torch, on the GPU or the CPU, has said that there is not enough memory."""
    text = str(error).lower()
    said = any(words in text for words in ("out of memory", "can't allocate memory", "status_alloc_failed"))
    return isinstance(error, torch.OutOfMemoryError) or (isinstance(error, RuntimeError) and said)


def release(device: torch.device) -> None:
    """Give back what earlier batches held, and begin a new peak where that can be done."""
    gc.collect()  # a model and its hooks refer to each other
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def no_room(config: TrainConfig, tiles: int, device: torch.device) -> OutOfMemory:
    """Return the error that says that so many tiles of a training at once are too many, and what may help."""
    count, lower = ("one tile", "") if tiles == 1 else (f"a batch of {tiles} tiles", "batch_size, ")
    return OutOfMemory(
        f"{count} of {config.tile_size} px at upscale {config.upscale} does not fit into the memory of "
        f"{device_name(device)}; lower {lower}tile_size or upscale, or choose a smaller encoder."
    )


def held_mib(device: torch.device) -> float:
    """Return the most memory held so far, MiB.

    On a GPU what torch's allocator had reserved, and what is held besides it: the process's CUDA context, without
    which a packing of many small trainings would not fit (and what other processes hold, where there are any). On a
    processor the peak of the whole process, its libraries among it: it is clean in a fresh process only.
    """
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        besides = max(0, total - free - torch.cuda.memory_reserved(device))
        return float(torch.cuda.max_memory_reserved(device) + besides) / MIB
    return _process_mib()


def tensors_mib(device: torch.device) -> float:
    """Return the most memory that tensors took on a GPU since release(), else the peak of the whole process, MiB."""
    return torch.cuda.max_memory_allocated(device) / MIB if device.type == "cuda" else _process_mib()


def _process_mib() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (MIB if sys.platform == "darwin" else 1024)  # bytes there, KiB on Linux


def total_mib(device: torch.device) -> float:
    """Return the device's memory, MiB; of a processor the least of the machine's and its control groups' limits."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[1]) / MIB
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = _group_limits(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"))
    return min([physical, *limits]) / MIB


def free_mib(device: torch.device) -> float:
    """Return the memory of the device that nobody holds, MiB; of a processor at most what this process may have."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0]) / MIB
    return min(psutil.virtual_memory().available / MIB, total_mib(device))


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
