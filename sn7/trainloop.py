"""What is counted inside fastai's training loop: losses, metrics, speed, memory.

Losses and metrics stay on the device until the end of an epoch: there is no synchronisation a batch.
"""

import math
import time
from collections.abc import Callable

import torch
from fastai.callback.core import Callback
from fastai.learner import Recorder
from torch import Tensor
from torch.nn.functional import avg_pool2d
from tqdm import tqdm

from sn7.device import tensors_mib
from sn7.errors import TrainingDiverged
from sn7.evaluation import ValidationCounts
from sn7.history import EpochMetrics
from sn7.losses import IGNORE, background, building
from sn7.metrics import BINS, Counts
from sn7.midway import Midway
from sn7.steps import Plain

__all__ = ["BatchBar", "TrainLoss", "ValidationMetrics", "native_probs"]


def native_probs(logits: Tensor, upscale: int) -> Tensor:
    """Return the building probs on the image's own grid, float32 (N, h, w), of logits (N, 2 or 4, H, W)."""
    probs = logits[:, :2].float().softmax(dim=1)[:, 1]
    return probs if upscale == 1 else avg_pool2d(probs, upscale)


class TrainLoss(Plain):
    """Keeps the losses of an epoch's batches on the device and looks at them once, at its end.

    The first epoch begins behind what is `done` of it.
    """

    order = Recorder.order - 1

    def __init__(self, done: Midway | None = None) -> None:
        self.done = done or Midway()

    def before_train(self) -> None:
        done, self.done = self.done, Midway()
        self.losses = [torch.tensor(loss, device=self.dls.device) for loss in done.losses]
        self.lrs = list(done.lrs)
        self.tiles, self.started = done.tiles, time.monotonic() - done.seconds
        self.learn.pct_train += self.dls.train.skip(done.tiles) / self.n_epoch

    def midway(self) -> Midway:
        """Return what of the epoch is done."""
        losses = [loss.item() for loss in self.losses]
        return Midway(self.tiles, losses, self.lrs, time.monotonic() - self.started)

    def after_batch(self) -> None:
        if self.training:
            batch_tiles = self.dls.train.batch_tiles
            part = self.loss.detach() * (len(self.yb[0]) / batch_tiles)
            if self.tiles % batch_tiles == 0:
                self.losses.append(part)
                self.lrs.append(float(self.opt.hypers[-1]["lr"]))
            else:
                self.losses[-1] += part
            self.tiles += len(self.yb[0])

    def after_train(self) -> None:
        losses = torch.stack(self.losses)
        finite = torch.isfinite(losses).cpu()
        if not finite.all():
            batch = int((~finite).nonzero()[0])
            raise TrainingDiverged(
                f"the loss became {losses[batch].item()} in epoch {self.epoch + 1}, batch {batch + 1} of "
                f"{len(losses)}, at a learning rate of {self.lrs[batch]:.3g}; wanted a finite loss: "
                "lower lr_max."
            )
        self.mean = losses.mean().item()
        self.tiles_per_s = self.tiles / (time.monotonic() - self.started)


class ValidationMetrics(Plain):
    """Counts and loss sums over the validation pixels, added up on the device, divided once.

    `report` gets the metrics of an epoch and its counts.
    """

    order = Recorder.order + 1

    def __init__(self, report: Callable[[EpochMetrics, ValidationCounts], None], micro_batch: int) -> None:
        self.report, self.micro_batch = report, micro_batch

    def before_epoch(self) -> None:
        self.counts: list[Tensor] = []
        self.sums: list[Tensor] = []
        if self.dls.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.dls.device)

    def before_validate(self) -> None:
        loader, device = self.dls.valid, self.dls.device
        self.scenes = torch.tensor([loader.scenes.index(tile.image.scene) for tile in loader.tiles], device=device)
        self.curves = torch.zeros(len(loader.scenes) * 2 * BINS, dtype=torch.int64, device=device)
        self.seen = 0

    def before_batch(self) -> None:
        if not self.training:  # the loss is of the enlarged grid, metrics are of the image's own
            self.target, self.native = self.yb
            self.learn.yb = ()  # fastai would compute a loss of the batch, too

    def after_batch(self) -> None:
        if self.training:
            return
        self.sums.append(torch.stack(self.learn.loss_func.sums(self.pred, self.target)).double())
        probs = native_probs(self.pred, self.dls.valid.config.upscale)
        self.counts.append(_tile_counts(probs, self.native))
        scenes = self.scenes[self.seen : self.seen + len(probs)]
        _add_to_curves(self.curves, probs, self.native, scenes)
        self.seen += len(probs)

    def after_epoch(self) -> None:
        if not self.sums:  # fastai runs through the epochs before the one that a training continues with
            return
        loss, weight = torch.stack(self.sums).sum(0).tolist()
        if not math.isfinite(loss):
            raise TrainingDiverged(
                f"the validation loss became {loss} in epoch {self.epoch + 1}; wanted a finite loss: lower lr_max."
            )
        # fastai has made tensors of its own of them.
        tiles, curves = (tensor.as_subclass(Tensor).cpu() for tensor in (torch.cat(self.counts), self.curves))
        metrics = EpochMetrics(
            epoch=self.epoch + 1,
            train_loss=self.learn.train_loss.mean,
            valid_loss=loss / weight if weight else 0.0,
            **Counts(*tiles.sum(0).tolist()).metrics(),
            lr=self.learn.train_loss.lrs[-1],
            tiles_per_s=self.learn.train_loss.tiles_per_s,
            seconds=time.monotonic() - self.learn.train_loss.started,
            memory_mib=tensors_mib(self.dls.device),
            micro_batch=self.micro_batch,
        )
        self.report(metrics, ValidationCounts(tiles, curves.view(-1, 2, BINS)))


def _tile_counts(probs: Tensor, target: Tensor) -> Tensor:
    """Return TP, FP and FN of each tile at probs >= 0.5, int64 (N, 3)."""
    predicted, built = probs >= 0.5, building(target)
    kinds = (predicted & built, predicted & background(target), ~predicted & built)
    return torch.stack([kind.sum((1, 2)) for kind in kinds], dim=1)


def _add_to_curves(curves: Tensor, probs: Tensor, target: Tensor, scenes: Tensor) -> None:
    """Count the valid pixels of tiles by scene, class (building first) and prob into int64 (scenes · 2 · BINS,)."""
    bins = (probs * BINS).long().clamp(0, BINS - 1)
    kind = background(target).long()
    places = (scenes.view(-1, 1, 1) * 2 + kind) * BINS + bins
    curves.scatter_add_(0, places.flatten(), (target != IGNORE).long().flatten())


class BatchBar(Callback):
    """A progress bar over the training tiles with rate and time left; silent where there is no terminal.

    `epochs` and, of the next one, `tiles` were trained in an earlier start.
    """

    def __init__(self, epochs: int = 0, tiles: int = 0) -> None:
        self.epochs, self.tiles = epochs, tiles
        self.bar: tqdm | None = None

    def before_fit(self) -> None:
        tiles = self.dls.train.pass_tiles
        total, done = self.n_epoch * tiles, self.epochs * tiles + self.tiles
        self.bar = tqdm(total=total, initial=done, unit=" tiles", desc="train", disable=None)

    def after_batch(self) -> None:
        if self.training and self.bar is not None:
            self.bar.update(len(self.yb[0]))

    def after_fit(self) -> None:
        self.close()

    def close(self) -> None:
        """Leave the terminal's line, also after an error."""
        if self.bar is not None:
            self.bar.close()
