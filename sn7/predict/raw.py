"""Outputs on disk, on their way from the network to the maps: written and read a few rows at a time."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from affine import Affine
from rasterio.crs import CRS

from sn7.files import atomic_file

__all__ = ["RawOutputs", "write_raw"]

Outputs = npt.NDArray[np.float32]

PIXELS = 1 << 21
"""Pixels that are read at a time, about: 8 MiB of each output."""


@dataclass(frozen=True)
class RawOutputs:
    """Rows one after the other, of each row its channels, of each channel its pixels: float32, NaN where invalid."""

    path: Path
    channels: int
    shape: tuple[int, int]
    """Height and width, of the outputs' own grid."""
    transform: Affine
    crs: CRS | None

    def strips(self, multiple: int = 1, pixels: int = PIXELS) -> Iterator[Outputs]:
        """Yield (channels, rows, width) from top to bottom, `pixels` at a time, in whole multiples of rows."""
        rows = max(pixels // self.shape[1] // multiple, 1) * multiple
        for first in range(0, self.shape[0], rows):
            yield self.rows(first, first + rows)

    def rows(self, first: int, last: int) -> Outputs:
        """Return the rows from `first` to before `last` that there are, (channels, rows, width)."""
        height, width = self.shape
        count = max(min(last, height) - first, 0) * self.channels * width
        offset = first * self.channels * width * np.dtype(np.float32).itemsize
        values = np.fromfile(self.path, np.float32, count, offset=offset)
        return values.reshape(-1, self.channels, width).transpose(1, 0, 2)


def write_raw(path: Path, width: int, patches: Iterator[tuple[int, int, Outputs]]) -> None:
    """Write patches (first row, first column, outputs (channels, rows, columns)) to their places, atomically.

    Raises DiskFull.
    """
    with atomic_file(path) as temporary, temporary.open("wb") as file:
        for top, left, outputs in patches:
            for row, channels in enumerate(outputs.transpose(1, 0, 2), top):
                for channel, values in enumerate(channels, row * len(channels)):
                    file.seek((channel * width + left) * outputs.itemsize)
                    file.write(values.data)
