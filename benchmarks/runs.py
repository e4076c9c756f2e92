"""Studies of trials that only sleep: what the sweep, a bare Tuner, and the stock MLflow callback take beside it."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.air.integrations.mlflow import MLflowLoggerCallback
from standin import StandIn, bare_trial

from sn7.folds import Split
from sn7.prepared import save_index
from sweep.board import Board
from sweep.book import Book
from sweep.budget import Budget
from sweep.cluster import capacity
from sweep.journal import Journal
from sweep.records import Records, open_records
from sweep.search import ended_trials, open_optuna
from sweep.study import Resources, Study
from sweep.trial import Job
from sweep.trials import run_trials

__all__ = ["Bench", "Run", "mlflow_server"]

SPLIT = Split("random:0", ("one",), ("other",))
SEARCH = {"lr_max": {"loguniform": [1e-4, 1e-2]}, "building_weight": {"uniform": [0.5, 0.9]}}


@dataclass
class Run:
    """What one run of trials took, in seconds."""

    wall: float = 0.0
    cpu: float = 0.0
    """Of this process, with all its threads: it depends less on what else the machine does."""
    beyond: float = 0.0
    """Of the wall clock, a trial, beyond what its sleeping takes."""
    reports: list[float] = field(default_factory=list)
    """Of each report in the worker: until the trial went on."""
    loop: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """Of each call from Tune's event loop, by what was called."""
    steady: list[float] = field(default_factory=list)
    """What `cpu` counts, at each report that came while all trials were training."""

    @contextmanager
    def clock(self, name: str) -> Iterator[None]:
        """Time a call."""
        started = time.perf_counter()
        yield
        self.loop[name].append(time.perf_counter() - started)

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Time the run itself."""
        started, cpu = time.perf_counter(), time.process_time()
        yield
        self.wall, self.cpu = time.perf_counter() - started, time.process_time() - cpu


class TimedBook(Book):
    """The book of a study, with the time that the event loop spends in it; of `result`, only with an epoch."""

    run: Run

    def next(self, attempt: str) -> dict[str, Any] | None:
        """Time it; it is asked again and again while there is none."""
        started = time.perf_counter()
        values = super().next(attempt)
        self.run.loop["next, none there" if values is None else "next"].append(time.perf_counter() - started)
        return values

    def started(self, attempt: str) -> None:
        """Time it."""
        with self.run.clock("started"):
            super().started(attempt)

    def result(self, attempt: str, result: Mapping[str, Any]) -> bool:
        """Time it."""
        with self.run.clock("result" if "epoch" in result else "first result"):
            goes_on = super().result(attempt, result)
        if len(self.attempts) == self.study.trials and all(here.last["step"] for here in self.attempts.values()):
            self.run.steady.append(time.process_time())
        return goes_on

    def ended(self, attempt: str) -> None:
        """Time it."""
        with self.run.clock("ended"):
            super().ended(attempt)


class TimedCallback(MLflowLoggerCallback):
    """Ray's own callback, with the time that the event loop spends in it."""

    run: Run

    def log_trial_result(self, iteration: int, trial: Any, result: dict[str, Any]) -> None:
        """Time it."""
        with self.run.clock("result"):
            super().log_trial_result(iteration, trial, result)


class NoRecords(Records):
    """Records that nothing is written to."""

    def _log(self, *args: Any, **kwargs: Any) -> None:
        """Write nothing."""


