"""The middle of an epoch: a training that has to leave there goes on from the same batch."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from fastai.callback.schedule import ParamScheduler

from sn7.signals import LeaveQuestion
from sn7.steps import Plain

__all__ = ["Leave", "Midway"]

EVERY_S = 1.0
"""Seconds between two questions: an answer may be in a file."""


@dataclass(frozen=True)
class Midway:
    """What of an epoch is done: nothing, or so many batches."""

    tiles: int = 0
    """Of the training tiles, in the epoch's order."""
    losses: list[float] = field(default_factory=list)
    lrs: list[float] = field(default_factory=list)
    """Of the decoder, a batch."""
    seconds: float = 0.0


class Leave(Plain):
    """Asks between batches whether the training has to leave, and has a checkpoint written if so."""

    order, run_valid = ParamScheduler.order + 2, False

    def __init__(self, question: LeaveQuestion, save: Callable[[Midway], None]) -> None:
        self.question, self.save, self.due = question, save, 0.0

    def after_batch(self) -> None:
        if not self.training or self.learn.steps.seen or time.monotonic() < self.due:  # seen: pieces of a batch
            return
        self.due = time.monotonic() + EVERY_S
        if reason := self.question():
            self.save(self.learn.train_loss.midway())
            raise reason
