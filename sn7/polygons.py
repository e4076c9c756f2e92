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
from scipy import ndimage

from sn7.ground import ground_m2
from sn7.outlines import outlines
from sn7.regions import label_regions, reach
from sn7.rules import PolygonRules

__all__ = ["MIN_PIXELS", "stream_polygons", "to_polygons"]

Outputs = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int32]

MIN_PIXELS = 4.0
"""Least area of a polygon, px², where nobody knows what that is on the ground: the challenge's own limit of truth."""
MAX_PIXELS = 1 << 24
"""Pixels held from a strip to the next; a region that would need more is cut. 838 rows of 20,000 px, so 2 to 4 km."""
COLUMNS = 2048
"""Width, px, of the parts that are outlined at a time: outlining takes 20 times the memory of the probs."""


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
    is divided, but for those that need more than `max_pixels`, which come in parts. Ids are in the order of coming.
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
        whole, _ = ndimage.label(self.rows[0] >= self.rules.threshold, output=np.int32)
        boxes = _boxes(whole)
        closed, cut, needed = self._closed(whole, boxes[:, 0], last)
        top, columns = self.top, boxes[:, 2] // COLUMNS
        found = [self._outlines(whole, boxes, closed & (columns == column)) for column in np.unique(columns[closed])]
        self._keep_from(needed, closed[whole[needed:]], cut[whole[needed:]])
        if not found:
            return top, np.empty(0, object), np.empty(0)
        places, polygons, probs = (np.concatenate(parts) for parts in zip(*found, strict=True))
        order = places.argsort()
        return top, polygons[order], probs[order]

    def _closed(
        self, whole: Labels, first_rows: npt.NDArray[np.int64], last: bool
    ) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_], int]:
        """Return for each region whether it is to be outlined now and whether it is cut, and the first row to keep."""
        height, width = whole.shape
        closed = np.ones(len(first_rows), bool)
        closed[whole[self.done]] = False
        closed[0] = False
        cut = np.zeros_like(closed)
        if last:
            return closed, cut, height
        margin = reach(self.rules)  # from so many rows before the end on, rows yet to come may matter
        touching = np.unique(whole[max(height - margin, 0) :])
        unfinished = touching[closed[touching]]
        needed = first_rows[unfinished] - margin
        held = needed >= height - self.max_pixels // width
        closed[unfinished[held]] = False
        cut[unfinished[~held]] = True
        return closed, cut, max(int(min([*needed[held], height - 2 * margin])), 0)

    def _outlines(
        self, whole: Labels, boxes: npt.NDArray[np.int64], wanted: npt.NDArray[np.bool_]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.object_], npt.NDArray[np.float64]]:
        """Return the first pixels, the outlines and the mean probs of the wanted regions, read from their box alone."""
        assert self.rows is not None
        margin = reach(self.rules)
        top, left = corner = (boxes[wanted].min(axis=0)[[0, 2]] - margin).clip(0)
        box = np.s_[top : boxes[wanted, 1].max() + margin, left : boxes[wanted, 3].max() + margin]
        outputs = self.rows[:, *box]
        _, labels = label_regions(outputs, self.rules)
        polygons, probs = _outlined(labels, outputs[0], self.rules)
        rows, columns = np.divmod(_first_pixels(labels), labels.shape[1])
        chosen = wanted[whole[box][rows, columns]]
        places = (top + rows) * whole.shape[1] + left + columns
        return places[chosen], shapely.transform(polygons[chosen], lambda xy: xy + corner[::-1]), probs[chosen]

    def _keep_from(self, row: int, done: npt.NDArray[np.bool_], cut: npt.NDArray[np.bool_]) -> None:
        """Let go of the rows above. What is left of a region that is cut becomes invalid: what follows is another."""
        assert self.rows is not None
        self.top += row
        if row == self.rows.shape[1]:
            self.rows = None
        else:
            self.rows, self.done = self.rows[:, row:].copy(), self.done[row:] | done
            self.rows[0][cut] = np.nan


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


def _boxes(labels: Labels) -> npt.NDArray[np.int64]:
    """Return the first row, the one after the last, and so the columns, of each label from 0 on, (n, 4); 0 for 0."""
    boxes = [(rows.start, rows.stop, columns.start, columns.stop) for rows, columns in ndimage.find_objects(labels)]
    return np.array([(0, 0, 0, 0), *boxes])


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
        area = ground_m2(geometry)
        kept = area >= rules.min_area_m2
    columns = {"Id": np.arange(1, kept.sum() + 1), "area_m2": area[kept], "mean_prob": probs[kept]}
    return gpd.GeoDataFrame(columns, geometry=geometry[kept].array, crs=crs)
