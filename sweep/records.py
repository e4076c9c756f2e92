"""MLflow's words for what happens in a study: a run for it, each trial, and each fold and repeat of a trial.

Nothing here waits for a server: records go into the journal, and the delivery carries them on.
"""

import hashlib
import math
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sn7.errors import ResultsConflict, TrackingUnavailable
from sweep.delivery import REFUSED, Delivery
from sweep.fence import training
from sweep.journal import JOURNAL, Journal, Run, now_ms, read_header, read_lines
from sweep.server import check_address, connect

__all__ = ["Records", "Synced", "default_tracking_uri", "open_records", "sync"]

ENDINGS = {
    "COMPLETE": "FINISHED",
    "PRUNED": "KILLED",
    "FAILED": "FAILED",
    "PREEMPTED": "KILLED",
    "INTERRUPTED": "KILLED",
}
"""MLflow's run states for our words; the word itself is the tag `state`."""
STUDY = Run("study")
WHOLE = ("best_epoch", "epochs_trained", "seconds", "ceiling_dice")
"""Of a trial's summary, what is no metric of its best epoch."""


def default_tracking_uri(results_root: Path) -> str:
    """Return the embedded store that all studies under a results folder share."""
    return f"sqlite:///{results_root.resolve() / 'mlflow.db'}"


@dataclass(frozen=True)
class Synced:
    """What `sync` did: records delivered, refused for good (they are in refused.jsonl), and still waiting."""

    delivered: int
    refused: int
    waiting: int

    def __str__(self) -> str:
        refused = f"refused for good {self.refused} (see {REFUSED})" if self.refused else "refused none"
        return f"records delivered to MLflow: {self.delivered}, {refused}, still waiting {self.waiting}"


