"""TrainConfig + loaders → fastai's Learner, with what surrounds a step, and without what prints or draws."""

from collections.abc import Iterator
from contextlib import closing, contextmanager

import torch
from fastai.callback.progress import ProgressCallback
from fastai.callback.schedule import Learner  # schedule adds fit_one_cycle to Learner
from fastai.data.core import DataLoaders
from fastai.learner import Recorder
from torch import nn

from sn7.config import TrainConfig
from sn7.loader import TileLoader
from sn7.losses import build_loss
from sn7.optimizer import FusedAdam
from sn7.precision import Precision, autocast, scaler
from sn7.steps import Frozen, MovingAverage, Steps
from sn7.unet import parameter_groups

__all__ = ["open_learner", "rates"]


def rates(config: TrainConfig, highest: float) -> slice:
    """Return learning rates from the encoder's first layers to the decoder, which has the highest.

    fastai spreads a slice geometrically over the parameter groups: stem, encoder, decoder.
    """
    return slice(highest * config.encoder_lr_factor, highest)


@contextmanager
def open_learner(
    config: TrainConfig, model: nn.Module, training: TileLoader, validation: TileLoader, device: torch.device
) -> Iterator[Learner]:
    """Yield a learner of `model`, on `device` already; its callbacks are `learner.steps`, `learner.moving_average` …"""
    context = autocast(config.precision, device)
    precision = Precision(context)
    callbacks = [precision, Steps(config.clip_norm, scaler(context, device)), Frozen(config.frozen_epochs)]
    if config.ema_decay:
        callbacks.append(MovingAverage(model, config.ema_decay))
    learner = Learner(
        DataLoaders(training, validation, device=device),
        model,
        loss_func=build_loss(config).to(device),
        opt_func=FusedAdam,
        splitter=parameter_groups,
        wd=config.weight_decay,
        cbs=callbacks,
    )
    learner.remove_cbs([ProgressCallback, Recorder])  # the recorder waits for a GPU after each batch
    with closing(precision):
        yield learner
