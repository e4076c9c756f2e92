"""The search: an Optuna study in results/<study>/optuna.db, asked and told through Ray Tune's OptunaSearch.

The database is the one source of truth: Tune's own snapshots are never restored. A resumed sweep opens the
database, marks what was cut off, and asks for the trials that are missing.
"""

import logging
import time
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from sn7.errors import ResultsConflict
from sweep.space import notebook_point
from sweep.study import Study

__all__ = [
    "ATTRIBUTES",
    "NOTEBOOK",
    "STATES",
    "StudySearch",
    "end_interrupted",
    "ended_trials",
    "errors",
    "open_optuna",
    "record_error",
]

STATES = {
    TrialState.COMPLETE: "COMPLETE",
    TrialState.PRUNED: "PRUNED",
    TrialState.FAIL: "FAILED",
    TrialState.RUNNING: "RUNNING",
    TrialState.WAITING: "WAITING",
}
"""The words of the leaderboard and of MLflow for Optuna's states."""
ENDED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
NOTEBOOK = "notebook"
"""User attribute of the trial that is the notebook recipe."""
ERROR = "error"
ATTRIBUTES = ("dice", "dice_std", "iou", "precision", "recall", "best_epoch", "epochs_trained", "seconds")
"""Metrics of a trial's last result that become user attributes."""
INTERRUPTED = "interrupted"
"""User attribute of a trial that was cut off; another one took its configuration over."""


def open_optuna(study: Study, folder: Path | None) -> optuna.Study:
    """Open, or make, the Optuna study in `folder`/optuna.db; in memory where `folder` is None.

    A new one has the notebook recipe queued as its first trial. Raises ResultsConflict where the database
    cannot be read.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = None
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "optuna.db"
        try:
            storage = RDBStorage(f"sqlite:///{path}", engine_kwargs={"connect_args": {"timeout": 60}})
        except Exception as error:  # sqlite3, sqlalchemy and alembic each raise their own
            raise ResultsConflict(
                f"{path} cannot be opened ({str(error).splitlines()[0]}); restore it, or remove {folder}."
            ) from error
    opened = optuna.create_study(
        storage=storage,
        study_name=study.name,
        direction="maximize",
        load_if_exists=True,
        sampler=sampler(study, 0),
    )
    if not opened.get_trials(deepcopy=False):
        opened.enqueue_trial(notebook_point(study.space), user_attrs={NOTEBOOK: True})
    opened.sampler = sampler(study, len(opened.get_trials(deepcopy=False)))
    return opened


def sampler(study: Study, trials: int) -> optuna.samplers.BaseSampler:
    """Return the seeded TPE sampler for a study that has `trials` trials.

    The seed moves on with the trials, since a resumed study would else draw its first random ones again. A
    quarter of the trials, 3 to 10, is drawn at random before TPE has anything to model.
    """
    return optuna.samplers.TPESampler(seed=study.seed + trials, n_startup_trials=max(3, min(10, study.trials // 4)))


def ended_trials(opened: optuna.Study) -> list[FrozenTrial]:
    """Return the trials that count: ended, and not merely cut off."""
    trials = opened.get_trials(deepcopy=False, states=ENDED)
    return [trial for trial in trials if not trial.user_attrs.get(INTERRUPTED)]


def record_error(opened: optuna.Study, trial: int, traceback: str) -> None:
    """Keep the last line of a failed trial's traceback.

    It comes after Tune has told the search that the trial ended, when Optuna's trial can take no attribute any
    more: so it is the study's.
    """
    lines = [line for line in traceback.splitlines() if line.strip()]
    opened.set_user_attr(f"{ERROR} {trial}", lines[-1] if lines else "no reason was left")


def errors(opened: optuna.Study) -> dict[int, str]:
    """Return the reason of each failed trial, by its number."""
    return {int(name.split()[1]): str(reason) for name, reason in opened.user_attrs.items() if name.startswith(ERROR)}


def end_interrupted(opened: optuna.Study) -> list[int]:
    """Mark the trials that a killed sweep left RUNNING, queue their configurations again, return their numbers."""
    running = opened.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    for trial in running:
        opened._storage.set_trial_user_attr(trial._trial_id, INTERRUPTED, True)
        again = {NOTEBOOK: True} if trial.user_attrs.get(NOTEBOOK) else None
        opened.enqueue_trial(trial.params, user_attrs=again)
        opened.tell(trial.number, state=TrialState.FAIL)
    return [trial.number for trial in running]


class StudySearch(OptunaSearch):
    """OptunaSearch with honest endings.

    A trial that trained to its end is COMPLETE, one that was stopped before is PRUNED, one that raised is FAIL; the
    metrics of its last result become user attributes. From `deadline` (time.monotonic) on nothing is suggested, and
    a trial that is stopped before its end stays RUNNING: cut off, not judged, it is left to `end_interrupted`.
    """

    def __init__(self, opened: optuna.Study, study: Study, steps: int, deadline: float | None) -> None:
        super().__init__(space=None, metric="objective", mode="max")
        self._space, self._ot_study = study.space, opened
        self.steps, self.deadline = steps, deadline
        self.reported: dict[str, int] = {}

    @property
    def over(self) -> bool:
        """Whether the deadline has passed."""
        return self.deadline is not None and time.monotonic() > self.deadline

    def number(self, trial_id: str) -> int:
        """Return Optuna's number of a Tune trial."""
        return int(self._ot_trials[trial_id].number)

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return the fields that vary and the trial's number, or FINISHED after the deadline."""
        if self.over:
            return str(Searcher.FINISHED)
        values = super().suggest(trial_id)
        return None if values is None else {**values, "trial": self.number(trial_id)}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Report the objective so far to Optuna. Tune does not call this for the result that stops a trial."""
        step = result["training_iteration"]
        if self.reported.get(trial_id) != step:
            self._ot_trials[trial_id].report(result["objective"], step)
            self.reported[trial_id] = step

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell Optuna how the trial ended; `result` is its last one, where there is one."""
        trial = self._ot_trials[trial_id]
        if error or not result:
            self._ot_study.tell(trial, state=TrialState.FAIL)
            return
        self.on_trial_result(trial_id, result)
        for name in ATTRIBUTES:
            if name in result:
                trial.set_user_attr(name, result[name])
        if result["training_iteration"] >= self.steps:
            self._ot_study.tell(trial, result["objective"])
        elif not self.over:
            self._ot_study.tell(trial, state=TrialState.PRUNED)

    def save(self, checkpoint_path: str) -> None:
        """Write nothing: the database holds all there is."""
        Path(checkpoint_path).touch()


logging.getLogger("ray.tune.search.optuna").setLevel(logging.ERROR)
