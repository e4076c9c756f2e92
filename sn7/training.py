"""The epochs of one training: through fastai's loop, checkpoints, and starts with half the tiles in memory."""

import gc
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from fastai.callback.progress import ProgressCallback
from fastai.callback.schedule import Learner  # schedule adds fit_one_cycle to Learner
from fastai.data.core import DataLoaders
from fastai.torch_core import set_seed
from safetensors.torch import load_file
from torch import Tensor, nn

from sn7.checkpoint import Checkpoint, load_checkpoint, random_states, restore_random_states, save_checkpoint
from sn7.config import TrainConfig
from sn7.errors import ModelInvalid
from sn7.folds import Split
from sn7.history import EpochMetrics, write_rows
from sn7.loader import TileLoader, loaders
from sn7.losses import WeightedCrossEntropy
from sn7.modeldir import read_model, save_model
from sn7.prepared import Prepared
from sn7.trainloop import BatchBar, Pieces, Precision, TrainLoss, ValidationMetrics, out_of_memory
from sn7.unet import build_unet, parameter_groups

__all__ = ["CHECKPOINT", "Keep", "Report", "Trained", "Training", "default_device"]

CHECKPOINT = "checkpoint.pt"
PAUSE = 20
"""Time between two checkpoints, in units of what writing the last one took: they cost a twentieth at most."""

Keep = Literal["best", "last"]
Report = Callable[[EpochMetrics], None]
"""Called after each epoch; an exception from it ends the training and passes through."""


