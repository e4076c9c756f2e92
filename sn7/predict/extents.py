"""Where images lie, as far as that is known before a pixel is read."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd
import numpy as np
import shapely
from affine import Affine
from rasterio.crs import CRS

from sn7.errors import ImageUnreadable, MonthsInvalid
from sn7.ground import ground_m2
from sn7.imagereader import ImageReader, open_image
from sn7.predict.inputs import Job

__all__ = ["Extent", "amounts", "extent_of", "extents_of", "require_one_grid"]

APART = 0.1
"""Pixels by which the corners of two grids may lie apart."""


@dataclass(frozen=True)
class Extent:
    """The grid of an image."""

    shape: tuple[int, int]
    transform: Affine
    crs: CRS | None

    @property
    def km2(self) -> float:
        """Area on the ground; 0 without a CRS."""
        if self.crs is None:
            return 0.0
        height, width = self.shape
        border = shapely.segmentize(shapely.box(0, 0, width, height), max(height, width) / 16)
        place = gpd.GeoSeries([border], crs=self.crs).affine_transform(self.transform.to_shapely())
        return float(ground_m2(place)[0]) / 1e6


def extent_of(image: ImageReader) -> Extent:
    """Return where an open image lies."""
    return Extent(image.shape, image.transform, image.crs)


def extents_of(jobs: Iterable[Job]) -> dict[Path, Extent]:
    """Return where the images of jobs lie; those that cannot be read are left out."""
    extents = {}
    for job in jobs:
        with suppress(ImageUnreadable), open_image(job.source, job.udm) as image:
            extents[job.source] = extent_of(image)
    return extents


def amounts(extents: Mapping[Path, Extent]) -> tuple[str, dict[Path, float]]:
    """Return the unit of how much work each image is, km², or millions of pixels where one has no CRS, and that."""
    if all(extent.crs for extent in extents.values()):
        return "km²", {source: extent.km2 for source, extent in extents.items()}
    return "Mpx", {source: extent.shape[0] * extent.shape[1] / 1e6 for source, extent in extents.items()}


def require_one_grid(months: Iterable[Job], extents: Mapping[Path, Extent]) -> None:
    """Raise MonthsInvalid where grids differ by more than missing rows or columns, so that they cannot be pooled."""
    sources = [job.source for job in months if job.source in extents]
    for source in sources[1:]:
        if not _apart(extents[sources[0]], extents[source]) <= APART:
            raise MonthsInvalid(
                f"{source} and {sources[0]} do not lie on one grid, so they cannot be pooled; wanted images of one "
                "place: predict them with --pool none."
            )


def _apart(first: Extent, second: Extent) -> float:
    """Return how far apart, px, a corner of the second image lies on the two grids at most."""
    if first.crs != second.crs:
        return np.inf
    height, width = second.shape
    corners = ((0, 0), (width, height))
    to_first = ~first.transform @ second.transform
    return max(float(np.hypot(*np.subtract(to_first @ corner, corner))) for corner in corners)
