"""A stage after the search: its Ray tasks, what it spends, and Ctrl-C meanwhile."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import ray

from sweep.board import Board
from sweep.budget import Budget
from sweep.fits import result
from sweep.stopping import StopFile
from sweep.terms import require_met

__all__ = ["Stage"]


class Stage:
    """Runs tasks on the connected cluster, and is told by whoever does something else for long that time has passed."""

    def __init__(self, results: Path, budget: Budget) -> None:
        self.stop, self.budget = StopFile(results), budget

    def beat(self, trials: int = 0) -> None:
        """Add the time since the last beat, in which so many tasks held what a trial holds, to what is spent.

        Raises KeyboardInterrupt where the study was asked to stop.
        """
        self.budget.tick(trials, ray.nodes())
        self.stop.obey()

    def run(
        self, function: Callable[..., Any], arguments: Sequence[tuple[Any, ...]], what: str, as_trials: bool = False
    ) -> Iterator[tuple[int, Any]]:
        """Call a function with each of the arguments, a task each; yield their numbers and results as they end.

        A task holds what a trial holds, or else one core. Raises what a task raises, and KeyboardInterrupt as `beat`.
        """
        self.beat()  # what went before is not of these tasks
        held = self.budget.study.resources
        needs = {"num_cpus": held.cpu, "num_gpus": float(held.gpu)} if as_trials else {"num_cpus": 1}
        task = ray.remote(**needs)(_run)
        waiting = {task.remote(function, given): number for number, given in enumerate(arguments)}
        board = Board(len(waiting), 0, what, spent=lambda: str(self.budget.spent))
        try:
            while waiting:
                done, _ = ray.wait(list(waiting), timeout=0.5)
                self.beat(len(waiting) if as_trials else 0)
                board.tick()
                for reference in done:
                    number = waiting.pop(reference)
                    board.end(number, "COMPLETE")
                    yield number, result(reference)
        finally:
            board.close()


def _run(function: Callable[..., Any], given: tuple[Any, ...]) -> Any:
    require_met()
    return function(*given)
