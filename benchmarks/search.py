"""How many epochs the search spends until it has found the best of a grid, against random search and the grid itself.

    .venv/bin/python benchmarks/search.py [--json]          a few minutes; trains nothing

Trials are looked up in grid.csv, the results of every configuration of a grid, and run on virtual workers in virtual
time. What is drawn next, and what is stopped at a rung, is decided by the code that a study runs with. Counted are the
epochs of all workers until one trial has the grid's best Dice; a run that never gets there counts as the whole grid.
"""

import argparse
import heapq
import json
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from statistics import fmean, median
from typing import Protocol

import grid
import optuna
from optuna.distributions import IntDistribution
from optuna.trial import TrialState
from tqdm import tqdm

from sweep.halving import keeps, rungs
from sweep.search import next_trial
from sweep.space import Searched, Space
from sweep.study import Study

SHARES = (1.0, 0.99)
"""Shares of the grid's best Dice that are waited for."""


@dataclass(frozen=True)
class Row:
    """A configuration: the best Dice so far after each epoch, and the seconds of one."""

    curve: tuple[float, ...]
    seconds: float


Found = tuple[int | None, ...]
"""Epochs spent until each of SHARES was reached; None where it never was."""


class Policy(Protocol):
    """What decides what runs; trials are known by their row."""

    def next(self) -> int | None:
        """Return the row of the next trial, None where there is none left."""

    def goes_on(self, row: int, epoch: int, value: float) -> bool:
        """Note a report; return whether the trial goes on."""

    def completed(self, row: int, value: float) -> None:
        """Note that a trial has trained to its end."""


class FixedOrder:
    """Random search and the grid: rows in an order, each to its end."""

    def __init__(self, order: Iterable[int]) -> None:
        self.order = iter(order)

    def next(self) -> int | None:
        """Return the next row of the order."""
        return next(self.order, None)

    def goes_on(self, row: int, epoch: int, value: float) -> bool:
        """Stop nothing."""
        return True

    def completed(self, row: int, value: float) -> None:
        """Learn nothing."""


@dataclass(frozen=True)
class GridStudy(Study):
    """A study whose fields vary over the positions of their values in the grid: ordered, and no other values."""

    @cached_property
    def space(self) -> Space:
        """The positions."""
        return Space({name: Searched(IntDistribution(0, len(values) - 1), {}) for name, values in grid.GRID.items()})


@dataclass
class Search:
    """A study of this project without Ray: its sampler and its early stopping, on an Optuna study in memory."""

    study: Study
    running: dict[int, optuna.Trial] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.opened = optuna.create_study(direction="maximize")
        self.rungs = rungs(self.study.base.epochs, 1, self.study.grace)
        self.at_rung: dict[int, list[float]] = {rung: [] for rung in self.rungs}

    def next(self) -> int | None:
        """Return the row that the sampler draws."""
        trial = next_trial(self.opened, self.study)
        if trial is None:
            return None
        row = 0
        for name, values in grid.GRID.items():  # the last field varies first
            row = row * len(values) + trial.params[name]
        self.running[row] = trial
        return row

    def goes_on(self, row: int, epoch: int, value: float) -> bool:
        """Report the epoch; at a rung compare the trial with all others that have been there."""
        self.running[row].report(value, epoch)
        if epoch not in self.at_rung:
            return True
        others = tuple(self.at_rung[epoch])
        self.at_rung[epoch].append(value)
        if keeps(value, others):
            return True
        self.opened.tell(self.running.pop(row), state=TrialState.PRUNED)
        return False

    def completed(self, row: int, value: float) -> None:
        """Tell the value."""
        self.opened.tell(self.running.pop(row), value)


def simulate(rows: list[Row], policy: Policy, workers: int) -> Iterator[tuple[int, float, bool]]:
    """Yield, epoch by epoch as virtual time goes, the row of the trial, its value, and whether the trial has ended."""
    queue: list[tuple[float, int, int, int]] = []

    def start(now: float, worker: int) -> None:
        row = policy.next()
        if row is not None:
            heapq.heappush(queue, (now + rows[row].seconds, worker, row, 1))

    for worker in range(workers):
        start(0.0, worker)
    while queue:
        now, worker, row, epoch = heapq.heappop(queue)
        value = rows[row].curve[epoch - 1]
        complete = epoch == len(rows[row].curve)
        if complete:
            policy.completed(row, value)
        ended = complete or not policy.goes_on(row, epoch, value)
        if ended:
            start(now, worker)
        else:
            heapq.heappush(queue, (now + rows[row].seconds, worker, row, epoch + 1))
        yield row, value, ended


