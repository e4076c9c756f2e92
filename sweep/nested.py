"""Parameters that need no training, searched with Optuna on what models have left, nested over the folds.

One search a fold sees the other folds alone, and the fold is scored with what it found: that is what is reported. One
more sees all folds; its parameters are what is used, and its score on these very folds, which it has seen, stands
beside the other so that the optimism is visible. The searches begin with the same draws, which are evaluated once.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from threading import Event, Lock
from typing import Any, Generic

import optuna
from optuna.storages import JournalStorage
from tqdm import tqdm

from sweep.found import Count, Found, Params, Scores, Tuned, rows
from sweep.search import seed_of
from sweep.tables import write_table
from sweep.tuninglog import open_log

__all__ = ["Search", "search_nested"]


@dataclass(frozen=True)
class Search(Generic[Count]):
    """What is searched, on what, and how far."""

    name: str
    """Of the table, the runs in MLflow and the studies in Optuna's journal."""
    suggest: Callable[[optuna.trial.BaseTrial, int | None], Params]
    """From a trial, and the fold that the search does not see: what was fitted before must not have seen it either."""
    evaluate: Callable[[Params, int], Count]
    """Of parameters and a fold; called from several threads."""
    score: Callable[[Sequence[Count]], Scores]
    """One or several numbers, the higher the better. The first decides, the others where it is equal."""
    scores: tuple[str, ...]
    """Their names."""
    baseline: Callable[[int | None], Params]
    """What `suggest` is to draw at first, in the search that does not see a fold: what the gain is told against."""
    trials: int
    seed: int
    about: Mapping[str, Any]
    """All else that `evaluate` depends on, as JSON has it: an earlier start's evaluations hold for the same alone."""


def search_nested(
    search: Search[Count], folds: int, results: Path, beat: Callable[[], None] = lambda: None
) -> Tuned[Count]:
    """Search on all folds but each one, and on all; `folds` are at least two.

    Keeps what was tried in `results`/tuning.log, an Optuna journal, from where a search that was cut off goes on, and
    writes it to `results`/<name>.csv. Calls `beat` twice a second. Raises what that raises, soon after, and what
    `evaluate` raises; ResultsConflict where tuning.log is damaged.
    """
    known = _Known(search.evaluate)
    storage = open_log(results / "tuning.log")
    everything, failed = tuple(range(folds)), Event()

    def one(held_out: int | None) -> Found:
        seen = [fold for fold in everything if fold != held_out]
        try:
            opened = _open(storage, search, held_out)
            bar.update(min(len(_done(opened)), search.trials))
            for _ in _attempts(search, opened, known, seen, held_out):
                if failed.is_set():
                    raise _Halted
                bar.update()
            return _found(search, opened, held_out)
        except BaseException:
            failed.set()
            raise

    with (
        tqdm(total=(folds + 1) * search.trials, desc=search.name, unit="try", disable=None) as bar,
        ThreadPoolExecutor(folds + 1) as pool,  # evaluations take the time, and those may be anywhere
    ):
        running = [pool.submit(one, held_out) for held_out in (*everything, None)]
        try:
            beat()
            while wait(running, timeout=0.5).not_done:
                beat()
        except BaseException:
            failed.set()
            raise
        errors = [error for future in running if (error := future.exception())]
    for error in sorted(errors, key=lambda error: isinstance(error, _Halted)):
        raise error
    found = tuple(future.result() for future in running)
    apart = [known(found[fold].params, fold) for fold in everything]
    baselines = [search.suggest(optuna.trial.FixedTrial(search.baseline(fold)), fold) for fold in everything]
    before = [known(baselines[fold], fold) for fold in everything]
    write_table(results / f"{search.name}.csv", [row for one in found for row in rows(search.scores, one)])
    return Tuned(
        params=found[-1].params,
        optimistic=found[-1].values,
        nested=search.score(apart),
        baseline=search.score(before),
        found=found,
        counts=tuple(apart),
        baseline_counts=tuple(before),
        by_fold=tuple(search.score([count]) for count in apart),
        baseline_by_fold=tuple(search.score([count]) for count in before),
    )


class _Halted(Exception):
    """A search ends because another one has failed."""


class _Known(Generic[Count]):
    """Evaluates what was not evaluated before; several threads that ask for the same wait for one."""

    def __init__(self, evaluate: Callable[[Params, int], Count]) -> None:
        self._evaluate, self._lock = evaluate, Lock()
        self._results: dict[tuple[str, int], Future[Count]] = {}

    def __call__(self, params: Params, fold: int) -> Count:
        key = json.dumps(params, sort_keys=True), fold
        with self._lock:
            first = key not in self._results
            future = self._results.setdefault(key, Future())
        if first:
            try:
                future.set_result(self._evaluate(params, fold))
            except BaseException as error:  # noqa: BLE001 - raised below, and in every thread that waits
                future.set_exception(error)
        return future.result()


def _open(storage: JournalStorage, search: Search[Count], held_out: int | None) -> optuna.Study:
    text = json.dumps([search.about, search.baseline(held_out), search.seed], sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    opened = optuna.create_study(
        study_name=f"{search.name}-{digest}-{'all' if held_out is None else held_out}",
        storage=storage,
        directions=["maximize"] * len(search.scores),
        load_if_exists=True,
    )
    if not _done(opened):
        opened.enqueue_trial(search.baseline(held_out))
    return opened


def _done(opened: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    return opened.get_trials(deepcopy=False, states=[optuna.trial.TrialState.COMPLETE])


def _attempts(
    search: Search[Count], opened: optuna.Study, known: _Known[Count], folds: Sequence[int], held_out: int | None
) -> Iterator[None]:
    """Try what is missing, one after the other."""
    while len(_done(opened)) < search.trials:
        yield
        # Seeded by how many are known: a search that goes on draws what it has not tried, and as long as nothing is
        # known, all searches draw the same.
        opened.sampler = optuna.samplers.TPESampler(seed=seed_of(search.seed, len(_done(opened))))
        trial = opened.ask()
        params = search.suggest(trial, held_out)
        trial.set_user_attr("params", params)
        opened.tell(trial, search.score([known(params, fold) for fold in folds]))


def _found(search: Search[Count], opened: optuna.Study, held_out: int | None) -> Found:
    done = _done(opened)[: search.trials]
    tried = tuple((dict(trial.user_attrs["params"]), tuple(trial.values)) for trial in done)
    params, values = max(tried, key=lambda pair: pair[1])  # the first one of equals
    times = [time for trial in done for time in (trial.datetime_start, trial.datetime_complete) if time]
    return Found(held_out, params, values, tried, (_ms(min(times)), _ms(max(times))))


def _ms(time: datetime) -> int:
    return round(1000 * time.timestamp())
