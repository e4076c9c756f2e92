"""A trial as a Tune trainable: one configuration on one split, or on fold after fold."""

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any, Literal

from ray import tune

from sn7.config import TrainConfig
from sn7.folds import Split
from sn7.prepared import load_prepared
from sn7.train import EpochMetrics, train

__all__ = ["Job", "Objective", "run_trial", "split_folder"]


@dataclass(frozen=True)
class Job:
    """What all trials of a study share."""

    results: Path
    prepared: Path
    base: TrainConfig
    splits: tuple[Split, ...]
    keep: Literal["best", "last"] = "best"
    """Epoch of the models; the last where they are judged out of fold."""

    @property
    def steps(self) -> int:
        """Reports of a trial that trains to its end."""
        return self.base.epochs * len(self.splits)


def split_folder(results: Path, trial: int, split: str) -> Path:
    """Return the folder of one training: results/<study>/trials/<trial>/<split>."""
    return results / "trials" / f"{trial:04d}" / split.replace(":", "-")


class Objective:
    """The value of a trial so far: the best epoch's Dice, averaged over the splits begun.

    At the same step two trials have trained the same splits for the same number of epochs, so they compare.
    """

    def __init__(self, splits: tuple[Split, ...]) -> None:
        self.splits = splits
        self.best: list[EpochMetrics] = []
        self.started = time.monotonic()
        self.step = 0

    def add(self, index: int, metrics: EpochMetrics) -> dict[str, Any]:
        """Return the result to report after an epoch on split `index`."""
        self.step += 1
        if index == len(self.best):
            self.best.append(metrics)
        elif metrics.dice > self.best[index].dice:
            self.best[index] = metrics
        means = {
            name: fmean(getattr(best, name) for best in self.best) for name in ("dice", "iou", "precision", "recall")
        }
        return {
            "objective": means["dice"],
            **means,
            "dice_std": pstdev(best.dice for best in self.best),
            "best_epoch": round(fmean(best.epoch for best in self.best)),
            "epochs_trained": self.step,
            "seconds": time.monotonic() - self.started,
            "split": self.splits[index].name,
            "epoch_metrics": asdict(metrics),
        }


def run_trial(config: dict[str, Any], job: Job) -> None:
    """Train the configuration that Tune hands over, and report after each epoch.

    `config` holds the fields that vary and "trial", Optuna's number. A non-finite loss raises, so that the trial
    fails: Tune's schedulers would let NaN run on.
    """
    fields = dict(config)
    number = fields.pop("trial")
    train_config = TrainConfig.from_dict(fields, base=job.base)
    prepared = load_prepared(job.prepared)
    objective = Objective(job.splits)
    for index, split in enumerate(job.splits):

        def report(metrics: EpochMetrics, index: int = index) -> None:
            tune.report(objective.add(index, metrics))

        train(train_config, prepared, split, split_folder(job.results, number, split.name), report, job.keep)
