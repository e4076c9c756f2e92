"""What a study has spent, over all its starts, and whether a budget is used up."""

import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import optuna

from sweep.cluster import capacity
from sweep.growth import NODE_TYPE
from sweep.study import Study

__all__ = ["Budget", "Spent", "node_type", "price"]

SPENT = "spent"
"""User attribute of the Optuna study that keeps what was spent."""
SAVE_SECONDS = 10.0
"""A killed driver forgets at most so much of what it spent."""


@dataclass
class Spent:
    """Hours of the clock, hours of GPUs that trials held, and dollars for all nodes of the cluster, idle ones too."""

    hours: float = 0.0
    gpu_hours: float = 0.0
    dollars: float = 0.0

    def __str__(self) -> str:
        parts = [f"{self.hours:.1f} h"]
        if self.gpu_hours:
            parts.append(f"{self.gpu_hours:.1f} GPU h")
        if self.dollars:
            parts.append(f"${self.dollars:.2f}")
        return ", ".join(parts)


def node_type(node: Mapping[str, Any]) -> str:
    """Return the type of a node of `ray.nodes()`: its name in the cluster file, or "default"."""
    return str(node.get("Labels", {}).get(NODE_TYPE) or "default")


def price(prices: Mapping[str, float], kind: str) -> float:
    """Return the dollars that a node of a type costs an hour.

    A type that the study file does not name costs what "default" does, or else the most of all: a budget of money
    must not be overrun because of a name.
    """
    return prices.get(kind, prices.get("default", max(prices.values(), default=0.0)))


class Budget:
    """Adds up what a study spends, keeps it in the database, and says which budget is used up.

    What follows the search is kept back: one stage after the other, each of so many trainings (`later`), at the pace
    of the epochs so far.
    """

    def __init__(self, study: Study, opened: optuna.Study, *later: int) -> None:
        self.study, self.opened, self.later = study, opened, later
        self.epochs_each = study.base.epochs
        self.spent = Spent(**opened.user_attrs.get(SPENT, {}))
        self.at = self.saved = time.monotonic()
        described = [t.user_attrs for t in opened.get_trials(deepcopy=False) if "seconds" in t.user_attrs]
        self.epochs = sum(attributes["epochs_trained"] for attributes in described)
        self.seconds = sum(attributes["seconds"] for attributes in described)
        self.capacity, self.rate = 1, 0.0
        """Trials that run at once, and dollars an hour, at the last tick."""

    def epoch(self, seconds: float) -> None:
        """Note an epoch and what it took."""
        self.epochs += 1
        self.seconds += seconds

    def tick(self, trials: int, nodes: Iterable[Mapping[str, Any]]) -> int:
        """Add the time since the last tick, in which `trials` ran, or waited for room, on `nodes` of `ray.nodes()`.

        Returns how many trials the nodes have room for.
        """
        now, nodes = time.monotonic(), list(nodes)
        hours, self.at = (now - self.at) / 3600, now
        self.spent.hours += hours
        self.capacity = capacity(self.study, nodes)
        self.spent.gpu_hours += hours * float(self.study.resources.gpu) * min(trials, self.capacity)
        self.rate = sum(price(self.study.prices, node_type(node)) for node in nodes if node["Alive"])
        self.spent.dollars += hours * self.rate
        if now - self.saved > SAVE_SECONDS:
            self.save()
        return self.capacity

    def save(self) -> None:
        """Keep what was spent."""
        self.opened.set_user_attr(SPENT, asdict(self.spent))
        self.saved = time.monotonic()

    def used_up(self) -> str:
        """Return the name of the budget that ends the search now, or nothing."""
        each = self.epochs_each * self.seconds / self.epochs / 3600 if self.epochs else 0.0  # hours of a training
        at_once = max(1, self.capacity)
        later = each * sum(math.ceil(trainings / at_once) for trainings in self.later)
        limits = {
            "max_hours": (self.study.max_hours, self.spent.hours + later),
            "max_gpu_hours": (
                self.study.max_gpu_hours,
                self.spent.gpu_hours + each * sum(self.later) * float(self.study.resources.gpu),
            ),
            "max_cost": (self.study.max_cost, self.spent.dollars + later * self.rate),
        }
        return next((name for name, (limit, needed) in limits.items() if limit and needed >= limit), "")
