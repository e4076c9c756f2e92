"""--preflight: what the trainings of a study will take, measured before any machine is paid for.

results/<study>/preflight.json    what was measured, on which device, with which torch
"""

import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import ray
import torch
from ray.exceptions import OutOfMemoryError, WorkerCrashedError
from tqdm import tqdm

from sn7.config import TrainConfig
from sn7.device import device_name
from sn7.errors import ResultsConflict, Sn7Error, StudyInvalid
from sn7.files import read_json, write_json
from sn7.measure import BatchCost, measure_batch
from sweep.cluster import capacity, has_gpus, require_capacity
from sweep.failures import MACHINE_DIED
from sweep.plan import Plan
from sweep.study import Resources, Study

__all__ = [
    "Preflight",
    "cases",
    "gpu_share",
    "load_preflight",
    "preflight",
    "run_preflight",
    "save_preflight",
]

FILE = "preflight.json"
USABLE = 0.9
"""Share of a GPU's memory that trainings are packed into; the rest is for what a few steps did not show."""
MOST_PER_GPU = 8
MOST_LOST = 3
"""Machines that may go away under one measurement: more of them are its own doing."""


@dataclass(frozen=True)
class Preflight:
    """A measured study."""

    device: str
    torch: str
    cases: tuple[TrainConfig, ...]
    costs: tuple[BatchCost, ...]
    """One a case, in the same order."""


