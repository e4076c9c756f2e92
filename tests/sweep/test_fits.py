"""Trainings beyond the search, without Ray: what their tasks and their driver do when the study is asked to stop."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray.exceptions import NodeDiedError, WorkerCrashedError
from ray.util.queue import Empty

from sn7.config import TrainConfig
from sn7.folds import Split
from sn7.train import EpochMetrics
from sweep.budget import Budget
from sweep.fence import Superseded, claim
from sweep.fits import Fit, _run, run_fits
from sweep.notice import Notice
from sweep.search import open_optuna
from sweep.stopping import StopFile, Stopped
from sweep.studyfile import load_study
from sweep.usage import Place

EPOCHS = 4
HERE = Place("n7", "worker-7", "g5.xlarge-spot", "NVIDIA A10G", "torch 2.9.0, fastai 2.8.4, timm 1.0.0, numpy 2.3.0")
RunOn = Callable[["Cluster"], list[str]]


@pytest.fixture
def fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fit:
    """Return a training of four epochs, for which neither a GPU nor data are asked."""
    monkeypatch.setattr("sweep.fits.keep_to_share", lambda: None)
    monkeypatch.setattr("sweep.fits.fetch_prepared", lambda place, leave: None)
    monkeypatch.setattr("sweep.fits.own_notice", lambda: Notice("none"))
    monkeypatch.setattr("sweep.fits.place", lambda: HERE)
    return Fit(0, "fold 0", 0, TrainConfig(epochs=EPOCHS), Split("fold0", ("a",), ("b",)), tmp_path / "out", "last")


class Progress:
    """Stands in for the queue that the driver reads."""

    def put(self, item: Any) -> None:
        """Take it."""


def _train(checkpoints: list[int], after: Callable[[int], None]) -> Callable[..., None]:
    """Return what stands in for train(): asks after each epoch but the last; `after` is what happens meanwhile."""

    def train(
        config: Any, data: Any, split: Any, out: Path, report: Any, *more: Any, urgent: Any, **named: Any
    ) -> None:
        for epoch in range(1, EPOCHS + 1):
            if epoch < EPOCHS and urgent():
                checkpoints.append(epoch)
            after(epoch)
            report(EpochMetrics(epoch, 1.0, 1.0, 0.5, 0.3, 0.5, 0.5, 1e-3, 50.0, 2.0, 100.0, 4))

    return train


def _ask_after(results: Path, epoch: int) -> Callable[[int], None]:
    return lambda now: StopFile(results).request() if now == epoch else None


def test_it_ends_with_an_epoch_that_is_kept(fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked between the question for a checkpoint and the report of epoch 1: it ends with epoch 2, which has one."""
    checkpoints: list[int] = []
    monkeypatch.setattr("sweep.fits.train", _train(checkpoints, _ask_after(tmp_path, 1)))
    with pytest.raises(Stopped):
        _run(0, fit, 1, tmp_path, "prepared", None, Progress())  # type: ignore[arg-type]
    assert checkpoints == [2]


