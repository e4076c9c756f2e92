"""The epochs of one training: through fastai's loop, checkpoints, and starts with half the tiles in memory."""

import shutil
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from fastai.callback.schedule import Learner
from fastai.torch_core import set_seed
from safetensors.torch import load_file
from torch import Tensor, nn

from sn7.checkpoint import Checkpoint, load_checkpoint, random_states, restore_random_states, save_checkpoint
from sn7.config import TrainConfig
from sn7.device import default_device, no_room, out_of_memory, release
from sn7.errors import ConfigError, ModelInvalid
from sn7.evaluation import ValidationCounts
from sn7.folds import Split
from sn7.history import EpochMetrics, write_rows
from sn7.learner import open_learner, rates
from sn7.loader import TileLoader, loaders
from sn7.midway import Leave, Midway
from sn7.modeldir import read_model, save_model
from sn7.prepared import Prepared
from sn7.pretrained import load_pretrained
from sn7.signals import LeaveQuestion
from sn7.trainloop import BatchBar, TrainLoss, ValidationMetrics
from sn7.unet import build_unet

__all__ = ["CHECKPOINT", "Keep", "Report", "Trained", "Training"]

CHECKPOINT = "checkpoint.pt"
SINGLE_VALUE = "Expected more than 1 value per channel"
"""What torch says of the last map of one small tile, which batch normalisation cannot do with."""
PAUSE = 20
"""Time between two checkpoints, in units of what writing the last one took: they cost a twentieth at most."""

Keep = Literal["best", "last"]
Report = Callable[[EpochMetrics], None]
"""Called after each epoch; an exception from it ends the training and passes through."""