def cases(study: Study) -> list[TrainConfig]:
    """Return the configurations to measure: one for each encoder and tile size that a trial may have.

    The other fields take the values that ask for most: the largest batch_size and upscale, the most training tiles,
    the most outputs and the widest arithmetic.
    """
    most = {
        "batch_size": max(_values(study, "batch_size")),
        "images_per_scene": max(_values(study, "images_per_scene")),
        "image_selection": _wanting("image_selection", "all", study),
        "precision": _wanting("precision", "fp32", study),
        "ema_decay": max(_values(study, "ema_decay")),
        "separation_weight": max(_values(study, "separation_weight")),
        "undersample": all(_values(study, "undersample")),
        "upscale": max(_values(study, "upscale")),
        "aspp": any(_values(study, "aspp")),
        "self_attention": any(_values(study, "self_attention")),
    }
    overlap = max(_values(study, "tile_overlap"))
    return [
        replace(study.base, encoder=encoder, tile_size=size, tile_overlap=min(overlap, size // 2), **most)
        for encoder, size in product(_values(study, "encoder"), _values(study, "tile_size"))
    ]


def _wanting(name: str, most: str, study: Study) -> str:
    """Return the value of a field that asks for most, if a trial can have it, else that of [train]."""
    return most if most in _values(study, name) else str(getattr(study.base, name))


def _values(study: Study, name: str) -> tuple[Any, ...]:
    """Return the values of a field, or the ends of its range; [train]'s too where not every trial varies it."""
    values, base = study.space.values(name), getattr(study.base, name)
    return values if values and name not in study.space.conditional else tuple(dict.fromkeys([*values, base]))


def preflight(plan: Plan, results: Path, again: bool = False) -> Preflight:
    """Return what was measured for this study on this device, from preflight.json, or measure it now and write that.

    `again` measures in any case. Raises ResultsConflict where the file is damaged, and StudyInvalid where the
    connected cluster has no room for a trial.
    """
    found = None if again else load_preflight(results)
    device, version = _describe_device(plan.study)
    wanted = tuple(cases(plan.study))
    if found and (found.device, found.torch, found.cases) == (device, version, wanted):
        return found
    measured = Preflight(device, version, wanted, tuple(run_preflight(plan)))
    save_preflight(results, measured)
    return measured


def run_preflight(plan: Plan) -> list[BatchCost]:
    """Measure each case on the connected cluster, one after the other, each in a process of its own.

    It has a whole GPU where trials train on one, else the CPUs of a trial. A case that raises, or whose process is
    killed, does not fit, for that reason, and the others go on. Where its machine goes away, it is measured on another.
    """
    task = _task(plan.study, _measure)
    costs = []
    todo = cases(plan.study)
    with tqdm(total=len(todo), unit=" cases", desc="preflight", disable=None) as bar:
        for config in todo:
            bar.set_postfix_str(f"{config.encoder}, {config.tile_size} px, {config.batch_size} tiles")
            costs.append(_cost(task, config))
            bar.update()
    return costs


def _task(study: Study, function: Any) -> Any:
    """Return a Ray task like a trial of the study, whose process ends with it, so that memory is measured clean."""
    cpu, wanted = study.resources.cpu, study.resources.gpu
    gpus = int(has_gpus() if study.resources.auto else float(wanted) > 0)
    alone = replace(study, resources=Resources(float(gpus), cpu))
    require_capacity(alone)
    if not capacity(alone, ray.nodes()):
        print("waiting for the autoscaler to bring a node to measure on", file=sys.stderr)
    return ray.remote(num_cpus=cpu, num_gpus=gpus, max_calls=1, max_retries=0)(function)


def _describe_device(study: Study) -> tuple[str, str]:
    """Return the name of the device that trials run on, and torch's version there."""
    found: tuple[str, str] = _ask(_task(study, _device))
    return found


def _device() -> tuple[str, str]:
    return device_name(), torch.__version__


def _measure(config: TrainConfig) -> BatchCost:
    try:
        return measure_batch(config)
    except (Sn7Error, OSError, RuntimeError, ValueError) as error:
        return _unfit(config, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")


def _cost(task: Any, config: TrainConfig) -> BatchCost:
    try:
        cost: BatchCost = _ask(task, config)
    except (OutOfMemoryError, WorkerCrashedError) as error:
        return _unfit(config, f"the process was killed ({type(error).__name__})")
    return cost


def _ask(task: Any, *given: Any) -> Any:
    """Return what a task returns, asked again where its machine has gone. Raises what Ray does, in the end that too."""
    for _ in range(MOST_LOST):
        try:
            return ray.get(task.remote(*given))
        except MACHINE_DIED as error:
            print(f"warning: a node has gone ({type(error).__name__}); another one measures", file=sys.stderr)
    return ray.get(task.remote(*given))


def _unfit(config: TrainConfig, reason: str) -> BatchCost:
    """Return the cost of a case that could not be measured at all."""
    return BatchCost(
        config.encoder, config.tile_size, config.batch_size, "", False, 0.0, 0.0, 0.0, 0.0, False, reason, 0
    )


def gpu_share(costs: Sequence[BatchCost]) -> float:
    """Return the share of a GPU that each trial needs, so that as many as possible, 8 at most, fit beside each other.

    It is 0 where the costs are a processor's. Cases that do not fit have no say: their trainings go on with fewer
    tiles at a time. Raises StudyInvalid where no case fits.
    """
    fitting = [cost for cost in costs if cost.fits]
    if not fitting:
        raise StudyInvalid(
            "no case of this study fits: "
            + "; ".join(map(_refused, costs))
            + "; lower batch_size or tile_size, choose a smaller encoder, or a device with more memory."
        )
    if not fitting[0].gpu:
        return 0.0
    packed = min(math.floor(USABLE * cost.total_mib / cost.peak_mib) for cost in fitting)
    # In Ray's own steps, rounded down: three times 0.3334 would be more than one GPU.
    return math.floor(10_000 / min(max(packed, 1), MOST_PER_GPU)) / 10_000


def _refused(cost: BatchCost) -> str:
    smaller = f" ({cost.largest_batch} would fit)" if cost.largest_batch else ""
    return f"{cost.encoder} at {cost.tile_size} px with {cost.batch_size} tiles: {cost.reason}{smaller}"


def save_preflight(results: Path, measured: Preflight) -> None:
    """Write preflight.json, atomically."""
    write_json(results / FILE, asdict(measured))


def load_preflight(results: Path) -> Preflight | None:
    """Return what preflight.json holds, or None where there is none.

    Raises ResultsConflict where it is damaged.
    """
    path = results / FILE
    try:
        content = read_json(path)
        return Preflight(
            content["device"],
            content["torch"],
            tuple(TrainConfig.from_dict(case) for case in content["cases"]),
            tuple(BatchCost(**cost) for cost in content["costs"]),
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, Sn7Error) as error:
        raise ResultsConflict(f"{path} cannot be read ({error}); remove it, and it is measured again.") from error