def test_at_its_last_epoch_it_comes_to_its_end(fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no checkpoint of that one, and all but the result is there; a task that has not begun does not."""
    done = []
    monkeypatch.setattr("sweep.fits.train", _train([], _ask_after(tmp_path, EPOCHS)))
    _run(0, fit, 1, tmp_path, "prepared", lambda fit, out, data: done.append(fit), Progress())  # type: ignore[arg-type]
    assert done == [fit]
    with pytest.raises(Stopped):
        _run(0, fit, 1, tmp_path, "prepared", None, Progress())  # type: ignore[arg-type]


def test_it_leaves_within_an_epoch(fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is asked between batches ends it where the study was asked to stop."""
    answers: list[Exception | None] = []

    def train(*more: Any, leave: Callable[[], Exception | None], **named: Any) -> None:
        answers.append(leave())
        StopFile(tmp_path).request()
        answers.append(leave())

    monkeypatch.setattr("sweep.fits.train", train)
    _run(0, fit, 1, tmp_path, "prepared", None, Progress())  # type: ignore[arg-type]
    assert answers[0] is None and isinstance(answers[1], Stopped)


def test_what_it_tells(fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it begins, with nothing behind it, and each epoch; one that was done already says nothing."""
    said: list[tuple[int, int | None, Place | None]] = []

    class Heard(Progress):
        def put(self, item: Any) -> None:
            index, epochs, begun = item
            said.append((index, epochs[-1].epoch if epochs else None, begun))

    monkeypatch.setattr("sweep.fits.train", _train([], lambda epoch: None))
    _run(3, fit, 1, tmp_path, "prepared", None, Heard())  # type: ignore[arg-type]
    assert said == [(3, None, HERE), *((3, epoch, None) for epoch in range(1, EPOCHS + 1))]
    said.clear()
    monkeypatch.setattr("sweep.fits.read_result", lambda out: "a result")
    _run(3, fit, 2, tmp_path, "prepared", None, Heard())  # type: ignore[arg-type]
    assert said == []


class Cluster(SimpleNamespace):
    """Stands in for Ray: each task of a fit ends with the next one of some errors, or well; `said` is in its queue."""

    NODE = "0" * 55 + "1"
    ObjectRef = object
    exceptions = ray.exceptions

    def __init__(self, *errors: Exception) -> None:
        self.errors, self.attempts, self.options, self.said = list(errors), [], [], []

    def get_runtime_context(self) -> Any:
        """Return where the driver runs."""
        return SimpleNamespace(get_node_id=lambda: self.NODE)

    def remote(self, **options: Any) -> Callable[..., Any]:
        """Return what notes the number of each attempt that is handed out."""
        self.options.append(options)

        def start(index: int, fit: Fit, attempt: int, *more: Any) -> object:
            self.attempts.append(attempt)
            return object()

        return lambda function: SimpleNamespace(remote=start)

    def wait(self, references: list[object], timeout: float) -> tuple[list[object], list[object]]:
        """Return all as done."""
        return references, []

    def get(self, reference: object) -> None:
        """Raise what a task has ended with."""
        if self.errors:
            raise self.errors.pop(0)

    def nodes(self) -> list[Any]:
        """Return none."""
        return []

    def queue(self, actor_options: dict[str, Any]) -> Any:
        """Return a queue with what was said."""

        def get_nowait() -> Any:
            if self.said:
                return self.said.pop(0)
            raise Empty

        self.options.append(actor_options)
        return SimpleNamespace(get_nowait=get_nowait, shutdown=lambda: self.options.append({}))


@pytest.fixture
def run_on(fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_study: Callable[..., Path]) -> RunOn:
    """Return a function that runs a fit on a stand-in for a cluster, with two further attempts; see run_fits."""

    def run(cluster: Cluster) -> list[str]:
        monkeypatch.setattr("sweep.fits.ray", cluster)
        monkeypatch.setattr("sweep.fits.Queue", cluster.queue)
        study = load_study(write_study())
        budget = Budget(study, open_optuna(study, None))
        done = run_fits([fit], "folds", study, tmp_path, "prepared", budget, None, lambda *heard: None)
        return [error for _, error in done]

    return run


def test_each_attempt_has_a_higher_number(run_on: RunOn, fit: Fit) -> None:
    """Than those of this start and of earlier ones, whether they have come to their folders or not."""
    claim(fit.base, 3)
    lost = Cluster(NodeDiedError("gone"), Superseded("attempt 9 has begun"), OSError("a bug"))
    assert run_on(lost) == [""]
    assert lost.attempts == [4, 5, 6, 7]
    assert lost.options[1]["max_retries"] == 0, "Ray would give two attempts the same number"


def test_a_node_with_other_versions_is_named(
    run_on: RunOn, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once, also where it joins while folds are trained."""
    monkeypatch.setattr("sweep.versions.NAMED", set())
    cluster = Cluster()
    cluster.said = [(0, (), HERE), (0, (), HERE)]
    assert run_on(cluster) == [""]
    assert capsys.readouterr().err.count("warning: node worker-7 trains with torch 2.9.0 (here ") == 1


def test_lost_machines_are_no_failures(run_on: RunOn) -> None:
    """Ten of them, with two failures beside; what is lost again and again has failed."""
    failures: list[Exception] = [OSError("a bug"), OSError("a bug")]
    assert run_on(Cluster(*failures, *[NodeDiedError("gone")] * 5, *[WorkerCrashedError()] * 5)) == [""]
    (error,) = run_on(Cluster(*[WorkerCrashedError()] * 13))
    assert error.startswith("WorkerCrashedError: ")


def test_without_machines_nothing_is_waited_for(run_on: RunOn, tmp_path: Path) -> None:
    """Ctrl-C while all trainings wait for machines that may never come: it ends. The queue is on the driver's node."""

    class Machineless(Cluster):
        def wait(self, references: list[object], timeout: float) -> tuple[list[object], list[object]]:
            StopFile(tmp_path).request()
            return [], references

    empty = Machineless()
    with pytest.raises(KeyboardInterrupt):
        run_on(empty)
    there = empty.options[0]["scheduling_strategy"]
    assert there.node_id == Cluster.NODE and not there.soft
    assert empty.options[2:] == [{}], "and is closed"
