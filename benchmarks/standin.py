"""What the trials of benchmarks/sweep.py do in a worker: sleep in place of a training, and time their reports."""

import json
import time
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ray import tune

import sweep.trial  # noqa: F401 - so that a bare trial, too, pays for what a trial of a study imports
from sn7.history import EpochMetrics, write_rows
from sn7.training import Report

__all__ = ["StandIn", "bare_trial"]


@dataclass(frozen=True)
class StandIn:
    """Stands in for sn7.train.train: `epochs` times it sleeps `epoch_s` seconds and reports."""

    epochs: int
    epoch_s: float
    times: Path
    """Folder that gets a file a trial, *.json, with the seconds that each of its reports took."""
    together: int = 1
    """A trial begins when so many are there."""

    @property
    def seconds(self) -> float:
        """What a trial takes where everything else is free."""
        return self.epochs * self.epoch_s

    def __call__(self, config: Any, prepared: Any, split: Any, out: Path, report: Report, *_: Any, **__: Any) -> None:
        """Do as `train` does, with its arguments: sleep, report, leave a history. Note when it began."""
        (self.times / f"began-{uuid.uuid4().hex}").write_text(str(time.time()))
        while len(list(self.times.glob("began-*"))) < self.together:
            time.sleep(0.2)
        write_rows(out / "history.csv", self.run(report))

    def run(self, report: Report) -> list[EpochMetrics]:
        """Sleep and report; return the epochs. All trials have the same Dice, so that none is behind and pruned."""
        history, taken = [], []
        for epoch in range(1, self.epochs + 1):
            time.sleep(self.epoch_s)
            dice = epoch / (self.epochs + 1)
            history.append(
                EpochMetrics(epoch, 1 - dice, 1 - dice, dice, dice / 2, dice, dice, 1e-3, 50.0, self.epoch_s, 100.0, 4)
            )
            started = time.perf_counter()
            report(history[-1])
            taken.append(time.perf_counter() - started)
        (self.times / f"{uuid.uuid4().hex}.json").write_text(json.dumps(taken))
        return history


def bare_trial(config: dict[str, Any], fit: StandIn) -> None:
    """Do the same under Tune alone; a report has as many metrics as a study records of an epoch."""

    def report(metrics: EpochMetrics) -> None:
        system = {"cpu": 100.0, "memory": 1000.0}
        tune.report({**asdict(metrics), **system, "objective": metrics.dice})

    fit.run(report)
