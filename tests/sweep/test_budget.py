from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from sweep.budget import Budget, Spent, node_type, price
from sweep.search import open_optuna
from sweep.study import Resources, Study
from sweep.studyfile import load_study

NODES = [
    {"Alive": True, "Labels": {"ray.io/node-group": "spot"}, "Resources": {"CPU": 4, "GPU": 1}},
    {"Alive": True, "Labels": {}, "Resources": {"CPU": 4}},
    {"Alive": False, "Labels": {"ray.io/node-group": "spot"}, "Resources": {"CPU": 4, "GPU": 1}},
]


@pytest.fixture
def study(write_study: Callable[..., Path]) -> Study:
    """Return a study whose trials hold half a GPU, on nodes of two prices."""
    read = load_study(write_study())
    return replace(read, resources=Resources(0.5, 1), prices={"spot": 0.4, "default": 0.1})


def test_what_is_spent(study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two hours, three trials, room for two of half a GPU: 2 h, 2 GPU hours, 2 × (0.40 + 0.10) dollars; all kept."""
    opened = open_optuna(study, tmp_path)
    clock = [1000.0]
    monkeypatch.setattr("sweep.budget.time.monotonic", lambda: clock[0])
    budget = Budget(study, opened, 0)
    clock[0] += 7200
    assert budget.tick(3, NODES) == 2, "two halves of the one GPU that is there"
    assert (budget.spent.hours, budget.spent.gpu_hours) == pytest.approx((2, 2))
    assert budget.spent.dollars == pytest.approx(1.0)
    assert str(budget.spent) == "2.0 h, 2.0 GPU h, $1.00"
    again = Budget(study, open_optuna(study, tmp_path), 0)
    assert again.spent == budget.spent


@pytest.mark.parametrize(
    ("limits", "name"),
    [
        ({}, ""),
        ({"max_hours": 3.1}, ""),
        ({"max_hours": 3.0}, "max_hours"),
        ({"max_gpu_hours": 4.0}, "max_gpu_hours"),
        ({"max_gpu_hours": 4.1}, ""),
        ({"max_cost": 1.5}, "max_cost"),
        ({"max_cost": 1.6}, ""),
    ],
)
def test_the_cross_validation_is_kept_back(study: Study, tmp_path: Path, limits: dict[str, float], name: str) -> None:
    """Ten trainings of 12 min are to come, two at once on half a GPU each: 1 h, 1 GPU hour, $0.50 at $0.50 an hour."""
    budget = Budget(replace(study, **limits), open_optuna(study, tmp_path), 10)  # type: ignore[arg-type]
    budget.tick(0, NODES)
    budget.spent = Spent(2.0, 3.0, 1.0)
    for _ in range(5):
        budget.epoch(360.0)
    assert budget.used_up() == name


@pytest.mark.parametrize(("max_hours", "name"), [(0.79, "max_hours"), (0.81, "")])
def test_what_follows_the_search_comes_in_rounds(study: Study, tmp_path: Path, max_hours: float, name: str) -> None:
    """Three repeats and one fold, two at once, 12 min each: two rounds and one, 36 min, whatever four halves are."""
    budget = Budget(replace(study, max_hours=max_hours), open_optuna(study, tmp_path), 3, 1)
    budget.tick(0, NODES)
    budget.spent = Spent(0.2)
    budget.epoch(360.0)
    assert budget.used_up() == name


def test_a_start_that_took_long_ends_nothing(study: Study, tmp_path: Path) -> None:
    """Before the first epoch nothing is known of the pace; what the start took is no part of it."""
    budget = Budget(replace(study, max_hours=12.0), open_optuna(study, tmp_path), 420)
    budget.tick(2, NODES)
    budget.spent.hours = 0.1
    assert budget.used_up() == ""
    budget.epoch(30.0)
    assert budget.used_up() == ""


def test_prices() -> None:
    """By the type's name; else the default; else the dearest, since a budget must not be overrun."""
    prices = {"spot": 0.4, "big": 3.0}
    assert price(prices, "spot") == 0.4
    assert price(prices, "new") == 3.0
    assert price({**prices, "default": 0.5}, "new") == 0.5
    assert price({}, "new") == 0.0
    assert [node_type(node) for node in NODES[:2]] == ["spot", "default"]
