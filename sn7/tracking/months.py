"""The predictions of a scene, month by month on one grid: what tracking starts from, whatever its rules.

What costs most and depends on no rule is done here, once: of probs, only the pixels that could be building are kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import shapely
from rasterio.features import rasterize

from sn7.errors import MonthsInvalid
from sn7.tracking.config import FLOOR

__all__ = ["Months"]

Geometries = npt.NDArray[np.object_]
Probs = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Months:
    """Predictions of a scene, in date order; T months, of whose (h, w) pixels K could be building."""

    scene: str
    dates: tuple[str, ...]
    """YYYY-MM; at least two."""
    valid: Mask
    """(T, h, w), False where a month's image is unusable."""
    pixels: npt.NDArray[np.intp]
    """(K,), places in the flattened grid."""
    probs: Probs
    """(T, K), 0 where invalid."""
    known: Mask
    """(T, K), `valid` at these pixels."""
    separation: Probs | None = None
    """(2, K), boundary and contact, means over the valid months, of models that have such outputs."""
    polygons: tuple[Geometries, ...] | None = None
    """Of each month, in pixel coordinates, where the months are given as polygons."""

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the grid, px."""
        return self.valid.shape[1], self.valid.shape[2]

    @property
    def valid_share(self) -> npt.NDArray[np.float64]:
        """Share of each month's pixels that are valid (T,)."""
        return self.valid.mean(axis=(1, 2))

    @classmethod
    def of_probs(
        cls, scene: str, dates: Sequence[str], probs: Sequence[Probs], separation: Probs | None = None
    ) -> "Months":
        """Return the months of probs, float32 (h, w) each, NaN where invalid; or of an array (T, h, w).

        `separation` (2, h, w) are boundary and contact, summed over the months, 0 where one is invalid.
        Raises MonthsInvalid for months that are not in order, are fewer than two, or differ in size.
        """
        _check(scene, dates, [month.shape for month in probs])
        valid = np.stack([np.isfinite(month) for month in probs])
        highest = np.full(valid.shape[1:], -1, np.float32)
        for month in probs:
            np.fmax(highest, month, out=highest)
        pixels = np.flatnonzero(highest >= FLOOR)
        kept = np.stack([np.nan_to_num(month.ravel()[pixels]) for month in probs]).astype(np.float32, copy=False)
        known = valid.reshape(len(valid), -1)[:, pixels]
        if separation is not None:
            separation = separation.reshape(2, -1)[:, pixels] / known.sum(axis=0, dtype=np.float32)
        return cls(scene, tuple(dates), valid, pixels, kept, known, separation)

    @classmethod
    def of_polygons(
        cls, scene: str, dates: Sequence[str], polygons: Sequence[Geometries], shape: tuple[int, int]
    ) -> "Months":
        """Return the months of polygons, in pixel coordinates of a grid of `shape`: each month votes 1 where they lie.

        Nobody knows then what is invalid, so all is valid. Raises MonthsInvalid as `of_probs` does.
        """
        _check(scene, dates, [shape for _ in polygons])
        votes = [
            rasterize(shapes[~shapely.is_empty(shapes)], shape, dtype="uint8").astype(np.float32)
            if len(shapes)
            else np.zeros(shape, np.float32)
            for shapes in polygons
        ]
        found = cls.of_probs(scene, dates, votes)
        return replace(found, polygons=tuple(polygons))

    def spread(self, values: Probs) -> Probs:
        """Return values (K,) of the pixels as a map (h, w), 0 elsewhere."""
        found = np.zeros(self.shape, np.float32)
        found.ravel()[self.pixels] = values
        return found


def _check(scene: str, dates: Sequence[str], shapes: Sequence[tuple[int, ...]]) -> None:
    if len(dates) < 2:
        raise MonthsInvalid(
            f"scene {scene} has {len(dates)} month{'' if len(dates) == 1 else 's'}; wanted two at least, since a "
            "track leads from one month to another: predict more images of it."
        )
    for before, after in pairwise(dates):
        if before >= after:
            found = f"{after} twice" if before == after else f"{after} after {before}"
            raise MonthsInvalid(f"scene {scene} has {found}; wanted each month once, in order: sort them.")
    for date, shape in zip(dates, shapes, strict=True):
        if shape != shapes[0]:
            raise MonthsInvalid(
                f"scene {scene} is {' × '.join(map(str, shape))} px (height × width) in {date}, but "
                f"{' × '.join(map(str, shapes[0]))} in {dates[0]}; wanted one grid for all months: predict it again."
            )
