"""How a trial's end is written down: its runs are closed, its files tidied, and a dead driver's trials put in order."""

from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, TrialState

from sn7.errors import ModelInvalid
from sn7.train import SHOWN, read_result
from sweep.fence import remove_older
from sweep.records import Records
from sweep.search import ATTRIBUTES, STATES, set_waiting
from sweep.trial import Job, base_folder, past_epochs

__all__ = ["ERROR", "FAILURES", "PREEMPTED", "RUNG", "mend", "next_attempt", "record_end", "tidy", "worth"]

RUNG, PREEMPTED, FAILURES, ERROR = "rung", "preempted", "failures", "error"
"""User attributes: the last rung passed, attempts lost for no fault of the trial's, failed ones, the last reason."""


def next_attempt(trial: optuna.Trial) -> int:
    """Return the number of a trial's next attempt, from 1: higher than all before, in whichever start of the driver.

    Each attempt that has ended without a result is counted before its trial waits for another one.
    """
    return 1 + int(trial.user_attrs.get(PREEMPTED, 0)) + int(trial.user_attrs.get(FAILURES, 0))


def record_end(records: Records, job: Job, trial: FrozenTrial, error: str = "") -> None:
    """Close the run of a trial that the database knows as ended, and those of its folds."""
    state = STATES[trial.state]
    summary = {name: trial.user_attrs[name] for name in ATTRIBUTES if name in trial.user_attrs}
    if len(job.splits) == 1:
        summary |= worth(job.folder(trial.number, 0))
    folders = [job.folder(trial.number, index) for index in range(len(job.splits))]
    files = [path for folder in folders for name in SHOWN if (path := folder / name).exists()]
    if len(job.splits) > 1:
        for index, folder in enumerate(folders):
            _record_fold(records, trial.number, index, folder, state)
        files = []
    records.end(trial.number, state, summary, error, files)


def _record_fold(records: Records, trial: int, index: int, folder: Path, state: str) -> None:
    history = past_epochs(folder)
    if history:
        best = max(history, key=lambda metrics: metrics.dice)
        files = [path for name in SHOWN if (path := folder / name).exists()]
        fold_state = "COMPLETE" if (folder / "result.json").exists() else state
        metrics = {"dice": best.dice, "iou": best.iou, **worth(folder)}
        records.fold(trial, index, fold_state, metrics, files, over=True)


def worth(folder: Path) -> dict[str, float]:
    """Return what the model of a training is worth on its validation scenes; nothing where it has not ended."""
    try:
        result = read_result(folder)
    except ModelInvalid:
        return {}
    return result.evaluation.metrics() if result else {}


def tidy(job: Job, trial: FrozenTrial) -> None:
    """Remove what an ended trial does not need: its checkpoint, and the weights of one that was not finished."""
    for index in range(len(job.splits)):
        remove_older(base_folder(job.results, trial.number, job.splits[index].name))
        folder = job.folder(trial.number, index)
        (folder / "checkpoint.pt").unlink(missing_ok=True)
        if trial.state != TrialState.COMPLETE:
            for path in (folder / "model").glob("*"):
                path.unlink()


def mend(opened: optuna.Study, records: Records, job: Job) -> int:
    """Bring a study that was left by a dead driver up to date; return how many trials it had cut off.

    What is RUNNING there becomes PREEMPTED, here and in the records; an end that the records have missed is written.
    """
    running = opened.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    for trial in running:
        opened._storage.set_trial_user_attr(trial._trial_id, PREEMPTED, trial.user_attrs.get(PREEMPTED, 0) + 1)
        set_waiting(opened, trial)
    for trial in opened.get_trials(deepcopy=False):
        if trial.state.is_finished():
            if records.state(trial.number) != STATES[trial.state]:
                record_end(records, job, trial)
            tidy(job, trial)
        elif trial.datetime_start is not None and records.state(trial.number) != "PREEMPTED":
            records.end(trial.number, "PREEMPTED", {})
    return len(running)
