"""A trial as a Tune trainable: one configuration on one split, or on split after split."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any, Literal

from ray import tune

from sn7.checkpoint import require_whole
from sn7.config import TrainConfig
from sn7.errors import ModelInvalid
from sn7.folds import Split
from sn7.train import EpochMetrics, read_history, read_result, train
from sn7.training import CHECKPOINT
from sweep.fence import claim, newest, require_newest
from sweep.notice import Notice, Taken, own_notice
from sweep.stopping import StopFile, Stopped
from sweep.terms import fetch_prepared, require_met
from sweep.usage import Usage, keep_to_share, place

__all__ = [
    "Job",
    "Objective",
    "Urgent",
    "base_folder",
    "claim_unfinished",
    "past_epochs",
    "remove_damaged",
    "run_trial",
    "split_folder",
]

METRICS = ("dice", "iou", "precision", "recall")


@dataclass(frozen=True)
class Job:
    """What all trials of a study share."""

    results: Path
    prepared: str | Path
    base: TrainConfig
    splits: tuple[Split, ...]
    keep: Literal["best", "last"] = "best"
    """Epoch of the models; the last where they are judged out of fold."""
    train: Callable[..., Any] = train
    """What trains: sn7.train.train, or in benchmarks and tests what stands in for it, with its arguments."""

    @property
    def steps(self) -> int:
        """Epochs of a trial that trains to its end, over all splits."""
        return self.base.epochs * len(self.splits)

    def folder(self, trial: int, index: int) -> Path:
        """Return the folder of a trial's training on split `index`: that of its newest attempt."""
        return split_folder(self.results, trial, self.splits[index].name)


def base_folder(results: Path, trial: int, split: str) -> Path:
    """Return the folder of the first attempt at a training: results/<study>/trials/<trial>/<split>; see sweep.fence."""
    return results / "trials" / f"{trial:04d}" / split.replace(":", "-")


def split_folder(results: Path, trial: int, split: str) -> Path:
    """Return the folder of one training, which is that of its newest attempt."""
    return newest(base_folder(results, trial, split))


def claim_unfinished(base: Path, attempt: int) -> Path:
    """Return the folder of a training that has ended, or else a new one for this attempt at it; see claim."""
    there = newest(base)
    return there if (there / "result.json").exists() else claim(base, attempt)


class Objective:
    """The value of a trial so far: the best epoch's Dice, averaged over the splits begun.

    At the same step two trials have trained the same splits for the same number of epochs, so they compare.
    """

    def __init__(self) -> None:
        self.best: list[EpochMetrics] = []
        self.step, self.seconds = 0, 0.0

    def add(self, index: int, metrics: EpochMetrics) -> None:
        """Take in an epoch on split `index`."""
        self.step += 1
        self.seconds += metrics.seconds
        if index == len(self.best):
            self.best.append(metrics)
        elif metrics.dice > self.best[index].dice:
            self.best[index] = metrics

    def result(self) -> dict[str, Any]:
        """Return what is reported: the step, and from the first one on the value with its metrics."""
        if not self.best:
            return {"step": 0}
        means = {name: fmean(getattr(best, name) for best in self.best) for name in METRICS}
        return {
            "step": self.step,
            "objective": means["dice"],
            **means,
            "dice_std": pstdev(best.dice for best in self.best),
            "best_epoch": round(fmean(best.epoch for best in self.best)),
            "epochs_trained": self.step,
            "seconds": self.seconds,
        }


class Urgent:
    """What a training calls after each epoch but its last: is a checkpoint wanted at once?"""

    def __init__(self, stop: StopFile, notice: Notice | None = None) -> None:
        self.stop, self.notice = stop, notice
        self.stopping = self.taken = False
        """Whether the study was asked to stop, and whether the machine is being taken away."""
        self.kept = False
        """Whether the answer was yes, so that the epoch that the training reports next has a checkpoint."""

    def __call__(self) -> bool:
        """Return whether the study was asked to stop, or the machine may be taken away."""
        kind = self.notice.kind() if self.notice else ""
        self.stopping, self.taken = self.stop.requested(), kind == "taken"
        self.kept = self.stopping or bool(kind)
        return self.kept

    def leave(self) -> Stopped | Taken | None:
        """Return what ends the training at once, in the midst of an epoch, which may take many minutes.

        The study was asked to stop, or the machine is being taken away, within two minutes.
        """
        if self.stop.requested():
            return Stopped("the study was asked to stop")
        taken = self.notice is not None and self.notice.kind() == "taken"
        return Taken("its machine is being taken away") if taken else None


def run_trial(config: dict[str, Any], job: Job) -> None:
    """Train the configuration that Tune hands over, and report after each epoch.

    `config` holds the fields that vary, "trial", Optuna's number, and "attempt", that of this attempt. What an earlier
    one has trained is not trained again: the first report says where this one runs and from which step it goes on.
    """
    require_met()
    keep_to_share()
    fields = dict(config)
    number, attempt = fields.pop("trial"), fields.pop("attempt")
    objective, usage = Objective(), Usage()
    # All before anything is read: from here on no earlier attempt's writes are seen.
    folders = [claim_unfinished(base_folder(job.results, number, split.name), attempt) for split in job.splits]
    for folder in folders:
        remove_damaged(folder)
    past = tuple((index, metrics) for index, folder in enumerate(folders) for metrics in past_epochs(folder))
    for index, metrics in past:
        objective.add(index, metrics)
    tune.report({**objective.result(), "place": place(), "past": past})

    train_config = TrainConfig.from_dict(fields, base=job.base)
    urgent = Urgent(StopFile(job.results), own_notice())
    prepared = fetch_prepared(str(job.prepared), urgent.leave)
    for index, split in enumerate(job.splits):
        out = folders[index]
        if read_result(out) is not None:
            continue

        def report(metrics: EpochMetrics, index: int = index, out: Path = out) -> None:
            require_newest(out)
            objective.add(index, metrics)
            # Tune flattens dictionaries, so what belongs together travels as an object.
            system = tuple(usage.sample().items())
            safe = urgent.kept and metrics.epoch < job.base.epochs
            tune.report({**objective.result(), "split": index, "epoch": metrics, "system": system, "kept": safe})
            if safe and urgent.taken:
                raise Taken("its machine is being taken away")

        job.train(train_config, prepared, split, out, report, job.keep, resume=True, urgent=urgent, leave=urgent.leave)


def past_epochs(folder: Path) -> list[EpochMetrics]:
    """Return the epochs that a training has behind it. A damaged checkpoint is removed: the training begins anew."""
    try:
        return read_history(folder)
    except ModelInvalid:
        (folder / CHECKPOINT).unlink(missing_ok=True)
        return read_history(folder)


def remove_damaged(folder: Path) -> None:
    """Remove a checkpoint that is damaged, be it by a bit: the training begins anew. Reads all of it."""
    checkpoint = folder / CHECKPOINT
    try:
        if checkpoint.exists():
            require_whole(checkpoint)
    except ModelInvalid:
        checkpoint.unlink(missing_ok=True)