def default_device() -> torch.device:
    """Return the GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@dataclass(frozen=True)
class Trained:
    """A training that has seen all its epochs."""

    model: nn.Module
    """As it is after the last epoch."""
    training: TileLoader
    validation: TileLoader
    history: list[EpochMetrics]
    tile_counts: Tensor
    """TP, FP and FN of each validation tile in the epoch whose model is kept, int64 (tiles, 3)."""


class Training:
    """One training in the folder `out`, from its checkpoint there if it has one."""

    def __init__(
        self,
        config: TrainConfig,
        prepared: Prepared,
        split: Split,
        out: Path,
        report: Report | None,
        keep: Keep,
        urgent: Callable[[], bool] | None,
    ) -> None:
        self.config, self.prepared, self.split, self.out = config, prepared, split, out
        self.report, self.keep, self.urgent = report, keep, urgent
        self.device, self.started = default_device(), time.monotonic()
        self.about = {"split": asdict(split), "data_fingerprint": prepared.fingerprint, "keep": keep}
        self.identity: dict[str, Any] = {"config": config.to_dict(), **self.about}
        self.micro_batch = self.largest = config.batch_size
        self.history: list[EpochMetrics] = []
        self.tile_counts: Tensor | None = None
        self.reporting, self.reported = False, 0
        self.continued_after: int | None = None

    @property
    def seconds(self) -> float:
        """Time spent on the training in all its starts."""
        return time.monotonic() - self.started

    def run(self) -> Trained:
        """Train to the last epoch, each time that memory does not suffice with half the tiles at once."""
        while True:
            try:
                return self._fit()
            except RuntimeError as error:
                if self.reporting or self.largest == 1 or not out_of_memory(error):
                    raise
            # Only out here nothing holds the failed learner and its tensors any more.
            gc.collect()
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            print(
                f"warning: out of memory with {self.largest} tiles of {self.config.tile_size} px at once; goes on with "
                f"{self.largest // 2}, and {self.config.batch_size} in a training step as before",
                file=sys.stderr,
            )
            self.micro_batch = self.largest // 2

    def _fit(self) -> Trained:
        set_seed(self.config.seed, reproducible=True)
        checkpoint = load_checkpoint(self.out / CHECKPOINT, self.identity)
        self._take_over(checkpoint)
        training, validation = loaders(self.config, self.prepared, self.split, self.device, self.micro_batch)
        self.largest = max(len(piece) for loader in (training, validation) for piece in loader.pieces)
        model = build_unet(self.config).to(memory_format=torch.channels_last).to(self.device)
        precision, bar = Precision(self.config.precision, self.device), BatchBar(len(self.history))
        with closing(precision), closing(bar):
            learner = self._learner(model, training, validation)
            learner.add_cbs([precision, bar])
            if checkpoint:
                self._restore(checkpoint, learner)
                del checkpoint  # as large as the training itself, on the CPU
            # fastai spreads a slice of rates geometrically over the parameter groups: stem, encoder, decoder.
            rates = slice(self.config.lr_max * self.config.encoder_lr_factor, self.config.lr_max)
            learner.fit_one_cycle(self.config.epochs, rates, wd=self.config.weight_decay, start_epoch=len(self.history))
        assert self.tile_counts is not None
        return Trained(model, training, validation, self.history, self.tile_counts)

    def _take_over(self, checkpoint: Checkpoint | None) -> None:
        """Stand where the checkpoint stands, or before the first epoch."""
        self.history = list(checkpoint.history) if checkpoint else []
        self.tile_counts = checkpoint.tile_counts if checkpoint else None
        self.checkpoint_due = 0.0
        if checkpoint:
            self.micro_batch = min(self.micro_batch, checkpoint.micro_batch)
        if self.continued_after is None:
            self.continued_after = self.reported = len(self.history)
            self.started -= checkpoint.seconds if checkpoint else 0.0

    def _learner(self, model: nn.Module, training: TileLoader, validation: TileLoader) -> Learner:
        learner = Learner(
            DataLoaders(training, validation, device=self.device),
            model,
            loss_func=WeightedCrossEntropy(self.config.building_weight).to(self.device),
            splitter=parameter_groups,
            cbs=[Pieces(), TrainLoss()],
        )
        learner.remove_cb(ProgressCallback)
        learner.logger = lambda _: None
        learner.add_cb(ValidationMetrics(partial(self._after_epoch, learner), self.micro_batch))
        return learner

    def _restore(self, checkpoint: Checkpoint, learner: Learner) -> None:
        """Give learner, random states and model folder what they had when the checkpoint was written."""
        model = learner.model
        learner.create_opt()
        try:
            if self.keep == "best" and not self._has_model(max(self.history, key=_dice)):
                # An epoch after the checkpoint has replaced it, and may come out differently this time.
                model.load_state_dict(checkpoint.best_model or checkpoint.model)
                self._save_model(model, max(self.history, key=_dice))
            model.load_state_dict(checkpoint.model)
            state = [{name: self._on_device(value) for name, value in one.items()} for one in checkpoint.optimizer]
            learner.opt.load_state_dict({"state": state, "hypers": learner.opt.hypers})
            restore_random_states(checkpoint.random, learner.dls.train.order)
        except (AssertionError, KeyError, RuntimeError, TypeError, ValueError) as error:
            if out_of_memory(error):
                raise
            path, reason = self.out / CHECKPOINT, " ".join(str(error).split())[:200]
            raise ModelInvalid(f"{path} does not fit ({reason}); remove it, and the training starts anew.") from error

    def _on_device(self, value: Any) -> Any:
        return value.to(self.device) if isinstance(value, Tensor) else value

    def _after_epoch(self, learner: Learner, metrics: EpochMetrics, tile_counts: Tensor) -> None:
        improved = not self.history or metrics.dice > max(map(_dice, self.history))
        last = metrics.epoch == self.config.epochs
        self.history.append(metrics)
        if improved if self.keep == "best" else last:
            self._save_model(learner.model, metrics)
            self.tile_counts = tile_counts
        write_rows(self.out / "history.csv", self.history)
        if not last and self._checkpoint_is_due():
            self._save_checkpoint(learner)
        if self.report and metrics.epoch > self.reported:  # an epoch can come again after an out-of-memory
            self.reporting = True  # what it raises is its own, whatever it says
            self.report(metrics)
            self.reporting, self.reported = False, metrics.epoch

    def _checkpoint_is_due(self) -> bool:
        urgent = self.urgent is not None and self.urgent()
        return urgent or time.monotonic() > self.checkpoint_due

    def _save_checkpoint(self, learner: Learner) -> None:
        started = time.monotonic()
        best_is_older = self.keep == "best" and max(self.history, key=_dice) is not self.history[-1]
        checkpoint = Checkpoint(
            identity=self.identity,
            model=learner.model.state_dict(),
            optimizer=list(learner.opt.state_dict()["state"]),
            random=random_states(learner.dls.train.order),
            history=self.history,
            best_model=load_file(self.out / "model" / "weights.safetensors") if best_is_older else None,
            tile_counts=self.tile_counts,
            micro_batch=self.micro_batch,
            seconds=self.seconds,
        )
        save_checkpoint(self.out / CHECKPOINT, checkpoint)
        now = time.monotonic()
        self.checkpoint_due = now + PAUSE * (now - started)

    def _save_model(self, model: nn.Module, metrics: EpochMetrics) -> None:
        save_model(self.out / "model", model, self.config, {**self.about, "epoch": asdict(metrics)})

    def _has_model(self, metrics: EpochMetrics) -> bool:
        try:
            return read_model(self.out / "model").training.get("epoch") == asdict(metrics)
        except ModelInvalid:
            return False


def _dice(metrics: EpochMetrics) -> float:
    return metrics.dice