def epochs_until(rows: list[Row], policy: Policy, workers: int) -> Found:
    """Return the epochs spent until a trial has each share of the grid's best Dice."""
    best = max(row.curve[-1] for row in rows)
    able = {share: {i for i, row in enumerate(rows) if row.curve[-1] >= share * best} for share in SHARES}
    found: dict[float, int] = {}
    for spent, (row, value, ended) in enumerate(simulate(rows, policy, workers), 1):
        for share in SHARES:
            if value >= share * best:
                found.setdefault(share, spent)
            elif ended:
                able[share].discard(row)
        if all(share in found or not able[share] for share in SHARES):
            break  # what can still come is known
    return tuple(found.get(share) for share in SHARES)


def read_table(path: Path) -> list[Row]:
    """Return the rows of grid.csv, in the grid's order; a grid that is not complete is refused."""
    texts = {grid.key(row): row for row in grid.read_rows(path)}
    missing = [point for point in grid.points() if grid.key(point) not in texts]
    if missing:
        raise SystemExit(f"error: {path} lacks {len(missing)} configurations; go on with benchmarks/grid.py.")
    ordered = [texts[grid.key(point)] for point in grid.points()]
    return [
        Row(tuple(accumulate((float(row[name]) for name in grid.DICE), max)), float(row["seconds"]) / len(grid.DICE))
        for row in ordered
    ]


def searches(rows: list[Row], seeds: int, workers: int) -> list[Found]:
    """Return what the project's search spends, a run a seed."""
    train = {"epochs": grid.BASE.epochs}
    return [
        epochs_until(rows, Search(GridStudy("grid", len(rows), seed=seed, train=train)), workers)
        for seed in tqdm(range(seeds), desc="search", unit=" studies", disable=None)
    ]


def randoms(rows: list[Row], seeds: int, workers: int) -> list[Found]:
    """Return what random search without repetition spends, a run a seed."""
    orders = (random.Random(seed).sample(range(len(rows)), len(rows)) for seed in range(seeds))
    return [epochs_until(rows, FixedOrder(order), workers) for order in orders]


def grids(rows: list[Row], workers: int) -> list[Found]:
    """Return what the grid spends in its own order, and from every other start on."""
    count = len(rows)
    orders = ([(start + i) % count for i in range(count)] for start in range(count))
    return [epochs_until(rows, FixedOrder(order), workers) for order in orders]


def main() -> None:
    """Print the table, and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, default=grid.TABLE, help="table of results (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=30, help="runs of each search (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=4, help="trials that run at once (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="the ratios as JSON, in the last line")
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    rows = read_table(options.table)
    cap = sum(len(row.curve) for row in rows)
    grid_runs = grids(rows, options.workers)
    runs = {
        "search": searches(rows, options.seeds, options.workers),
        "random": randoms(rows, options.seeds, options.workers),
        "grid, its own order": grid_runs[:1],
        "grid, any start": grid_runs,
    }
    print(f"{len(rows)} configurations of {len(rows[0].curve)} epochs: {cap} in all; {options.workers} workers")
    print(f"{'epochs until':22}{'runs':>6}" + "".join(f"{share:>8.0%} of the best Dice" for share in SHARES))
    print(f"{'':28}" + "   median    mean  reached" * len(SHARES))
    for name, found in runs.items():
        print(f"{name:22}{len(found):>6}" + "".join(_cells(column, cap) for column in zip(*found, strict=True)))
    if options.json:
        print(json.dumps(ratios(runs, cap)))


def _cells(found: Found, cap: int) -> str:
    spent = _spent(found, cap)
    reached = sum(epochs is not None for epochs in found) / len(found)
    return f"{median(spent):>9.0f}{fmean(spent):>8.0f}{reached:>9.0%}"


def _spent(found: Iterable[int | None], cap: int) -> list[int]:
    return [cap if epochs is None else epochs for epochs in found]


def ratios(runs: dict[str, list[Found]], cap: int) -> dict[str, float]:
    """Return the ratios of the median epochs, and of the means, for the best Dice and for 99 % of it."""
    result: dict[str, float] = {}
    for index, suffix in enumerate(("", "_99")):
        spent = {name: _spent((run[index] for run in found), cap) for name, found in runs.items()}
        own = spent["search"]
        result[f"epochs_vs_random{suffix}"] = round(median(own) / median(spent["random"]), 3)
        result[f"epochs_vs_random_mean{suffix}"] = round(fmean(own) / fmean(spent["random"]), 3)
        result[f"epochs_vs_grid{suffix}"] = round(median(own) / spent["grid, its own order"][0], 3)
        result[f"epochs_vs_grid_any_start{suffix}"] = round(median(own) / fmean(spent["grid, any start"]), 3)
        result[f"epochs_vs_whole_grid{suffix}"] = round(median(own) / cap, 3)
        result[f"reached{suffix}"] = round(sum(run[index] is not None for run in runs["search"]) / len(own), 3)
    return result


if __name__ == "__main__":
    main()
