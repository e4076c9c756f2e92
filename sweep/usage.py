"""Where a training runs and what it uses: tags and system metrics of its run, under the names MLflow shows them by."""

import platform
from contextlib import suppress
from dataclasses import dataclass

import psutil
import ray
import torch

from sweep.budget import node_type
from sweep.versions import versions

__all__ = ["GPU_USE", "Place", "Usage", "keep_to_share", "place"]

GPU_USE = "system/gpu_0_utilization_percentage"


@dataclass(frozen=True)
class Place:
    """Where a training runs."""

    node: str
    """Ray's identity of the node."""
    host: str
    node_type: str
    device: str
    """Name of the GPU, or of the processor's architecture."""
    versions: str
    """See sweep.versions."""


def place() -> Place:
    """Return where this process runs; it is one of Ray's."""
    context = ray.get_runtime_context()
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    kind = node_type({"Labels": context.get_node_labels()})
    return Place(context.get_node_id(), platform.node(), kind, device, versions())


def keep_to_share() -> None:
    """Hold this process to its share of the GPU: what asks for more memory runs out of its own, not its neighbours'."""
    share = ray.get_runtime_context().get_assigned_resources().get("GPU", 0.0)
    if 0 < share < 1 and torch.cuda.is_available():
        torch.cuda.set_per_process_memory_fraction(share)


class Usage:
    """Samples processor, memory and GPU since the last sample."""

    def __init__(self) -> None:
        self.process = psutil.Process()
        self.process.cpu_percent()  # the first call starts the clock

    def sample(self) -> dict[str, float]:
        """Return this process's CPU percentage (100 a core) and memory in MB, and its GPU's use in percent and MB.

        What cannot be read of the GPU is left out.
        """
        metrics = {
            "system/cpu_utilization_percentage": self.process.cpu_percent(),
            "system/system_memory_usage_megabytes": self.process.memory_info().rss / 1e6,
        }
        if torch.cuda.is_available():
            # NVML does not say how busy a MIG GPU is, and raises errors of its own: a sample is not worth a trial.
            with suppress(Exception):
                metrics[GPU_USE] = float(torch.cuda.utilization())
            with suppress(Exception):
                free, total = torch.cuda.mem_get_info()
                metrics["system/gpu_0_memory_usage_megabytes"] = (total - free) / 1e6
        return metrics