@dataclass(frozen=True)
class Trained:
    """A training that has seen all its epochs."""

    model: nn.Module
    """As it is after the last epoch."""
    training: TileLoader
    validation: TileLoader
    history: list[EpochMetrics]
    counts: ValidationCounts
    """Of the epoch whose model is kept."""


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
        leave: LeaveQuestion | None,
    ) -> None:
        self.config, self.prepared, self.split, self.out = config, prepared, split, out
        self.report, self.keep, self.urgent, self.leave = report, keep, urgent, leave
        self.device, self.started = default_device(), time.monotonic()
        self.about = {"split": asdict(split), "data_fingerprint": prepared.fingerprint, "keep": keep}
        self.identity: dict[str, Any] = {"config": config.to_dict(), **self.about}
        self.micro_batch = self.largest = config.batch_size
        self.history: list[EpochMetrics] = []
        self.counts: ValidationCounts | None = None
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
            except (RuntimeError, ValueError) as error:
                too_small = SINGLE_VALUE in str(error)
                if self.reporting or not (too_small or out_of_memory(error)):
                    raise
                cut_too_small = too_small and self.micro_batch < self.config.batch_size
                if too_small and not cut_too_small:
                    raise ConfigError(
                        f"one training tile of {self.config.tile_size} px leaves batch norm one value a channel; "
                        "wanted more tiles, such as of more images_per_scene, or larger ones."
                    ) from error
                if cut_too_small or self.largest == 1:
                    raise no_room(self.config, 1, self.device) from error
            # Only out here nothing holds the failed learner and its tensors any more.
            release(self.device)
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
        model = build_unet(self.config)
        if not checkpoint:
            load_pretrained(model, self.config)
            self._forget()
        model = model.to(memory_format=torch.channels_last).to(self.device)
        done = checkpoint.midway if checkpoint else Midway()
        with (
            closing(BatchBar(len(self.history), done.tiles)) as bar,
            open_learner(self.config, model, training, validation, self.device) as learner,
        ):
            learner.add_cbs([TrainLoss(done), bar])
            learner.add_cb(ValidationMetrics(partial(self._after_epoch, learner), self.micro_batch))
            if self.leave:
                learner.add_cb(Leave(self.leave, partial(self._save_checkpoint, learner)))
            if checkpoint:
                self._restore(checkpoint, learner)
                del checkpoint  # as large as the training itself, on the CPU
            learner.fit_one_cycle(
                self.config.epochs, rates(self.config, self.config.lr_max), start_epoch=len(self.history)
            )
        assert self.counts is not None
        return Trained(model, training, validation, self.history, self.counts)

    def _forget(self) -> None:
        """Remove what an earlier training left that this one has yet to write: it might end before."""
        (self.out / "history.csv").unlink(missing_ok=True)
        shutil.rmtree(self.out / "model", ignore_errors=True)

    def _take_over(self, checkpoint: Checkpoint | None) -> None:
        """Stand where the checkpoint stands, or before the first epoch."""
        self.history = list(checkpoint.history) if checkpoint else []
        self.counts = checkpoint.counts if checkpoint else None
        self.checkpoint_due = 0.0
        if checkpoint:
            self.micro_batch = min(self.micro_batch, checkpoint.micro_batch)
        if self.continued_after is None:
            self.continued_after = self.reported = len(self.history)
            self.started -= checkpoint.seconds if checkpoint else 0.0

    def _restore(self, checkpoint: Checkpoint, learner: Learner) -> None:
        """Give learner, random states and model folder what they had when the checkpoint was written."""
        model = learner.model
        learner.create_opt()
        try:
            if self.keep == "best" and self.history and not self._has_model(max(self.history, key=_dice)):
                # An epoch after the checkpoint has replaced it, and may come out differently this time.
                model.load_state_dict(checkpoint.best_model or checkpoint.model)
                self._save_model(model, max(self.history, key=_dice))
            model.load_state_dict(checkpoint.model)
            state = [{name: self._on_device(value) for name, value in one.items()} for one in checkpoint.optimizer]
            learner.opt.load_state_dict({"state": state, "hypers": learner.opt.hypers})
            if checkpoint.average:
                learner.moving_average.restore(checkpoint.average)
            if learner.steps.scaler and checkpoint.scaler:
                learner.steps.scaler.load_state_dict(checkpoint.scaler)
            restore_random_states(checkpoint.random, learner.dls.train.order)
        except (AssertionError, KeyError, RuntimeError, TypeError, ValueError) as error:
            if out_of_memory(error):
                raise
            path, reason = self.out / CHECKPOINT, " ".join(str(error).split())[:200]
            raise ModelInvalid(f"{path} does not fit ({reason}); remove it, and the training starts anew.") from error

    def _on_device(self, value: Any) -> Any:
        return value.to(self.device) if isinstance(value, Tensor) else value

    def _after_epoch(self, learner: Learner, metrics: EpochMetrics, counts: ValidationCounts) -> None:
        improved = not self.history or metrics.dice > max(map(_dice, self.history))
        last = metrics.epoch == self.config.epochs
        self.history.append(metrics)
        if improved if self.keep == "best" else last:
            self._save_model(learner.model, metrics)
            self.counts = counts
        if self.config.ema_decay:
            learner.moving_average.swap()  # the model has its own weights again
        write_rows(self.out / "history.csv", self.history)
        if not last and self._checkpoint_is_due():
            self._save_checkpoint(learner, Midway())
        if self.report and metrics.epoch > self.reported:  # an epoch can come again after an out-of-memory
            self.reporting = True  # what it raises is its own, whatever it says
            self.report(metrics)
            self.reporting, self.reported = False, metrics.epoch

    def _checkpoint_is_due(self) -> bool:
        urgent = self.urgent is not None and self.urgent()
        return urgent or time.monotonic() > self.checkpoint_due

    def _save_checkpoint(self, learner: Learner, midway: Midway) -> None:
        started, loader = time.monotonic(), learner.dls.train
        moved_on = midway.tiles > 0 or self.config.ema_decay > 0
        best_is_live = not moved_on and max(self.history, key=_dice) is self.history[-1]
        best_elsewhere = self.keep == "best" and len(self.history) > 0 and not best_is_live
        checkpoint = Checkpoint(
            identity=self.identity,
            model=learner.model.state_dict(),
            optimizer=list(learner.opt.state_dict()["state"]),
            random={**random_states(loader.order), "order": loader.began},
            history=self.history,
            best_model=load_file(self.out / "model" / "weights.safetensors") if best_elsewhere else None,
            counts=self.counts,
            average=learner.moving_average.state() if self.config.ema_decay else None,
            scaler=learner.steps.scaler.state_dict() if learner.steps.scaler else None,
            micro_batch=self.micro_batch,
            seconds=self.seconds,
            midway=midway,
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
