"""Which candidates an ensemble takes and how often: greedy selection with replacement (Caruana et al., ICML 2004)."""

from collections.abc import Callable

__all__ = ["Taken", "select_greedily"]

Taken = tuple[int, ...]
"""How often each candidate is taken; its weight in the mean is its share of the sum."""

MARGIN = 0.0005
"""A score that another member has to add: it costs its time in every prediction, and less is noise."""


def select_greedily(candidates: int, score: Callable[[Taken], float], steps: int) -> Taken:
    """Return how often each of `candidates` is taken into the ensemble that scores highest.

    Begins with the best candidate alone. Each of `steps` - 1 further steps takes the one with which the mean of all
    that were taken scores highest, be it for another time. Of the ensembles on that way, those within MARGIN of the
    best are as good, and the one of the fewest members, then the earliest of them is returned. `score` is called with
    what would be taken, the higher the better.
    """
    way: list[tuple[float, Taken]] = []
    taken = (0,) * candidates
    for _ in range(steps):
        scored = [(score(more), more) for more in (_with(taken, candidate) for candidate in range(candidates))]
        best, taken = max(scored, key=lambda pair: pair[0])  # the first one of equals
        way.append((best, taken))
    highest = max(value for value, _ in way)
    good = [taken for value, taken in way if value >= highest - MARGIN]
    return min(good, key=lambda taken: sum(count > 0 for count in taken))


def _with(taken: Taken, candidate: int) -> Taken:
    return tuple(count + (i == candidate) for i, count in enumerate(taken))