@dataclass(frozen=True)
class Bench:
    """Runs studies below a folder, on the connected cluster, so many trials at once as each asks for half of it."""

    folder: Path

    @property
    def resources(self) -> Resources:
        """What a trial asks for."""
        return Resources(cpu=max(1, int(ray.cluster_resources()["CPU"]) // 2))

    @property
    def at_once(self) -> int:
        """How many trials run at once."""
        return capacity(Study("benchmark", resources=self.resources), ray.nodes())

    def fit(self, epochs: int, epoch_s: float, together: int = 1) -> StandIn:
        """Return what stands in for a training; trials begin when so many are there."""
        times = self.folder / "times" / uuid.uuid4().hex
        times.mkdir(parents=True)
        return StandIn(epochs, epoch_s, times, together)

    def study(self, trials: int, fit: StandIn, tracking_uri: str = "") -> Run:
        """Run a study as the driver does, until MLflow has every record; without an address none is written.

        The clock starts when database and store are open, which is once a study and not once a trial.
        """
        name = f"study-{uuid.uuid4().hex[:8]}"
        train = {"encoder": "xresnet18", "epochs": fit.epochs}
        study = Study(name, trials=trials, resources=self.resources, train=train, search=SEARCH)
        results, prepared = self.folder / name, self.folder / "prepared"
        save_index(prepared, [], "benchmark", [])
        opened = open_optuna(study, results)
        if tracking_uri:
            records = open_records(tracking_uri, self.folder, results, name, name, resumed=False)
        else:
            records = NoRecords(Journal(results, name, name))
        job = Job(results, prepared, study.base, (SPLIT,), train=fit)
        budget = Budget(study, opened, 0)
        board = Board(trials, trials * fit.epochs, spent=lambda: str(budget.spent))
        book = TimedBook(study, job, opened, [], records, board, budget, {"commit": "benchmark"})
        book.run = run = Run()
        with run.measured():
            run_trials(study, job, book)
            board.close()
            waiting = records.close("COMPLETE")
        complete = sum(trial.state.name == "COMPLETE" for trial in ended_trials(opened))
        refused = records.delivery.refused if records.delivery else 0
        if complete != trials or refused or (tracking_uri and waiting):
            raise SystemExit(f"error: {complete} of {trials} COMPLETE; {waiting} records wait, {refused} were refused.")
        return self._finish(run, trials, fit)

    def bare(self, trials: int, fit: StandIn, stock: str = "") -> Run:
        """Run a Tuner alone, or with Ray's own MLflow callback at the address `stock`."""
        name, run = f"bare-{uuid.uuid4().hex[:8]}", Run()
        callbacks = []
        if stock:
            callbacks.append(TimedCallback(tracking_uri=stock, experiment_name=name))
            callbacks[0].run = run
        tuner = tune.Tuner(
            tune.with_resources(partial(bare_trial, fit=fit), {"cpu": self.resources.cpu}),
            tune_config=tune.TuneConfig(num_samples=trials, max_concurrent_trials=self.at_once),
            run_config=tune.RunConfig(name=name, storage_path=str(self.folder), callbacks=callbacks, verbose=0),
        )
        with run.measured():
            results = tuner.fit()
        if results.num_terminated != trials:
            raise SystemExit(f"error: {results.num_terminated} of {trials} bare trials have ended well.")
        return self._finish(run, trials, fit)

    def _finish(self, run: Run, trials: int, fit: StandIn) -> Run:
        run.beyond = run.wall / trials - fit.seconds / self.at_once
        run.reports = [seconds for path in fit.times.glob("*.json") for seconds in json.loads(path.read_text())]
        return run


@contextmanager
def mlflow_server(folder: Path) -> Iterator[str]:
    """Run an `mlflow server` over SQLite on a free port of 127.0.0.1 and yield its address."""
    folder.mkdir()
    with closing(socket.socket()) as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder / 'server.db'}", "--artifacts-destination", str(folder)]
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
    uri = f"http://127.0.0.1:{port}"
    try:
        _wait_for(uri, server, folder / "server.log")
        yield uri
    finally:
        os.killpg(server.pid, signal.SIGTERM)  # with its workers, which are a session of their own
        server.wait(timeout=30)


def _wait_for(uri: str, server: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until the server answers from its store."""
    deadline = time.monotonic() + 120
    while server.poll() is None and time.monotonic() < deadline:
        try:
            urllib.request.urlopen(f"{uri}/api/2.0/mlflow/experiments/search?max_results=1", timeout=60).close()
            return
        except OSError:
            time.sleep(0.2)
    raise SystemExit(f"error: the MLflow server does not start: {log.read_text()[-1000:]}")
