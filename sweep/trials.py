"""The trials of a study under Ray Tune: three thin adapters that hand what Tune does to the book."""

import logging
import pickle
from functools import partial
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from sweep.book import Book
from sweep.failures import classify
from sweep.study import Study
from sweep.trial import Job, run_trial

__all__ = ["run_trials"]

logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # the book says which trials failed, and why


def run_trials(study: Study, job: Job, book: Book) -> None:
    """Run the trials that the study lacks, until the book has none left; each ends as the book says.

    Every attempt at a trial is a Tune trial of its own, so what Tune knows need not outlive it.
    """
    trainable = tune.with_resources(
        partial(run_trial, job=job), {"cpu": study.resources.cpu, "gpu": float(study.resources.gpu)}
    )
    tuner = tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=_Search(book),
            scheduler=_Scheduler(book),
            num_samples=-1,  # the book counts
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(job.results / "ray"),
            callbacks=[_Callback(book)],
            stop=_Stopper(book),
            verbose=0,
        ),
    )
    tuner.fit()


class _Search(Searcher):
    """Asks the book what to run, and tells it what has come to its end."""

    def __init__(self, book: Book) -> None:
        super().__init__()
        self.book = book

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return a configuration; None where one may come later, FINISHED where none will."""
        values = self.book.next(trial_id)
        return str(Searcher.FINISHED) if values is None and self.book.done else values

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell the book; errors reach it through the callback, which knows the reason."""
        if not error:
            self.book.ended(trial_id)

    def save(self, checkpoint_path: str) -> None:
        """Write nothing: the database holds all there is."""

    def restore(self, checkpoint_path: str) -> None:
        """Read nothing: Tune's snapshots are never restored."""


class _Scheduler(FIFOScheduler):
    """Stops the trials that the book gives up."""

    def __init__(self, book: Book) -> None:
        super().__init__()
        self.book = book

    def on_trial_result(self, controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Return whether the trial goes on."""
        return str(self.CONTINUE if self.book.result(trial.trial_id, result) else self.STOP)


class _Stopper(tune.Stopper):
    """Ends a search that must end while all that is left waits for machines."""

    def __init__(self, book: Book) -> None:
        self.book = book

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False  # the scheduler stops single trials

    def stop_all(self) -> bool:
        """Return whether the search ends now."""
        return self.book.idle


class _Callback(tune.Callback):
    """Tells the book of starts, failures and the passing of time."""

    def __init__(self, book: Book) -> None:
        self.book = book

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Note that an attempt has begun."""
        self.book.started(trial.trial_id)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Note that an attempt has failed, and why."""
        self.book.failed(trial.trial_id, classify(_exception(trial)))

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Note that Tune starts an attempt again by itself: its machine was taken away with a notice."""
        trial.config["attempt"] = self.book.recovered(trial.trial_id, "its machine was taken away")

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Look at the cluster, and add up what is spent."""
        self.book.tick()


def _exception(trial: Trial) -> BaseException:
    """Return what ended a Tune trial: the exception, or its text where it cannot be unpickled."""
    try:
        return pickle.loads(Path(trial.pickled_error_file).read_bytes())  # written by this very process
    except Exception:  # noqa: BLE001 - an exception's own constructor may raise anything
        return RuntimeError(Path(trial.error_file).read_text(encoding="utf-8") if trial.error_file else "")
