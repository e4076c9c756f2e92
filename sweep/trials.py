"""The trials of a study under Ray Tune: search, early stopping, records and what people see, tied together."""

import time
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import ray
from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import ASHAScheduler

from sn7.errors import StudyInvalid
from sweep.board import Board
from sweep.records import Records
from sweep.search import ATTRIBUTES, NOTEBOOK, STATES, StudySearch, ended_trials, record_error
from sweep.study import Study
from sweep.trial import Job, run_trial, split_folder

__all__ = ["run_trials", "slots"]


def slots(study: Study) -> int:
    """Return how many trials run at once on the connected cluster.

    Raises StudyInvalid where not one fits: Tune would wait for ever.
    """
    there = ray.cluster_resources()
    wanted = {"CPU": float(study.resources.cpu), "GPU": study.resources.gpu}
    short = [name for name, amount in wanted.items() if amount > there.get(name, 0.0)]
    if short:
        raise StudyInvalid(
            "a trial wants "
            + " and ".join(f"{wanted[name]:g} {name}, of which there are {there.get(name, 0.0):g}" for name in short)
            + "; lower [resources] in the study file, or start a larger cluster."
        )
    return int(min(there.get(name, 0.0) // amount for name, amount in wanted.items() if amount))


class StudyCallback(tune.Callback):
    """Carries what happens to trials into the records and onto the board, from the driver alone."""

    def __init__(self, search: StudySearch, opened: optuna.Study, job: Job, records: Records, board: Board) -> None:
        self.search, self.opened, self.job = search, opened, job
        self.records, self.board = records, board

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Open the trial's run."""
        self._open(trial)

    def _open(self, trial: Trial) -> int:
        number = self.search.number(trial.trial_id)
        if number not in self.board.running:
            # Not as a TrainConfig: values that do not go together fail the trial, not the driver.
            config = {**self.job.base.to_dict(), **{k: v for k, v in trial.config.items() if k != "trial"}}
            notebook = self.opened.trials[number].user_attrs.get(NOTEBOOK, False)
            self.records.start(number, config, notebook)
            self.board.start(number)
        return number

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """Record an epoch."""
        number = self.search.number(trial.trial_id)
        metrics = dict(result["epoch_metrics"])
        epoch = metrics.pop("epoch")
        several = len(self.job.splits) > 1
        prefix = f"{result['split']}/" if several else ""
        self.records.epoch(number, epoch, {f"{prefix}{name}": value for name, value in metrics.items()})
        self.records.epoch(number, result["training_iteration"], {"objective": result["objective"]})
        where = f"{result['split'] + ' ' if several else ''}epoch {epoch}/{self.job.base.epochs}"
        self.board.epoch(number, where, result["objective"])

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Close the run of a trial that came to its end or was stopped."""
        self._end(self._open(trial), "")

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Close the run of a trial that raised, with its traceback; it may never have started."""
        path = trial.error_file
        self._end(self._open(trial), Path(path).read_text(encoding="utf-8") if path else "no traceback was left")

    def _end(self, number: int, error: str) -> None:
        ended = self.opened.trials[number]
        if not ended.state.is_finished():
            self.board.cut_off(number)
            return
        state = STATES[ended.state]
        if error:
            record_error(self.opened, number, error)
        summary = {name: ended.user_attrs[name] for name in ATTRIBUTES if name in ended.user_attrs}
        folders = [split_folder(self.job.results, number, split.name) for split in self.job.splits]
        histories = [path for folder in folders if (path := folder / "history.csv").exists()]
        self.records.end(number, state, summary, error, histories)
        self.board.end(number, state, self.job.steps - int(ended.user_attrs.get("epochs_trained", 0)))


def run_trials(study: Study, job: Job, opened: optuna.Study, records: Records, board: Board) -> bool:
    """Run the trials that the study still lacks; each ends in Optuna's database and in the records.

    Returns True when all have ended or `max_hours` are over, False after Ctrl-C.
    """
    missing = study.trials - len(ended_trials(opened))
    if missing <= 0:
        return True
    deadline = time.monotonic() + study.max_hours * 3600 if study.max_hours else None
    search = StudySearch(opened, study, job.steps, deadline)
    # ASHA ends a trial at max_t itself, before its code has finished: one step more than there are.
    scheduler = _Scheduler(
        {trial.number for trial in opened.trials if trial.user_attrs.get(NOTEBOOK)},
        metric="objective",
        mode="max",
        max_t=job.steps + 1,
        grace_period=study.grace,
        reduction_factor=3,
    )
    trainable = tune.with_resources(
        partial(run_trial, job=job), {"cpu": study.resources.cpu, "gpu": study.resources.gpu}
    )
    tuner = tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=search, scheduler=scheduler, num_samples=missing, max_concurrent_trials=slots(study)
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(job.results / "ray"),
            callbacks=[StudyCallback(search, opened, job, records, board)],
            stop=_Deadline(search),
            verbose=0,
        ),
    )
    tuner.fit()
    return search.over or len(ended_trials(opened)) >= study.trials


class _Scheduler(ASHAScheduler):
    """ASHA, but for the notebook recipe, which trains to its end: it is what every leaderboard is measured by.

    Its results count at the rungs like any other's.
    """

    def __init__(self, exempt: set[int], **options: Any) -> None:
        super().__init__(**options)
        self.exempt = exempt

    def on_trial_result(self, controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Return whether the trial goes on; one at its last step does, to finish its files."""
        decision = str(super().on_trial_result(controller, trial, result))
        at_its_end = result["training_iteration"] >= self._max_t - 1
        return self.CONTINUE if at_its_end or trial.config["trial"] in self.exempt else decision


class _Deadline(tune.Stopper):
    """Ends every trial at its next report once the search's deadline has passed, but for one at its last step."""

    def __init__(self, search: StudySearch) -> None:
        self.search = search

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return self.search.over and result["training_iteration"] < self.search.steps

    def stop_all(self) -> bool:
        return False
