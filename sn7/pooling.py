"""Outputs of several months of a place → one: mean or median over those in which a pixel is valid. numpy only."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["POOLS", "months_between", "pool", "window_of"]

POOLS = ("mean", "median")


def pool(months: npt.NDArray[np.float32], how: str) -> npt.NDArray[np.float32]:
    """Return the mean or the median, as `how` says, over the first axis; float32, of the other axes' shape.

    NaN, which is what is invalid (no data, UDM), does not count; it remains where all months are NaN. The median of
    an even number of months is the mean of the two in the middle. `months` is float32 (months, …), and changed.
    """
    if how == "mean":
        valid = np.isfinite(months)
        count = valid.sum(axis=0)
        months[~valid] = 0
        total = months.sum(axis=0, dtype=np.float32)
        return np.divide(total, count, out=np.full(total.shape, np.nan, np.float32), where=count > 0)
    months.sort(axis=0)  # NaN comes last
    count = np.isfinite(months).sum(axis=0)
    middle = np.stack([np.maximum(count - 1, 0) // 2, np.minimum(count // 2, len(months) - 1)])
    return np.take_along_axis(months, middle, axis=0).mean(axis=0, dtype=np.float32)


def window_of(dates: Sequence[str], centre: int, months: int) -> list[int]:
    """Return which of `dates`, YYYY-MM, lie at most (months - 1) / 2 months from the one at `centre`; 0: all.

    A month without an image leaves a gap; it does not reach out to the next.
    """
    if months == 0:
        return list(range(len(dates)))
    return [i for i, date in enumerate(dates) if 2 * abs(months_between(dates[centre], date)) < months]


def months_between(first: str, last: str) -> int:
    """Return how many months after `first` the date `last` is, both YYYY-MM."""
    (year, month), (other_year, other_month) = (map(int, date.split("-")) for date in (first, last))
    return 12 * (other_year - year) + other_month - month
