"""What follows the search costs what it holds, and hears Ctrl-C, whatever it waits for."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sweep.budget import Budget
from sweep.search import open_optuna
from sweep.stage import Stage
from sweep.stopping import StopFile
from sweep.study import Resources
from sweep.studyfile import load_study

HOUR = 3600


class Clock:
    """A Ray with one GPU whose tasks take an hour each, one after the other."""

    def __init__(self) -> None:
        self.now, self.needs = 0.0, dict[str, float]()

    def remote(self, **needs: float) -> Callable[[Callable[..., Any]], Any]:
        """Return a function that makes a task; its value stands for its reference."""
        self.needs = needs
        return lambda function: SimpleNamespace(remote=function)

    def wait(self, waiting: list[Any], timeout: float) -> tuple[list[Any], list[Any]]:
        """End the first one."""
        self.now += HOUR
        return waiting[:1], waiting[1:]

    def nodes(self) -> list[dict[str, Any]]:
        """Return one machine."""
        return [{"Alive": True, "Labels": {}, "Resources": {"CPU": 8, "GPU": 1}}]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Put a made-up Ray and its clock in the place of the real ones."""
    clock = Clock()
    monkeypatch.setattr("sweep.stage.ray", clock)
    monkeypatch.setattr("sweep.stage.result", lambda value: value)
    monkeypatch.setattr("sweep.budget.time.monotonic", lambda: clock.now)
    return clock


@pytest.fixture
def stage(clock: Clock, write_study: Callable[..., Path], tmp_path: Path) -> Stage:
    """Return a stage of a study whose trials hold half a GPU."""
    study = replace(load_study(write_study()), resources=Resources(0.5, 1))
    return Stage(tmp_path, Budget(study, open_optuna(study, tmp_path), 0))


def test_tasks_cost_what_they_hold(stage: Stage, clock: Clock) -> None:
    """Four hours of scoring and two of something else cost no GPU; two scenes, one after the other, do."""
    assert dict(stage.run(lambda x: 10 * x, [(1,), (2,), (3,), (4,)], "folds")) == {0: 10, 1: 20, 2: 30, 3: 40}
    assert clock.needs == {"num_cpus": 1}
    spent = stage.budget.spent
    assert (spent.hours, spent.gpu_hours) == pytest.approx((4, 0))
    clock.now += HOUR
    assert not list(stage.run(str, [], "scenes", as_trials=True))
    assert (spent.hours, spent.gpu_hours) == pytest.approx((5, 0)), "also where there is nothing to run"
    clock.now += HOUR
    assert len(list(stage.run(str, [(1,), (2,)], "scenes", as_trials=True))) == 2
    assert clock.needs == {"num_cpus": 1, "num_gpus": 0.5}
    assert (spent.hours, spent.gpu_hours) == pytest.approx((8, 0.5 * 2 + 0.5 * 1))


def test_a_stop_does_not_wait_for_the_tasks(stage: Stage, tmp_path: Path) -> None:
    """The first Ctrl-C ends the stage while its tasks run."""
    running = stage.run(str, [(1,), (2,), (3,)], "folds", as_trials=True)
    assert next(running) == (0, "1")
    StopFile(tmp_path).request()
    with pytest.raises(KeyboardInterrupt):
        next(running)
    with pytest.raises(KeyboardInterrupt):
        stage.beat()
