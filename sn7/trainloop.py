"""What happens inside fastai's training loop: precision, pieces of a batch, losses and metrics.

Losses and metrics stay on the device until the end of an epoch: there is no synchronisation a batch.
"""

import resource
import time
from collections.abc import Callable

import torch
from fastai.callback.core import Callback, CancelBatchException
from fastai.callback.schedule import ParamScheduler
from fastai.learner import Recorder
from fastcore.basics import getcallable
from torch import Tensor
from tqdm import tqdm

from sn7.errors import TrainingDiverged
from sn7.history import EpochMetrics
from sn7.metrics import Counts

__all__ = [
    "BatchBar",
    "Pieces",
    "Precision",
    "TrainLoss",
    "ValidationMetrics",
    "autocast",
    "out_of_memory",
]


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


def out_of_memory(error: BaseException) -> bool:
    """Return whether torch, on the GPU or the CPU, has said that there is not enough memory."""
    text = str(error).lower()
    said = any(words in text for words in ("out of memory", "can't allocate memory", "status_alloc_failed"))
    return isinstance(error, torch.OutOfMemoryError) or (isinstance(error, RuntimeError) and said)


class Precision(Callback):
    """Runs forward pass and loss in the wanted arithmetic; weights, gradients and optimizer stay fp32."""

    def __init__(self, precision: str, device: torch.device) -> None:
        self.context, self.entered = autocast(precision, device), False

    def before_batch(self) -> None:
        self.context.__enter__()
        self.entered = True

    def after_loss(self) -> None:
        self.close()

    def close(self) -> None:
        """Leave the arithmetic; after an error in the forward pass nothing else does."""
        if self.entered:
            self.context.__exit__(None, None, None)
        self.entered = False


class Pieces(Callback):
    """One optimizer step a batch, in however many pieces it comes: their gradients add up, weighted by tiles.

    That makes the gradient of the mean over the pieces of their losses, each weighted by its share of the tiles.
    """

    order, run_valid = ParamScheduler.order + 1, False

    def before_train(self) -> None:
        self.seen = 0

    def before_batch(self) -> None:
        # fastai's schedule moves on with each piece; a batch has the rates of its first one.
        if self.seen == 0:
            self.rates = [dict(hypers) for hypers in self.opt.hypers]
        for hypers, rates in zip(self.opt.hypers, self.rates, strict=True):
            hypers.update(rates)

    def after_loss(self) -> None:
        self.learn.loss_grad = self.loss_grad * (len(self.y) / self.dls.train.batch_tiles)

    def before_step(self) -> None:
        self.seen += len(self.y)
        if self.seen < self.dls.train.batch_tiles:
            raise CancelBatchException
        self.seen = 0


class _Plain(Callback):
    """A callback whose errors pass through as they are; fastai would rewrite their text, and fail if they have none."""

    def __call__(self, event_name: str) -> None:
        getcallable(self, event_name)()


class TrainLoss(_Plain):
    """Keeps the losses of an epoch's batches on the device and looks at them once, at its end."""

    order = Recorder.order - 1

    def before_train(self) -> None:
        self.losses: list[Tensor] = []
        self.tiles, self.started = 0, time.monotonic()

    def after_batch(self) -> None:
        if self.training:
            batch_tiles = self.dls.train.batch_tiles
            part = self.loss.detach() * (len(self.y) / batch_tiles)
            if self.tiles % batch_tiles == 0:
                self.losses.append(part)
            else:
                self.losses[-1] += part
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


class ValidationMetrics(_Plain):
    """Counts and loss sums over the validation pixels, added up on the device, divided once.

    `report` gets the metrics of an epoch and its counts tile by tile: int64 (validation tiles, 3), TP, FP and FN.
    """

    order = Recorder.order + 1

    def __init__(self, report: Callable[[EpochMetrics, Tensor], None], micro_batch: int) -> None:
        self.report, self.micro_batch = report, micro_batch

    def before_epoch(self) -> None:
        self.started = time.monotonic()
        self.counts: list[Tensor] = []
        self.sums: list[Tensor] = []
        if self.dls.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.dls.device)

    def after_batch(self) -> None:
        if not self.training:
            self.counts.append(_tile_counts(self.pred, self.y))
            self.sums.append(torch.stack(self.learn.loss_func.sums(self.pred, self.y)).double())

    def after_epoch(self) -> None:
        if not self.sums:  # fastai runs through the epochs before the one that a training continues with
            return
        tiles = torch.cat(self.counts).as_subclass(Tensor).cpu()  # fastai has made it one of its own
        loss, weight = torch.stack(self.sums).sum(0).tolist()
        if not torch.isfinite(torch.tensor(loss)):
            raise TrainingDiverged(
                f"the validation loss became {loss} in epoch {self.epoch + 1}; wanted a finite loss: lower lr_max."
            )
        metrics = EpochMetrics(
            epoch=self.epoch + 1,
            train_loss=self.learn.train_loss.mean,
            valid_loss=loss / weight if weight else 0.0,
            **Counts(*tiles.sum(0).tolist()).metrics(),
            lr=float(self.opt.hypers[-1]["lr"]),
            tiles_per_s=self.learn.train_loss.tiles_per_s,
            seconds=time.monotonic() - self.started,
            memory_mib=_peak_mib(self.dls.device),
            micro_batch=self.micro_batch,
        )
        self.report(metrics, tiles)


def _tile_counts(logits: Tensor, target: Tensor) -> Tensor:
    """Return TP, FP and FN of each tile at probs >= 0.5, int64 (N, 3)."""
    predicted, building, background = logits[:, 1] >= logits[:, 0], target == 1, target == 0
    kinds = (predicted & building, predicted & background, ~predicted & building)
    return torch.stack([kind.sum((1, 2)) for kind in kinds], dim=1)


def _peak_mib(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10  # Linux counts in KiB


class BatchBar(Callback):
    """A progress bar over the training tiles with rate and time left; silent where there is no terminal.

    `done` epochs were trained in an earlier start.
    """

    def __init__(self, done: int) -> None:
        self.done = done
        self.bar: tqdm | None = None

    def before_fit(self) -> None:
        tiles = self.dls.train.pass_tiles
        total, done = self.n_epoch * tiles, self.done * tiles
        self.bar = tqdm(total=total, initial=done, unit=" tiles", desc="train", disable=None)

    def after_batch(self) -> None:
        if self.training and self.bar is not None:
            self.bar.update(len(self.y))

    def after_fit(self) -> None:
        self.close()

    def close(self) -> None:
        """Leave the terminal's line, also after an error."""
        if self.bar is not None:
            self.bar.close()
