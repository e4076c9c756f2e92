"""An image that is read a few rows at a time, with its mask of unusable pixels."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.windows import Window

from sn7.rasters import readable, require_bands, require_place, require_shape

__all__ = ["ImageReader", "open_image"]

ROWS = 512
"""Rows that are looked at together where a whole image is."""


class ImageReader:
    """An open GeoTIFF of uint8 R, G, B (and alpha). Whatever is read raises ImageUnreadable where it is damaged."""

    def __init__(self, path: Path, source: Any, udm_path: Path | None, udm: Any) -> None:
        self.path = path
        self._source, self._udm_path, self._udm = source, udm_path, udm
        self.placed = require_place(path, source)
        """Whether the image has a CRS; without one nobody knows where it lies, or how large its pixels are."""
        self.shape: tuple[int, int] = source.shape
        self.transform: Affine = source.transform
        self.crs: CRS | None = source.crs

    def rgb(self, first: int, last: int) -> npt.NDArray[np.uint8]:
        """Return rows from `first` to before `last`, uint8 (3, rows, width)."""
        return _read(self.path, self._source, [1, 2, 3], Window(0, first, self.shape[1], last - first))

    def valid(self, first: int, last: int, left: int = 0, right: int | None = None) -> npt.NDArray[np.bool_]:
        """Return where these rows, or columns of them, are neither transparent nor, by the mask, unusable: bool."""
        window = Window(left, first, (right or self.shape[1]) - left, last - first)
        valid = np.ones((window.height, window.width), bool)
        if self._source.count == 4:
            valid &= _read(self.path, self._source, 4, window) != 0
        if self._udm is not None and self._udm_path is not None:
            valid &= _read(self._udm_path, self._udm, 1, window) == 0
        return valid

    def any_valid(self) -> bool:
        """Return whether a pixel of the image is valid."""
        height = self.shape[0]
        return any(self.valid(row, min(row + ROWS, height)).any() for row in range(0, height, ROWS))

    def thumbnail(self, longest: int) -> npt.NDArray[np.uint8]:
        """Return the image, uint8 (3, h, w), no side longer than `longest` px: every nth pixel, if it is larger."""
        share = min(longest / max(self.shape), 1)
        shape = (3, *(max(1, round(side * share)) for side in self.shape))
        with readable(self.path):
            picture: npt.NDArray[np.uint8] = self._source.read([1, 2, 3], out_shape=shape)
        return picture


@contextmanager
def open_image(path: Path, udm: Path | None = None) -> Iterator[ImageReader]:
    """Open an image and, where there is one, its mask of unusable pixels `udm`.

    Raises ImageUnreadable where a file is damaged, the image has other bands, a rotated grid, or a CRS but no place in
    it, or where the mask has another shape. An image without a CRS is not `placed`.
    """
    with ExitStack() as files:
        source, mask = _open(path, files), _open(udm, files) if udm else None
        require_bands(path, source)
        if udm:
            require_shape(udm, mask, source.shape)
        yield ImageReader(path, source, udm, mask)


def _open(path: Path, files: ExitStack) -> Any:
    with readable(path):
        return files.enter_context(rasterio.open(path, driver="GTiff"))


def _read(path: Path, source: Any, bands: int | list[int], window: Window) -> npt.NDArray[np.uint8]:
    with readable(path):
        pixels: npt.NDArray[np.uint8] = source.read(bands, window=window)
    return pixels
