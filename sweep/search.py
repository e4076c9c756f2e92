"""The search: what to try next, out of an Optuna study in results/<study>/optuna.db.

The database is the one source of truth. Tune's own snapshots are never restored: a resumed sweep opens the
database, goes on with the trials that were cut off, and asks for those that are missing.
"""

import sqlite3
import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import RDBStorage
from optuna.storages._rdb.models import TrialIntermediateValueModel
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import insert

from sn7.errors import ResultsConflict, StudyInvalid
from sn7.files import read_json, write_json
from sweep.space import Space, notebook_point
from sweep.study import Study

__all__ = [
    "ATTRIBUTES",
    "NOTEBOOK",
    "STATES",
    "earlier_trials",
    "ended_trials",
    "next_trial",
    "open_optuna",
    "sampler",
    "seed_of",
    "set_waiting",
    "write_report",
]

STATES = {
    TrialState.COMPLETE: "COMPLETE",
    TrialState.PRUNED: "PRUNED",
    TrialState.FAIL: "FAILED",
    TrialState.WAITING: "PREEMPTED",
    TrialState.RUNNING: "RUNNING",
}
"""The words of the leaderboard and of MLflow for Optuna's states. What waits was cut off, or is the recipe's turn."""
ENDED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
NOTEBOOK = "notebook"
"""User attribute of the trial that is the notebook recipe."""
ATTRIBUTES = ("dice", "dice_std", "iou", "precision", "recall", "best_epoch", "epochs_trained", "seconds")
"""Metrics of a trial's last result that become user attributes."""
EARLIER = "earlier.json"
DRAWS = 50
"""Tries of TPE to find a configuration that is new, then of random ones; then what is left is counted through."""


