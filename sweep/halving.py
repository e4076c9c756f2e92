"""Early stopping: successive halving over epochs, and over whole splits where a trial trains on several.

The rule is asynchronous successive halving (Li et al. 2020, "A System for Massively Parallel Hyperparameter
Tuning"): at each rung a trial goes on if it is among the better half of those that have been there. What was
reached there is in the study's database, so a resumed study judges by everything that was ever measured.

Half, and not the usual third, because early epochs tell little of the last ones: on the grid of benchmarks/grid.csv
the search lost the best configuration at a rung in 30 to 40 % of its runs with a third, and in none with half.
"""

from collections.abc import Sequence

__all__ = ["FACTOR", "KEPT", "keeps", "rungs"]

FACTOR = 3
"""Each rung is so many times further than the one before."""
KEPT = 2
"""One in so many goes on."""


def rungs(epochs: int, splits: int, grace: int) -> tuple[int, ...]:
    """Return the steps (epochs over all splits) at which trials are compared, the first after `grace` epochs.

    Rungs beyond the first split are moved to the end of a split, where what is compared is a mean over complete
    trainings. The last step is none: who is there is done.
    """
    found = []
    level = grace
    while level < epochs * splits:
        found.append(level if level <= epochs else max(1, round(level / epochs)) * epochs)
        level *= FACTOR
    return tuple(sorted({step for step in found if step < epochs * splits}))


def keeps(value: float, others: Sequence[float]) -> bool:
    """Return whether a trial goes on that has `value` where `others` have been: the better half, rounded up, does."""
    better = sum(other > value for other in others)
    return better < -(-(len(others) + 1) // KEPT)
