"""Shapes drawn once, at three times the resolution, and painted with other colours every month."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import shapely
from affine import Affine
from rasterio.features import rasterize

from sn7.sample.place import MARGIN, Grid
from sn7.sample.terrain import Floats, Ints

__all__ = ["Drawing", "draw", "lay"]

FINE = 3


@dataclass(frozen=True)
class Drawing:
    """Which of N shapes cover which parts of a canvas; only the K pixels that are touched are kept."""

    shape: tuple[int, int]
    count: int
    """N."""
    pixels: Ints
    """(K,), flat positions on the canvas."""
    parts: npt.NDArray[np.int32]
    """(K, 9), number of the shape in each ninth of the pixel, from 1; 0 for none."""

    def cover(self, shown: npt.NDArray[np.bool_] | None = None) -> Floats:
        """Return the share of each pixel, (rows, columns), that the `shown` (N,) shapes cover, or all."""
        cover = np.zeros(self.shape, np.float32)
        cover.ravel()[self.pixels] = self._table(np.zeros((self.count, 3)), shown)[self.parts, 3].mean(1)
        return cover

    def paint(
        self, canvas: Floats, colours: npt.NDArray[np.floating], shown: npt.NDArray[np.bool_] | None = None
    ) -> None:
        """Paint the `shown` (N,) shapes, or all, over a canvas (rows, columns, 3), in place."""
        laid = self._table(colours, shown)[self.parts].mean(1)
        flat = canvas.reshape(-1, 3)
        flat[self.pixels] = flat[self.pixels] * (1 - laid[:, 3:]) + laid[:, :3]

    def _table(self, colours: npt.NDArray[np.floating], shown: npt.NDArray[np.bool_] | None) -> Floats:
        """Return colour and opacity of each shape number, (N + 1, 4), zero for those not shown."""
        table = np.zeros((self.count + 1, 4), np.float32)
        table[1:] = np.concatenate([colours, np.ones((self.count, 1))], 1)
        if shown is not None:
            table[1:][~shown] = 0
        return table


def draw(shapes: Sequence[shapely.Polygon] | npt.NDArray[np.object_], grid: Grid) -> Drawing:
    """Draw polygons in image pixels on the grid's canvas; where they overlap, the later one is seen."""
    rows, columns = grid.shape
    fine = np.zeros((rows * FINE, columns * FINE), np.int32)
    if len(shapes):
        to_image = Affine(1 / FINE, 0.0, -MARGIN, 0.0, 1 / FINE, -MARGIN)
        rasterize(zip(shapes, range(1, len(shapes) + 1), strict=True), out=fine, transform=to_image)
    parts = np.stack([fine[n // FINE :: FINE, n % FINE :: FINE].ravel() for n in range(FINE**2)], 1)
    pixels = np.flatnonzero(parts.any(1))
    return Drawing(grid.shape, len(shapes), pixels, parts[pixels])


def lay(canvas: Floats, alpha: Floats, colour: npt.NDArray[np.floating]) -> None:
    """Paint a colour, or (rows, columns, 3) of them, over a canvas, in place, as far as `alpha` says."""
    canvas += alpha[..., None] * (colour - canvas)
