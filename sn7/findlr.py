"""The learning-rate range test (Smith 2017): a mock training whose rate grows with each step until the loss bursts."""

import csv
import math
import tempfile
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from fastai.callback.schedule import LRFinder, SchedExp, valley
from fastai.learner import Recorder
from fastai.torch_core import set_seed
from matplotlib.figure import Figure

from sn7.config import TrainConfig
from sn7.device import default_device, no_room, out_of_memory
from sn7.errors import ConfigError, TrainingDiverged
from sn7.files import atomic_file, require_writable
from sn7.folds import Split
from sn7.learner import open_learner, rates
from sn7.loader import TileLoader, loaders
from sn7.prepared import Prepared
from sn7.pretrained import load_pretrained
from sn7.trainloop import BatchBar
from sn7.unet import build_unet

__all__ = ["RangeTest", "find_lr"]

LOWEST, HIGHEST = 1e-7, 10.0
"""Learning rates of the first and of the last step, for the decoder; the encoder's are as far below as in training."""

FEWEST = 20
"""Steps, at least."""


@dataclass(frozen=True)
class RangeTest:
    """The smoothed training loss at each learning rate that was tried."""

    lrs: list[float]
    losses: list[float]
    suggestion: float
    """lr_max in the middle third of the longest stretch in which the loss falls (fastai's valley)."""


def find_lr(config: TrainConfig, prepared: Prepared, split: Split, out: Path, steps: int = 100) -> RangeTest:
    """Try `steps` growing learning rates and write `out/lr_find.csv` and `out/lr_find.png`; no model is kept.

    Raises ConfigError for fewer than 20 steps, OutOfMemory where a batch is too much, TrainingDiverged where
    the loss is not finite before it could be followed; else as train() does.
    """
    if steps < FEWEST:
        raise ConfigError(f"{steps} steps are too few to see the loss fall and rise; wanted {FEWEST} or more.")
    config.require_batch_size()
    require_writable(out)
    # Neither belongs to the curve: an average would be validated, and is not here; thawing would bend it.
    config = replace(config, ema_decay=0.0, frozen_epochs=0)
    device = default_device()
    training, validation = loaders(config, prepared, split, device)
    try:
        points = _points(config, training, validation, device, steps)
    except RuntimeError as error:
        if out_of_memory(error):
            raise no_room(config, training.batch_tiles, device) from error
        raise
    test = _suggest(points, steps)
    _write(test, out)
    return test


def _points(
    config: TrainConfig, training: TileLoader, validation: TileLoader, device: torch.device, steps: int
) -> list[tuple[float, float]]:
    """Return each learning rate with its loss, smoothed."""
    set_seed(config.seed, reproducible=True)
    model = build_unet(config)
    load_pretrained(model, config)
    model = model.to(memory_format=torch.channels_last).to(device)
    growth = SchedExp(LOWEST, HIGHEST)
    with (
        tempfile.TemporaryDirectory() as scratch,
        closing(BatchBar()) as bar,
        open_learner(config, model, training, validation, device) as learner,
    ):
        learner.path = Path(scratch)  # the finder puts the weights that it began with there, and back
        finder = LRFinder(num_it=steps)
        finder.scheds = {"lr": lambda position: rates(config, growth(position))}
        learner.add_cb(Recorder())
        learner.logger = lambda _: None  # which the recorder prints with
        learner.fit(steps // len(training) + 1, cbs=[finder, bar])
        recorded = zip(learner.recorder.lrs, learner.recorder.losses, strict=True)
        return [(float(lr), float(loss)) for lr, loss in recorded]


def _suggest(points: list[tuple[float, float]], steps: int) -> RangeTest:
    finite = [(lr, loss) for lr, loss in points if math.isfinite(loss)]
    followed = finite[steps // 10 : -5]  # without the first, still unsettled, and the burst
    if len(followed) < 3:
        raise TrainingDiverged(
            f"the loss stayed finite in {len(finite)} of {len(points)} steps from a learning rate of {LOWEST:g} on; "
            "wanted enough of them to see it fall: check the data, or take precision = fp32."
        )
    lrs, losses = (list(column) for column in zip(*followed, strict=True))
    suggestion, _ = valley(lrs, losses, steps)
    return RangeTest(lrs, losses, suggestion)


def _write(test: RangeTest, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    with atomic_file(out / "lr_find.csv") as path, path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["lr", "loss"])
        writer.writerows(zip(test.lrs, test.losses, strict=True))
    figure = Figure(figsize=(6, 3.6), dpi=120, layout="constrained")
    axes = figure.subplots()
    axes.plot(test.lrs, test.losses)
    axes.axvline(test.suggestion, color="tab:orange", label=f"suggested lr_max = {test.suggestion:.1e}")
    axes.set(xscale="log", title="Learning-rate range test", xlabel="learning rate of the decoder")
    axes.set_ylabel("training loss, smoothed")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    with atomic_file(out / "lr_find.png") as path:
        figure.savefig(path, format="png")
