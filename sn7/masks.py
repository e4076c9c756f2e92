"""Footprints → mask and valid rasters on the grid of an image."""

import dataclasses
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import MergeAlg
from rasterio.features import rasterize
from rasterio.transform import array_bounds

from sn7.errors import LabelsUnreadable
from sn7.footprints import Footprints, Offsets, collector_paused
from sn7.rasters import reproject

__all__ = ["ORACLE_SCALE", "burn", "oracle_mask", "rasterize_mask", "refined", "to_pixels", "valid_mask"]

ORACLE_SCALE = 4
"""Times that the grid of a perfect prediction is as fine as the image's."""


def to_pixels(footprints: Footprints, shape: tuple[int, int], transform: Affine, crs: CRS) -> Footprints:
    """Return the same footprints in pixel coordinates, as labels_match_pix has them.

    `shape` (height, width), `transform` (without rotation) and `crs` are the image's; footprints in another CRS
    are reprojected. What is in pixel coordinates already comes back as it is.
    Raises LabelsUnreadable where there are footprints, but elsewhere than the image.
    """
    pixels = footprints.kind == "labels_match_pix"
    points = footprints.points
    if not pixels and footprints.crs is not None and footprints.crs != crs:
        points = reproject(points, footprints.crs, crs)
    if len(footprints):
        _check_place(footprints, points, array_bounds(*shape, Affine.identity() if pixels else transform))
    if pixels:
        return footprints
    points = (points - (transform.c, transform.f)) / (transform.a, transform.e)
    return dataclasses.replace(footprints, kind="labels_match_pix", crs=None, points=points)


def refined(pixels: Footprints, scale: int) -> Footprints:
    """Return footprints in pixel coordinates in those of the same grid refined `scale` times."""
    return dataclasses.replace(pixels, points=pixels.points * scale)


@collector_paused()
def rasterize_mask(
    footprints: Footprints, shape: tuple[int, int], transform: Affine, crs: CRS
) -> npt.NDArray[np.uint8]:
    """Return an image's mask, uint8 (height, width): 1 where a pixel's centre lies in a footprint, else 0.

    `transform` and `crs` are the image's; footprints in another CRS are reprojected.
    Raises LabelsUnreadable where there are footprints, but elsewhere than the image.
    """
    found = to_pixels(footprints, shape, transform, crs)
    mask = np.zeros(shape, np.uint8)
    if len(found):
        burn(found.points, found.rings, found.polygons, mask)
    return mask


def oracle_mask(footprints: Footprints, shape: tuple[int, int], transform: Affine, crs: CRS) -> npt.NDArray[np.uint8]:
    """Return what a perfect prediction at ORACLE_SCALE is worth on the image's grid, uint8 (height, width).

    1 where at least half of the centres of a pixel's 4 × 4 parts lie in a footprint, else 0.
    Raises LabelsUnreadable where there are footprints, but elsewhere than the image.
    """
    pixels, (height, width), scale = to_pixels(footprints, shape, transform, crs), shape, ORACLE_SCALE
    fine = rasterize_mask(refined(pixels, scale), (scale * height, scale * width), transform, crs)
    # Four neighbours of a row, a byte each, are added as one number: at most 16 to a byte, so none runs over.
    sums = fine.view(np.uint32).reshape(height, scale, width).sum(axis=1, dtype=np.uint32)
    sums *= np.uint32(0x01010101)  # the highest byte is now the sum of all four
    return (sums >> np.uint32(24) >= scale * scale // 2).astype(np.uint8)


def burn(
    points: npt.NDArray[np.float64],
    rings: Offsets,
    polygons: Offsets,
    raster: npt.NDArray[Any],
    merge: MergeAlg = MergeAlg.replace,
) -> None:
    """Set `raster` (height, width) to 1, or add 1, where a pixel's centre lies in a polygon.

    Polygons, one at least, are in pixel coordinates, in arrays as those of Footprints.
    """
    positions = points.tolist()
    outlines = [positions[start:end] for start, end in pairwise(rings.tolist())]
    parts = [outlines[start:end] for start, end in pairwise(polygons.tolist())]
    # One MultiPolygon, since rasterio looks at each shape that it is given. Its parts it burns one by one; GDAL would
    # fill them all by even-odd, so what two have in common would be left out.
    rasterize([{"type": "MultiPolygon", "coordinates": parts}], out=raster, merge_alg=merge)


def valid_mask(
    shape: tuple[int, int], alpha: npt.NDArray[np.uint8] | None, unusable: npt.NDArray[np.bool_] | None
) -> npt.NDArray[np.uint8]:
    """Return uint8 (height, width): 0 where `alpha` is 0 or `unusable` (the UDM) is True, else 1."""
    valid = np.ones(shape, np.uint8)
    if alpha is not None:
        valid[alpha == 0] = 0
    if unusable is not None:
        valid[unusable] = 0
    return valid


def _check_place(
    footprints: Footprints, points: npt.NDArray[np.float64], image: tuple[float, float, float, float]
) -> None:
    (left, bottom), (right, top) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
    x_low, x_high, y_low, y_high = *sorted(image[::2]), *sorted(image[1::2])
    # Infinite bounds: a footprint lies outside of the image's projection, so its coordinates are of another.
    finite = np.isfinite([left, bottom, right, top]).all()
    if not (finite and left < x_high and right > x_low and bottom < y_high and top > y_low):
        span = f"span x {left:.6g} … {right:.6g}, y {bottom:.6g} … {top:.6g}" if finite else "have no place in its CRS"
        raise LabelsUnreadable(
            f"{footprints.path} has {len(footprints)} footprints, but not on its image: they {span}, the image "
            f"x {x_low:.6g} … {x_high:.6g}, y {y_low:.6g} … {y_high:.6g}; wanted the same coordinates: correct the "
            "file or get it again."
        )
