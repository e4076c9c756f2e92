"""One image with all that a picture or a measurement of it needs: pixels, mask, footprints, size of the ground."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyproj
from affine import Affine
from rasterio.crs import CRS

from sn7.catalog import Image
from sn7.footprints import Footprints, read_footprints
from sn7.masks import rasterize_mask, to_pixels, valid_mask
from sn7.rasters import RasterImage, read_image, read_udm, reproject

__all__ = ["View", "crop", "read_view"]

Array = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class View:
    """An image as one sees it. Unlike in a prepared set, `valid` says which pixels are usable, labelled or not."""

    image: Image
    rgb: Array
    """(3, height, width)"""
    valid: Array
    """(height, width), 0 where unusable (alpha or UDM), else 1."""
    footprints: Footprints | None
    """In pixel coordinates; None where the image has no label file."""
    mask: Array
    """(height, width), 1 on a footprint, else 0; all 0 where the image is unlabelled."""
    transform: Affine
    """Column and row → x and y in units of `crs`; without rotation."""
    crs: CRS
    lon: float
    lat: float
    """Centre, degrees."""
    ground_m: float
    """Width of a pixel on the ground, metres."""

    @property
    def labelled(self) -> bool:
        """Whether there is a usable footprint, as `sn7 prepare` decides it."""
        return bool(self.footprints)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.rgb.shape[1], self.rgb.shape[2]

    @property
    def unusable_share(self) -> float:
        """Share of the pixels that alpha or UDM makes unusable, 0 to 1."""
        return 1 - int(np.count_nonzero(self.valid)) / self.valid.size

    def ground(self, col: float, row: float) -> tuple[float, float]:
        """Return x and y, in units of the image's CRS, of a place in pixels."""
        grid = self.transform
        return grid.c + grid.a * col, grid.f + grid.e * row

    def pixel(self, x: float, y: float, crs: CRS) -> tuple[float, float]:
        """Return column and row of a place in units of `crs`; inf where it has none in the image's."""
        if crs != self.crs:
            x, y = reproject(np.array([[x, y]]), crs, self.crs)[0].tolist()
        grid = self.transform
        return (x - grid.c) / grid.a, (y - grid.f) / grid.e

    def outlines(self) -> list[npt.NDArray[np.float64]]:
        """Return the rings of all footprints, each (n, 2): column and row in pixels."""
        found = self.footprints
        return [] if found is None else np.split(found.points, found.rings[1:-1])


def read_view(image: Image) -> View:
    """Read an image, its footprints and its UDM. Raises ImageUnreadable, LabelsUnreadable."""
    raster = read_image(image.path)
    footprints, mask = None, np.zeros(raster.shape, np.uint8)
    if image.labels and image.label_kind:
        place = raster.shape, raster.transform, raster.crs
        footprints = to_pixels(read_footprints(image.labels, image.label_kind), *place)
        mask = rasterize_mask(footprints, *place)
    unusable = read_udm(image.udm, raster.shape) if image.udm else None
    return View(
        image=image,
        rgb=raster.rgb,
        valid=valid_mask(raster.shape, raster.alpha, unusable),
        footprints=footprints,
        mask=mask,
        transform=raster.transform,
        crs=raster.crs,
        lon=raster.lon,
        lat=raster.lat,
        ground_m=_ground_metres(raster),
    )


def crop(pixels: Array, row: int, col: int, shape: tuple[int, int], outside: int = 0) -> Array:
    """Return `shape` (height, width) pixels of (…, h, w) from `row` and `col` on, `outside` beyond its borders."""
    out = np.full((*pixels.shape[:-2], *shape), outside, pixels.dtype)
    top, left = max(row, 0), max(col, 0)
    part = pixels[..., top : max(row + shape[0], 0), left : max(col + shape[1], 0)]
    out[..., top - row : top - row + part.shape[-2], left - col : left - col + part.shape[-1]] = part
    return out


def _ground_metres(raster: RasterImage) -> float:
    """Return the width of a pixel along the image's middle row; a metre of Web Mercator is one at the equator only."""
    height, width = raster.shape
    grid = raster.transform
    ends = np.array([[grid.c + grid.a * col, grid.f + grid.e * height / 2] for col in (0, width)])
    (west, south), (east, north) = reproject(ends, raster.crs, CRS.from_epsg(4326))
    return float(pyproj.Geod(ellps="WGS84").inv(west, south, east, north)[2] / width)
