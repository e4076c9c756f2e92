"""An attempt at a trial: what is known of it while it runs, and while nobody knows why its process has died."""

from dataclasses import dataclass, field
from typing import Any

import optuna

from sweep.failures import Failure

__all__ = ["Attempt", "Doubt"]


@dataclass
class Attempt:
    """A trial that is running."""

    trial: optuna.Trial
    node: str = ""
    verdict: str = ""
    """PRUNED or PREEMPTED where it was stopped before its end."""
    last: dict[str, Any] = field(default_factory=lambda: {"step": 0})
    there: frozenset[str] = frozenset()
    """The nodes that have been there since it was handed out: it runs on one of them."""

    def lost(self, alive: frozenset[str]) -> bool:
        """Return whether its node has gone; of one that had not begun, whether any has."""
        return self.node not in alive if self.node else not self.there <= alive


@dataclass
class Doubt:
    """An attempt whose process has died, while it is not known whether its machine has."""

    attempt: Attempt
    failure: Failure
    until: float
