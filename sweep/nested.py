"""Parameters that need no training, searched with Optuna on what models have left, nested over the folds.

One search a fold sees the other folds alone, and the fold is scored with what it found: that is what is reported. One
more sees all folds; its parameters are what is used, and its score on these very folds, which it has seen, stands
beside the other so that the optimism is visible. The searches begin with the same draws, which are evaluated once.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from threading import Event, Lock
from typing import Any, Generic, TypeVar

import optuna
from optuna.storages import JournalStorage
from tqdm import tqdm

from sweep.records import Records
from sweep.search import seed_of
from sweep.tables import table_text, write_table
from sweep.tuninglog import open_log

__all__ = ["Found", "Params", "Search", "Tuned", "record", "search_nested"]

Params = dict[str, Any]
Scores = tuple[float, ...]
Count = TypeVar("Count")
"""What parameters come to on one fold, such as `sn7.metrics.Counts`; `score` makes scores of those of several folds."""


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


@dataclass(frozen=True)
class Found:
    """What one search has found."""

    held_out: int | None
    """The fold that it did not see, or None."""
    params: Params
    """The best ones."""
    values: Scores
    """Their scores on the folds that it saw."""
    trials: tuple[tuple[Params, Scores], ...]
    """All that it tried."""
    span: tuple[int, int]
    """When it began and ended, ms since 1970."""


@dataclass(frozen=True)
class Tuned:
    """What all searches have found."""

    params: Params
    """Chosen on all folds: what to use."""
    optimistic: Scores
    """On all folds, with these very parameters."""
    nested: Scores
    """On all folds, each with parameters chosen on the others: what to report."""
    baseline: Scores
    """On all folds, each with its search's baseline."""
    found: tuple[Found, ...]
    """One search a fold, in order, then that on all."""
    by_fold: tuple[Scores, ...]
    """Of each fold alone, with parameters chosen on the others."""
    baseline_by_fold: tuple[Scores, ...]
    """Of each fold alone, with its search's baseline."""

    def to_json(self, scores: Sequence[str]) -> dict[str, Any]:
        """Return what summary.json has of it, with the names of the scores."""
        named = {what: dict(zip(scores, getattr(self, what), strict=True)) for what in ("nested", "optimistic")}
        return {
            "params": self.params,
            **named,
            "before": dict(zip(scores, self.baseline, strict=True)),
            "before_optimistic": dict(zip(scores, self.found[-1].trials[0][1], strict=True)),
            "by_fold": [dict(zip(scores, values, strict=True)) for values in self.by_fold],
            "before_by_fold": [dict(zip(scores, values, strict=True)) for values in self.baseline_by_fold],
            "params_by_fold": [found.params for found in self.found[:-1]],
            "tried": sum(len(found.trials) for found in self.found),
        }


def search_nested(search: Search[Count], folds: int, results: Path, stop: Callable[[], bool] = lambda: False) -> Tuned:
    """Search on all folds but each one, and on all; `folds` are at least two.

    Keeps what was tried in `results`/tuning.log, an Optuna journal, from where a search that was cut off goes on, and
    writes it to `results`/<name>.csv. Raises KeyboardInterrupt soon after `stop` returns True, ResultsConflict where
    tuning.log is damaged, and what `evaluate` raises.
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
                if stop():
                    raise KeyboardInterrupt
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
        errors = [error for future in running if (error := future.exception())]
    for error in sorted(errors, key=lambda error: isinstance(error, _Halted)):
        raise error
    found = tuple(future.result() for future in running)
    apart = [known(found[fold].params, fold) for fold in everything]
    baselines = [search.suggest(optuna.trial.FixedTrial(search.baseline(fold)), fold) for fold in everything]
    before = [known(baselines[fold], fold) for fold in everything]
    write_table(results / f"{search.name}.csv", [row for one in found for row in _rows(search.scores, one)])
    return Tuned(
        params=found[-1].params,
        optimistic=found[-1].values,
        nested=search.score(apart),
        baseline=search.score(before),
        found=found,
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


def record(name: str, scores: Sequence[str], tuned: Tuned, records: Records) -> None:
    """Write each search to a run of its own in MLflow: what it found, its scores there and on the fold held out."""
    for found in tuned.found:
        metrics = {f"seen_{score}": value for score, value in zip(scores, found.values, strict=True)}
        if found.held_out is not None:
            values = tuned.by_fold[found.held_out]
            metrics |= {f"held_out_{score}": value for score, value in zip(scores, values, strict=True)}
        else:
            for what, values in (("nested", tuned.nested), ("before", tuned.baseline)):
                metrics |= {f"{what}_{score}": value for score, value in zip(scores, values, strict=True)}
        tried = table_text(_rows(scores, found))
        records.search(name, found.held_out, found.span, _flat(found.params), metrics, tried)


def _rows(scores: Sequence[str], found: Found) -> list[dict[str, Any]]:
    """Return what a search tried, a row each."""
    return [
        {
            "held_out": "" if found.held_out is None else found.held_out,
            "number": number,
            **_flat(params),
            **dict(zip(scores, values, strict=True)),
            "chosen": params == found.params,
        }
        for number, (params, values) in enumerate(found.trials)
    ]


def _flat(params: Params) -> dict[str, Any]:
    """Return parameters with those of a table within named as table.name."""
    flat: dict[str, Any] = {}
    for name, value in params.items():
        inner = value if isinstance(value, dict) else None
        flat |= {name: value} if inner is None else {f"{name}.{key}": part for key, part in inner.items()}
    return flat
