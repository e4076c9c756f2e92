"""A stage without Ray."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from sweep.stage import Stage


class Here(Stage):
    """Runs tasks in this process, and notes what it runs and what it is told."""

    def __init__(self) -> None:
        self.beats: list[int] = []
        self.ran: list[tuple[str, int, bool]] = []
        """What was run, in how many tasks, and whether these hold what a trial holds."""

    def beat(self, trials: int = 0) -> None:
        """Note it."""
        self.beats.append(trials)

    def run(
        self, function: Callable[..., Any], arguments: Sequence[tuple[Any, ...]], what: str, as_trials: bool = False
    ) -> Iterator[tuple[int, Any]]:
        """Call it with each, the last one first: tasks end in any order."""
        self.ran.append((what, len(arguments), as_trials))
        for number, given in reversed(list(enumerate(arguments))):
            yield number, function(*given)
