"""What happens inside fastai's training loop: precision, losses and metrics without a synchronisation a batch."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from fastai.callback.core import Callback
from fastai.learner import Recorder
from torch import Tensor
from tqdm import tqdm

from sn7.errors import TrainingDiverged
from sn7.metrics import Counts

__all__ = ["BatchBar", "EpochMetrics", "Precision", "TrainLoss", "ValidationMetrics", "autocast"]


@dataclass(frozen=True)
class EpochMetrics:
    """One row of history.csv; metrics are of the building class over all valid validation pixels."""

    epoch: int
    """From 1."""
    train_loss: float
    valid_loss: float
    dice: float
    iou: float
    precision: float
    recall: float
    lr: float
    """Of the decoder, at the last step of the epoch."""
    tiles_per_s: float
    """Training tiles a second, without validation."""
    seconds: float
    """Training and validation of the epoch."""


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """Return the context that a forward pass runs in.

    `auto` is bf16 where the hardware computes in it (other processors emulate it, slower than fp32).
    """
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = torch.cpu._is_avx512_bf16_supported()
    enabled = precision == "bf16" or (precision == "auto" and native)
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled)


class Precision(Callback):
    """Runs forward pass and loss in the wanted arithmetic; weights, gradients and optimizer stay fp32."""

    def __init__(self, precision: str, device: torch.device) -> None:
        self.context = autocast(precision, device)

    def before_batch(self) -> None:
        self.context.__enter__()

    def after_loss(self) -> None:
        self.context.__exit__(None, None, None)


class TrainLoss(Callback):
    """Keeps the losses of an epoch on the device and looks at them once, at its end."""

    order = Recorder.order - 1

    def before_train(self) -> None:
        self.losses: list[Tensor] = []
        self.tiles, self.started = 0, time.monotonic()

    def after_batch(self) -> None:
        if self.training:
            self.losses.append(self.loss.detach())
            self.tiles += len(self.y)

    def after_train(self) -> None:
        losses = torch.stack(self.losses)
        finite = torch.isfinite(losses).cpu()
        if not finite.all():
            batch = int((~finite).nonzero()[0])
            raise TrainingDiverged(
                f"the loss became {losses[batch].item()} in epoch {self.epoch + 1}, batch {batch + 1} of "
                f"{len(losses)}, at a learning rate of {self.opt.hypers[-1]['lr']:.3g}; wanted a "
                "finite loss: lower lr_max."
            )
        self.mean = losses.mean().item()
        self.tiles_per_s = self.tiles / (time.monotonic() - self.started)


class ValidationMetrics(Callback):
    """Counts and loss sums over the validation pixels, added up on the device, divided once."""

    order = Recorder.order + 1

    def __init__(self, report: Callable[[EpochMetrics], None]) -> None:
        self.report = report

    def before_epoch(self) -> None:
        self.started = time.monotonic()

    def before_validate(self) -> None:
        self.sums: list[Tensor] = []

    def after_batch(self) -> None:
        if not self.training:
            self.sums.append(self._sums(self.pred, self.y))

    def _sums(self, logits: Tensor, target: Tensor) -> Tensor:
        predicted, building, background = logits[:, 1] >= logits[:, 0], target == 1, target == 0
        tp = (predicted & building).sum()
        counts = torch.stack([tp, (predicted & background).sum(), building.sum() - tp])
        return torch.cat([counts.double(), torch.stack(self.learn.loss_func.sums(logits, target)).double()])

    def after_epoch(self) -> None:
        tp, fp, fn, loss, weight = torch.stack(self.sums).sum(0).tolist()
        counts = Counts(int(tp), int(fp), int(fn))
        if not torch.isfinite(torch.tensor(loss)):
            raise TrainingDiverged(
                f"the validation loss became {loss} in epoch {self.epoch + 1}; wanted a finite loss: lower lr_max."
            )
        self.report(
            EpochMetrics(
                epoch=self.epoch + 1,
                train_loss=self.learn.train_loss.mean,
                valid_loss=loss / weight if weight else 0.0,
                **counts.metrics(),
                lr=float(self.opt.hypers[-1]["lr"]),
                tiles_per_s=self.learn.train_loss.tiles_per_s,
                seconds=time.monotonic() - self.started,
            )
        )


class BatchBar(Callback):
    """A progress bar over the training tiles with rate and time left; silent where there is no terminal."""

    def before_fit(self) -> None:
        tiles = self.n_epoch * len(self.dls.train) * self.dls.train.batch_size
        self.bar = tqdm(total=tiles, unit=" tiles", desc="train", disable=None)

    def after_batch(self) -> None:
        if self.training:
            self.bar.update(self.dls.train.batch_size)

    def after_fit(self) -> None:
        self.bar.close()
