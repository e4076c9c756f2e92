"""Probs → polygons in the coordinates of the image, whole or strip by strip.

Of a raster that comes in strips, only the rows since the first one of an unfinished region are held.
"""

from collections.abc import Iterable, Iterator

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import shapely
from affine import Affine
from rasterio.crs import CRS

from sn7.outlines import outlines
from sn7.regions import label_regions, reach
from sn7.rules import PolygonRules

__all__ = ["MIN_PIXELS", "stream_polygons", "to_polygons"]

Outputs = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int32]

MIN_PIXELS = 4.0
"""Least area of a polygon, px², where nobody knows what that is on the ground: the challenge's own limit of truth."""
MAX_PIXELS = 1 << 24
"""Pixels held at a time; a region that would need more is cut. 838 rows of 20,000 px, which is 2 to 4 km."""
EQUAL_AREA = "+proj=cea +ellps=WGS84"
"""Of true area on the WGS 84 ellipsoid, everywhere; the metres of EPSG:3857 are 1/cos(latitude) too long."""


def to_polygons(outputs: Outputs, rules: PolygonRules, transform: Affine, crs: CRS | None) -> gpd.GeoDataFrame:
    """Return the polygons of probs (h, w), or of probs, boundary and contact (3, h, w), float32, NaN where invalid.

    Each is a region of `sn7.regions` in its outline of `sn7.outlines`, simplified, holes kept, in `crs`; neighbours
    may overlap by what simplifying moved. `transform` is that of the outputs' grid. Columns: Id (1, 2, … by the first
    pixel, row by row), area_m2 (true ground area), mean_prob (mean of probs over the region's pixels), geometry.
    Without a CRS the area is NaN, and MIN_PIXELS px² are the least area in place of `min_area_m2`.
    """
    layers = outputs if outputs.ndim == 3 else outputs[None]
    _, labels = label_regions(layers, rules)
    return _table(*_outlined(labels, layers[0], rules), rules, transform, crs)


def stream_polygons(
    strips: Iterable[Outputs],
    rules: PolygonRules,
    transform: Affine,
    crs: CRS | None,
    max_pixels: int = MAX_PIXELS,
) -> Iterator[gpd.GeoDataFrame]:
    """Yield the polygons of outputs that come in strips, (1 or 3, rows, width), from top to bottom.

    A table as of `to_polygons` for each strip, with the polygons that end in it. They are the same however the raster
    is divided, but for those that need more than `max_pixels` at a time. Ids are in the order in which they come.
    """
    buffer, count = _Buffer(rules, max_pixels), 0
    for top, polygons, probs in buffer.run(strips):
        table = _table(polygons, probs, rules, transform @ Affine.translation(0, top), crs)
        table["Id"] += count
        count += len(table)
        yield table


class _Buffer:
    """The rows in which a region is unfinished, with what lies around it."""

    def __init__(self, rules: PolygonRules, max_pixels: int) -> None:
        self.rules, self.max_pixels = rules, max_pixels
        self.top = 0
        self.rows: Outputs | None = None
        self.done: npt.NDArray[np.bool_]
        """Pixels of regions that have been outlined already."""

    def run(self, strips: Iterable[Outputs]) -> Iterator[tuple[int, npt.NDArray[np.object_], npt.NDArray[np.float64]]]:
        """Yield, for each strip, the buffer's first row, finished polygons in its pixels, and their mean probs."""
        waiting: Outputs | None = None
        for strip in strips:
            if waiting is not None:
                yield self._add(waiting, last=False)
            waiting = strip
        if waiting is not None:
            yield self._add(waiting, last=True)

    def _add(self, strip: Outputs, last: bool) -> tuple[int, npt.NDArray[np.object_], npt.NDArray[np.float64]]:
        if self.rows is None:
            self.rows, self.done = strip, np.zeros(strip.shape[1:], bool)
        else:
            self.rows = np.concatenate([self.rows, strip], axis=1)
            self.done = np.concatenate([self.done, np.zeros(strip.shape[1:], bool)])
        whole, labels = label_regions(self.rows, self.rules)
        closed, needed = self._closed(whole, last)
        polygons, probs = _outlined(labels, self.rows[0], self.rules)
        chosen = closed[whole.ravel()[_first_pixels(labels)]]
        top = self.top
        self._keep_from(needed, closed[whole])
        return top, polygons[chosen], probs[chosen]

    def _closed(self, whole: Labels, last: bool) -> tuple[npt.NDArray[np.bool_], int]:
        """Return for each region, 0 for none, whether it is to be outlined now, and the first row still needed."""
        height, width = whole.shape
        closed = np.ones(int(whole.max()) + 1, bool)
        closed[whole[self.done]] = False
        closed[0] = False
        if last:
            return closed, height
        below = height - reach(self.rules)  # from here on, rows yet to come may matter
        touching = np.unique(whole[max(below, 0) :])
        unfinished = touching[closed[touching]]
        first_rows = _first_pixels(whole)[unfinished - 1] // width
        needed = max(int(min([*first_rows, below])) - reach(self.rules), 0)
        if (height - needed) * width > self.max_pixels:
            return closed, height
        closed[unfinished] = False
        return closed, needed

    def _keep_from(self, row: int, done: npt.NDArray[np.bool_]) -> None:
        assert self.rows is not None
        self.top += row
        if row == self.rows.shape[1]:
            self.rows = None
        else:
            self.rows, self.done = self.rows[:, row:].copy(), (self.done | done)[row:]


def _outlined(
    labels: Labels, probs: Outputs, rules: PolygonRules
) -> tuple[npt.NDArray[np.object_], npt.NDArray[np.float64]]:
    """Return the outline in pixels and the mean prob of each label from 1 on."""
    polygons, owners = outlines(labels, probs, rules.threshold)
    assert len(owners) == labels.max(initial=0)  # one each, in order
    places = np.flatnonzero(labels)
    of = labels.ravel()[places]
    sums = np.bincount(of, probs.ravel()[places], len(polygons) + 1)
    return polygons, sums[1:] / np.bincount(of, minlength=len(polygons) + 1)[1:]


def _first_pixels(labels: Labels) -> npt.NDArray[np.int64]:
    """Return the place of the first pixel, row by row, of each label from 1 on."""
    places = np.flatnonzero(labels)[::-1]
    first = np.zeros(int(labels.max(initial=0)) + 1, np.int64)
    first[labels.ravel()[places]] = places  # of those that are assigned to one label, the last one stays
    return first[1:]


def _table(
    polygons: npt.NDArray[np.object_],
    probs: npt.NDArray[np.float64],
    rules: PolygonRules,
    transform: Affine,
    crs: CRS | None,
) -> gpd.GeoDataFrame:
    if rules.simplify_px > 0:
        polygons = shapely.simplify(polygons, rules.simplify_px)
    geometry = gpd.GeoSeries(polygons, crs=crs).affine_transform(transform.to_shapely())
    if crs is None:
        area, kept = np.full(len(polygons), np.nan), shapely.area(polygons) >= MIN_PIXELS
    else:
        area = shapely.area(geometry.to_crs(EQUAL_AREA).array)
        kept = area >= rules.min_area_m2
    columns = {"Id": np.arange(1, kept.sum() + 1), "area_m2": area[kept], "mean_prob": probs[kept]}
    return gpd.GeoDataFrame(columns, geometry=geometry[kept].array, crs=crs)
