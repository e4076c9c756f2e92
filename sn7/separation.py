"""Footprints → boundary and contact rasters, from which a network learns to keep neighbours apart."""

import numpy as np
import numpy.typing as npt
import shapely
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import MergeAlg

from sn7.footprints import Footprints, collector_paused
from sn7.masks import burn, rasterize_mask, refined, to_pixels

__all__ = ["BOUNDARY", "CONTACT", "separation_channels"]

BOUNDARY = 1.0
"""Width of a boundary, px, inwards of the outline. Of the footprints of scene 1615E 94 % keep a pixel that is no
boundary, the median one 4 of its 18 px; with 1.5 px it would be 59 %, with 2 px 20 %."""
CONTACT = 1.0
"""How far each footprint is grown, px, about as far as footprints are misplaced against their image: those less than
twice as far apart are in contact."""


@collector_paused()
@np.errstate(all="ignore")  # GEOS divides by nothing on the way where an outline has no area, and numpy would warn
def separation_channels(
    footprints: Footprints, shape: tuple[int, int], transform: Affine, crs: CRS, scale: int = 1
) -> npt.NDArray[np.uint8]:
    """Return the boundary and the contact raster of an image, uint8 {0, 1} (2, scale · height, scale · width).

    Boundary: a pixel of the mask whose centre is nearer than BOUNDARY to its footprint's outline, outer or inner.
    Contact: the centre lies in two different footprints, each grown by CONTACT. Both in pixels of the image,
    whose grid may be refined `scale` times: the same outlines and distances, sampled more finely.
    `transform` and `crs` are the image's; footprints in another CRS are reprojected.
    Raises LabelsUnreadable where there are footprints, but elsewhere than the image.
    """
    pixels = refined(to_pixels(footprints, shape, transform, crs), scale)
    shape = scale * shape[0], scale * shape[1]
    found = _mended(pixels.geometries)
    cores = shapely.buffer(found, -scale * BOUNDARY, quad_segs=2)
    grown = shapely.buffer(found, scale * CONTACT, quad_segs=2)
    # What is mended may cover more than the mask, which fills an outline that crosses itself by even-odd.
    boundary = (_count(found, shape) > _count(cores, shape)) & (rasterize_mask(pixels, shape, transform, crs) == 1)
    contact = _count(grown, shape) > 1
    return np.stack([boundary, contact]).view(np.uint8)


def _mended(geometries: npt.NDArray[np.object_]) -> npt.NDArray[np.object_]:
    """Return geometries without self-intersections, which would count a pixel twice for one footprint."""
    broken = ~shapely.is_valid(geometries)
    mended = geometries.copy()
    valid = shapely.make_valid(geometries[broken], method="structure", keep_collapsed=False)
    mended[broken] = shapely.buffer(valid, 0)  # without the lines that a sliver leaves
    return mended


def _count(geometries: npt.NDArray[np.object_], shape: tuple[int, int]) -> npt.NDArray[np.uint16]:
    """Return in how many geometries each pixel's centre lies, uint16 (height, width)."""
    count = np.zeros(shape, np.uint16)
    parts = shapely.get_parts(geometries)
    parts = parts[~shapely.is_empty(parts)]
    if len(parts):
        _, points, (rings, polygons) = shapely.to_ragged_array(parts)
        burn(points, rings, polygons, count, MergeAlg.add)
    return count