class Records:
    """The records of one study; every method appends to the journal and returns at once.

    Methods raise OSError where the disk does not take the journal, and KeyError for a state that is none of
    COMPLETE, PRUNED, FAILED, PREEMPTED, INTERRUPTED.
    """

    def __init__(self, journal: Journal, delivery: Delivery | None = None) -> None:
        self.journal, self.delivery = journal, delivery

    def describe(self, tags: Mapping[str, str]) -> None:
        """Write tags of the study: unlike params, they may change when it is resumed."""
        self._log(STUDY, tags=tags)

    def measure(self, metrics: Mapping[str, float]) -> None:
        """Write metrics of the study, where they are not what they were."""
        self._log(STUDY, metrics=self.journal.changed(STUDY, metrics))

    def files(self, paths: Sequence[Path], folder: str | None = None) -> None:
        """Copy files to the study's artefacts; they are read when they are delivered."""
        for path in paths:
            self._file(STUDY, path, folder)

    def register(self, ensemble: Path, description: str, tags: Mapping[str, str] | None = None) -> None:
        """Register the ensemble under the study's name with the alias `champion`.

        It is a pyfunc: RGB uint8 (n, height, width, 3) → probs float32 (n, height, width). Description and tags are
        the version's notes.
        """
        content = (ensemble / "ensemble.json").read_bytes()
        record = {
            "id": hashlib.sha256(content).hexdigest()[:32],  # the same ensemble is one version, however often told
            "description": description,
            "tags": _texts(tags or {}),
        }
        self.journal.append("register", STUDY, None, path=self._path(ensemble), **record)

    def start(self, trial: int, config: Mapping[str, Any], tags: Mapping[str, str] | None = None) -> None:
        """Open the run of a trial with its configuration as params; open it again where it was cut off."""
        run = Run("trial", trial)
        self._log(run, params=config, tags={**(tags or {}), "state": "RUNNING"})
        self.journal.append("status", run, status="RUNNING")

    def tag(self, trial: int, tags: Mapping[str, str]) -> None:
        """Write tags of a trial."""
        self._log(Run("trial", trial), tags=tags)

    def state(self, trial: int) -> str:
        """Return the state of a trial as the records have it, or nothing where they do not know it."""
        return self.journal.states.get(Run("trial", trial), "")

    @property
    def study_state(self) -> str:
        """The state that the study's run was last closed with, or nothing."""
        return self.journal.states.get(STUDY, "")

    def epoch(self, trial: int, step: int, metrics: Mapping[str, float]) -> None:
        """Write one epoch of a trial, but for metrics that the journal has at this step or a later one."""
        self._epoch(Run("trial", trial), step, metrics)

    def fold_epoch(self, trial: int, fold: int, step: int, metrics: Mapping[str, float]) -> None:
        """Write one epoch of a trial's fold, as `epoch` does; the first word of a fold says that it began so long ago.

        `metrics["seconds"]` is what the epoch took.
        """
        run = Run("fold", trial, fold)
        self._begin(run, now_ms() - round(1000 * metrics.get("seconds", 0)))
        self._epoch(run, step, metrics)

    def fold_begins(self, trial: int, fold: int) -> None:
        """Open the run of a trial's fold, whose training begins now, where it is not open."""
        self._begin(Run("fold", trial, fold), now_ms())

    def repeat_begins(self, trial: int, seed: int) -> None:
        """Open the run of a trial's configuration with another seed, as `fold_begins` does."""
        self._begin(Run("repeat", trial, seed), now_ms())

    def end(
        self, trial: int, state: str, summary: Mapping[str, float], error: str = "", files: Sequence[Path] = ()
    ) -> None:
        """Close the run of a trial: its summary (`best_dice` …), its files by folder, the error of a failed one.

        Runs of its folds that are still open are closed with it.
        """
        run = Run("trial", trial)
        best = {name if name in WHOLE else f"best_{name}": value for name, value in summary.items()}
        if error:
            self.journal.append("text", run, name="error.txt", text=error)
        for child in [child for child in self.journal.open if child.parent == run]:
            self._close(child, state, {}, [])
        self._close(run, state, best, [(path, training(path.parent).name) for path in files])

    def model(self, trial: int, folder: Path) -> None:
        """Copy a model folder to the artefacts of a trial, as `model`."""
        self._file(Run("trial", trial), folder, "model")

    def fold(
        self,
        trial: int,
        fold: int,
        state: str,
        metrics: Mapping[str, float],
        files: Sequence[Path],
        over: bool = False,
    ) -> None:
        """Write one fold of the cross-validation and close its run, below its trial's.

        It ends now, or with its last epoch where it was `over` before its trial was.
        """
        run = Run("fold", trial, fold)
        ended = self.journal.measured.get(run) if over else None
        self._close(run, state, metrics, [(path, None) for path in files], ended)

    def repeat(self, trial: int, seed: int, state: str, metrics: Mapping[str, float], files: Sequence[Path]) -> None:
        """Write one training of a trial's configuration with another seed and close its run, below its trial's."""
        self._close(Run("repeat", trial, seed), state, metrics, [(path, training(path.parent).name) for path in files])

    def search(
        self,
        name: str,
        held_out: int | None,
        span: tuple[int, int],
        best: Mapping[str, Any],
        metrics: Mapping[str, float],
        tried: str,
    ) -> None:
        """Write a search for parameters that need no training and close its run, below the study's.

        It began and ended at the times of `span`, ms. `best` are the parameters that it found, as tags: a study that
        goes on may find others, and params cannot be changed; those that an earlier start found and this one has not
        are blank then. `tried` is the text of a table of all that it tried.
        """
        run = Run(name, part=-1 if held_out is None else held_out)
        self._begin(run, span[0])
        before = [name for name in self.journal.tags.get(run, ()) if name.startswith("best.")]
        self._log(run, tags=dict.fromkeys(before, "") | {f"best.{key}": value for key, value in best.items()})
        self.journal.append("text", run, name="tried.csv", text=tried)
        self._close(run, "COMPLETE", metrics, [], span[1])

    def close(self, state: str, wait_s: float = 30.0) -> int:
        """End the study's run, and return how many records the server does not have yet.

        Runs that are still open, such as folds that were cut off, are PREEMPTED. Waits while the delivery makes
        progress: at most `wait_s` without, at most 2 s where the server is away.
        """
        for run in self.journal.open - {STUDY}:
            self._close(run, "PREEMPTED", {}, [])
        self._close(STUDY, state, {}, [])
        waiting = self.journal.lines
        if self.delivery:
            waiting = self.delivery.wait(wait_s)
            self.delivery.stop()
            if self.delivery.refused:
                place = self.journal.results / REFUSED
                print(f"MLflow refused {self.delivery.refused} records; see {place}", file=sys.stderr)
        self.journal.close()
        return waiting

    def _epoch(self, run: Run, step: int, metrics: Mapping[str, float]) -> None:
        self._log(run, metrics=self.journal.later(run, step, metrics), step=step)

    def _begin(self, run: Run, at: int) -> None:
        """Open a run that is not open, and was not closed as COMPLETE, with this start (ms)."""
        if run not in self.journal.open and self.journal.states.get(run) != "COMPLETE":
            self.journal.append("log", run, at, tags={"state": "RUNNING"})
            self.journal.append("status", run, at, status="RUNNING")

    def _close(
        self,
        run: Run,
        state: str,
        metrics: Mapping[str, float],
        files: Sequence[tuple[Path, str | None]],
        at: int | None = None,
    ) -> None:
        """Write what a run ends with, at the step that it came to: MLflow shows the value of the highest step.

        It ends now, or at this time (ms); what is told again of one that was COMPLETE and is not open again does not
        move its end.
        """
        status = ENDINGS[state]
        if run not in self.journal.open and self.journal.states.get(run) == state == "COMPLETE":
            at = self.journal.ends[run]
        step = max((self.journal.last_step(run, name) for name in metrics), default=0)
        self._log(run, metrics=self.journal.changed(run, metrics), tags={"state": state}, step=step)
        for path, folder in files:
            self._file(run, path, folder)
        self.journal.append("status", run, at, status=status)

    def _log(
        self,
        run: Run,
        metrics: Mapping[str, float] | None = None,
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
        step: int = 0,
    ) -> None:
        content = {"metrics": _numbers(metrics or {}), "params": _texts(params or {}), "tags": _texts(tags or {})}
        content = {kind: values for kind, values in content.items() if values}
        if content:
            self.journal.append("log", run, None, **content, **({"step": step} if step else {}))

    def _file(self, run: Run, path: Path, folder: str | None) -> None:
        self.journal.append("file", run, path=self._path(path), folder=folder)

    def _path(self, path: Path) -> str:
        """Return a path as the journal has it: relative inside the study's folder, which may be moved."""
        path, place = path.resolve(), self.journal.results.resolve()
        return str(path.relative_to(place) if path.is_relative_to(place) else path)


