"""The months of a scene, predicted one by one → pooled outputs, a few rows of all months at a time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sn7.pooling import pool
from sn7.predict.raw import RawOutputs, write_raw

__all__ = ["Pooling", "pool_raw"]

Outputs = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Pooling:
    """How the outputs of a scene's months are pooled."""

    how: str
    """One of `sn7.pooling.POOLS`."""
    months: int = 0
    """Each month is pooled with those up to (months - 1) / 2 before and after it; 0: all months, once."""


def pool_raw(months: Sequence[RawOutputs], how: str, path: Path) -> RawOutputs:
    """Write to `path`, and return, what several months' outputs are worth together; invalid pixels do not count.

    They lie on one grid; where an image is some rows or columns short, the others count there. Raises DiskFull.
    """
    shape = (max(month.shape[0] for month in months), max(month.shape[1] for month in months))
    pooled = replace(months[0], path=path, shape=shape)
    write_raw(path, shape[1], _strips(months, pooled, how))
    return pooled


def _strips(months: Sequence[RawOutputs], pooled: RawOutputs, how: str) -> Iterator[tuple[int, int, Outputs]]:
    height, width = pooled.shape
    rows = max((1 << 22) // (len(months) * pooled.channels * width), 1)
    for top in range(0, height, rows):
        stack = np.full((len(months), pooled.channels, min(rows, height - top), width), np.nan, np.float32)
        for month, place in zip(months, stack, strict=True):
            found = month.rows(top, top + rows)
            place[:, : found.shape[1], : found.shape[2]] = found
        yield top, 0, pool(stack, how)