def open_optuna(study: Study, folder: Path | None) -> optuna.Study:
    """Open, or make, the Optuna study in `folder`/optuna.db; in memory where `folder` is None.

    A new one has the notebook recipe queued as its first trial. Raises ResultsConflict where the database
    cannot be read.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = None
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        storage = _storage(folder / "optuna.db", f"restore it, or remove {folder}")
    opened = optuna.create_study(
        storage=storage,
        study_name=study.name,
        direction="maximize",
        load_if_exists=True,
        sampler=RandomSampler(seed=study.seed),  # never asked: next_trial draws
    )
    if not opened.get_trials(deepcopy=False):
        opened.enqueue_trial(notebook_point(study.space), user_attrs={NOTEBOOK: True})
    return opened


def _storage(path: Path, mend: str) -> RDBStorage:
    try:
        return RDBStorage(f"sqlite:///{path}", engine_kwargs={"creator": partial(_connect, path)})
    except Exception as error:  # sqlite3, sqlalchemy and alembic each raise their own
        raise ResultsConflict(f"{path} cannot be opened ({str(error).splitlines()[0]}); {mend}.") from error


def _connect(path: Path) -> sqlite3.Connection:
    """Open the database with a rollback journal that stays on the disk: emptied, where SQLite would delete it.

    As durable as SQLite's default, and half as dear: a report is one commit, and Tune's event loop waits for it.
    """
    connection = sqlite3.connect(path, timeout=60, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = PERSIST")
    return connection


def sampler(study: Study, trials: int) -> TPESampler:
    """Return the seeded TPE sampler for a study that has `trials` trials.

    The seed moves on with the trials, so that what is drawn depends on what is known, not on when the driver was
    started. A quarter of the trials, 3 to 10, is drawn at random before TPE has anything to model; `group` lets it
    model fields that exist only under a condition.
    """
    startup = max(3, min(10, study.trials // 4))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # of `group`, every time
        return TPESampler(seed=seed_of(study.seed, trials), n_startup_trials=startup, multivariate=True, group=True)


def seed_of(seed: int, known: int) -> int:
    """Return the seed of what is drawn when so many trials are known, which neighbouring seeds do not share."""
    return int(np.random.SeedSequence([seed, known]).generate_state(1)[0])


def ended_trials(opened: optuna.Study) -> list[FrozenTrial]:
    """Return the trials that have ended for good: COMPLETE, PRUNED and FAILED."""
    return opened.get_trials(deepcopy=False, states=ENDED)


def next_trial(opened: optuna.Study, study: Study, earlier: Sequence[FrozenTrial] = ()) -> optuna.Trial | None:
    """Return the trial to run next, RUNNING: one that waits, else a new configuration; None where none is left.

    No configuration is tried twice. `earlier` trials, of another study, inform the choice and are not counted.
    """
    if not opened.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
        values = _draw(opened, study, earlier)
        if values is None:
            return None
        opened.enqueue_trial(values)
    trial = opened.ask()
    study.space.draw(trial)  # binds the values that wait
    return trial


def _draw(opened: optuna.Study, study: Study, earlier: Sequence[FrozenTrial]) -> dict[str, Any] | None:
    """Return values that no trial has, drawn in a copy of the study in memory, or None where there are none left.

    In a copy, because each draw that is thrown away would be a trial.
    """
    known = opened.get_trials(deepcopy=False)
    if study.start and len(known) == 1:  # after the notebook recipe
        return study.start_point
    tried = {_key(trial.params) for trial in known}
    space = study.space
    if space.size is not None and len(tried) >= space.size:
        return None
    models: list[BaseSampler] = [sampler(study, len(known)), RandomSampler(seed=seed_of(study.seed, len(known)))]
    for model in models:
        copy = optuna.create_study(direction="maximize", sampler=model)
        copy.add_trials([*earlier, *known])
        values = _new_values(copy, space, tried)
        if values is not None:
            return values
    return next((values for values in space.configurations() if _key(values) not in tried), None)


def _new_values(copy: optuna.Study, space: Space, tried: set[Any]) -> dict[str, Any] | None:
    for _ in range(DRAWS):
        trial = copy.ask()
        values = space.draw(trial)
        if _key(values) not in tried:
            return values
        copy.tell(trial, state=TrialState.FAIL)
    return None


def _key(values: dict[str, Any]) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted(values.items()))


def set_waiting(opened: optuna.Study, trial: FrozenTrial | optuna.Trial) -> None:
    """Put a trial that was cut off back into the queue, with its number, values and reports."""
    # Optuna has no public way back from RUNNING; a new trial with the same values would count, and be recorded, twice.
    opened._storage.set_trial_state_values(trial._trial_id, state=TrialState.WAITING)


def write_report(opened: optuna.Study, trial: optuna.Trial, value: float, step: int) -> None:
    """Write what a running trial has reached at a step that it has not reported yet; `opened` is in a database.

    As Trial.report does, which reads the trial and the step first: three statements and 1.2 ms of a processor, where
    this takes one and 0.4. The driver does it for each epoch of each trial.
    """
    row = TrialIntermediateValueModel
    stored, kind = row.intermediate_value_to_stored_repr(value)
    values = {"step": step, "intermediate_value": stored, "intermediate_value_type": kind}
    with opened._storage._backend.engine.begin() as connection:  # type: ignore[attr-defined]
        connection.execute(insert(row), {"trial_id": trial._trial_id, **values})


def earlier_trials(study: Study, results: Path | None) -> tuple[list[FrozenTrial], list[str]]:
    """Return the COMPLETE and PRUNED trials of the study named by `warm_start`, and why others were left out.

    They are kept in results/<study>/earlier.json when the study begins, which no longer needs the earlier one then.
    Raises StudyInvalid where there is no such database, or nothing in it is of this search space, and ResultsConflict
    where earlier.json is damaged.
    """
    if not study.warm_start:
        return [], []
    kept = results / EARLIER if results else None
    if kept and kept.exists():
        try:
            content = read_json(kept)
            if content["of"] == study.warm_start:
                return [_trial(entry, study) for entry in content["trials"]], content["left_out"]
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise ResultsConflict(
                f"{kept} cannot be read ({error}); remove it, and {study.warm_start} is read again."
            ) from error
    entries, left_out = [], []
    for name, trial in _all_trials(study):
        reason = _unfit(trial, study)
        if reason:
            left_out.append(f"trial {trial.number} of {name}: {reason}")
        else:
            values = {str(step): value for step, value in trial.intermediate_values.items()}
            entries.append({"state": trial.state.name, "params": trial.params, "value": trial.value, "values": values})
    if not entries:
        raise StudyInvalid(
            f"study.warm_start = {study.warm_start} has no trial to learn from ({'; '.join(left_out[:3]) or 'empty'}); "
            "wanted COMPLETE or PRUNED ones of the same [search]."
        )
    if kept:
        write_json(kept, {"of": study.warm_start, "trials": entries, "left_out": left_out})
    return [_trial(entry, study) for entry in entries], left_out


def _all_trials(study: Study) -> Iterator[tuple[str, FrozenTrial]]:
    """Yield the trials of an earlier database with the names of their studies."""
    place = Path(study.warm_start)
    path = place / "optuna.db" if place.is_dir() else place
    if not path.is_file():
        raise StudyInvalid(
            f"study.warm_start = {study.warm_start!r} holds no optuna.db; wanted the results folder of an earlier "
            "study, as seen from the current directory."
        )
    storage = _storage(path, "give another study.warm_start")
    for name in optuna.get_all_study_names(storage):
        for trial in optuna.load_study(study_name=name, storage=storage).get_trials(deepcopy=False):
            yield name, trial


def _trial(entry: Mapping[str, Any], study: Study) -> FrozenTrial:
    """Return an earlier trial with this study's ranges in place of its own: TPE would draw from either."""
    return optuna.trial.create_trial(
        state=TrialState[entry["state"]],
        params=entry["params"],
        distributions=study.space.distributions(entry["params"]),
        value=entry["value"],
        intermediate_values={int(step): value for step, value in entry["values"].items()},
    )


def _unfit(trial: FrozenTrial, study: Study) -> str:
    if trial.state not in (TrialState.COMPLETE, TrialState.PRUNED):
        return f"it is {STATES[trial.state]}"
    return study.space.reason_outside(trial.params)