def _numbers(metrics: Mapping[str, float]) -> dict[str, float | str]:
    """Return metrics as JSON has them, where what is not finite is a text."""
    return {name: float(value) if math.isfinite(value) else str(float(value)) for name, value in metrics.items()}


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in values.items()}


def open_records(
    tracking_uri: str, results_root: Path, results: Path, study: str, identity: str, resumed: bool
) -> Records:
    """Open the journal in the study's folder `results` and begin to deliver it.

    Raises TrackingUnavailable, before anything is written, where the server does not answer, does not let us in, or
    cannot be what the address says; for a resumed study that has a journal, a server that is away is a warning.
    Raises ResultsConflict where the journal is of another study, or another process delivers it.
    """
    check_address(tracking_uri)
    reach = partial(connect, tracking_uri, study, identity, results_root / "mlartifacts" / study)
    server = None
    try:
        server = reach()
    except TrackingUnavailable as error:
        if not (resumed and (results / JOURNAL).exists()):
            raise
        print(f"warning: {error} The study goes on, and its records wait for it.", file=sys.stderr)
    journal = Journal(results, study, identity)
    try:
        delivery = Delivery(results, tracking_uri, reach, lambda: journal.lines, journal.added)
    except BaseException:
        journal.close()
        raise
    delivery.server, delivery.away = server, server is None
    journal.append("status", STUDY, status="RUNNING")
    delivery.start()
    return Records(journal, delivery)


def sync(tracking_uri: str, results_root: Path, results: Path, study: str, wait_s: float = 30.0) -> Synced:
    """Deliver what a server lacks of a study's journal, while nobody works in the study's folder.

    Gives up after `wait_s` without progress. Raises ResultsConflict where there is no journal, it is of another
    study, or another process delivers it, and TrackingUnavailable where the server cannot be used.
    """
    header = read_header(results)
    if header["study"] != study:
        raise ResultsConflict(
            f"{results / JOURNAL} is of study {header['study']}, not {study}; give that study's file."
        )
    reach = partial(connect, tracking_uri, study, header["identity"], results_root / "mlartifacts" / study)
    server = reach()
    lines = sum(1 for _ in read_lines(results / JOURNAL))
    delivery = Delivery(results, tracking_uri, reach, lambda: lines, threading.Event())
    delivery.server = server
    before = delivery.delivered
    delivery.start()
    waiting = delivery.wait(wait_s)
    delivery.stop()
    return Synced(lines - waiting - before - delivery.refused, delivery.refused, waiting)
