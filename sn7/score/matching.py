"""One month: which prediction is which true footprint. One to one, with the largest sum of rewards there is."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import shapely
from scipy.sparse import csr_array
from scipy.sparse.csgraph import min_weight_full_bipartite_matching

from sn7.score.clipping import common_areas

__all__ = ["Overlaps", "assign", "overlaps", "repair"]

Geometries = npt.NDArray[np.object_]
Numbers = npt.NDArray[np.intp]
REWARD = 100.0
"""Of a match, beside its IoU: a match more is worth more than any IoU."""


@dataclass(frozen=True)
class Overlaps:
    """Pairs of a true and a predicted footprint, and the IoU of each; three arrays (pairs,)."""

    truth: Numbers
    found: Numbers
    iou: npt.NDArray[np.float64]

    def above(self, iou: float) -> "Overlaps":
        """Return the pairs whose IoU is strictly above `iou`."""
        kept = self.iou > iou
        return Overlaps(self.truth[kept], self.found[kept], self.iou[kept])


def repair(geometry: Geometries) -> Geometries:
    """Return polygons with those that cross themselves made valid; areas and intersections of others raise."""
    broken = ~shapely.is_valid(geometry)
    if not broken.any():
        return geometry
    repaired = geometry.copy()
    repaired[broken] = shapely.make_valid(geometry[broken], method="structure", keep_collapsed=False)
    return repaired


def overlaps(truth: Geometries, found: Geometries, above: float) -> Overlaps:
    """Return all pairs of valid polygons whose IoU is strictly above `above`, 0 or more, in order of `truth`.

    A tree of bounding boxes yields candidates; what even the boxes' intersection cannot lift above `above` is left out
    before any polygon is cut.
    """
    first, second = shapely.STRtree(found).query(truth)
    areas = shapely.area(truth)[first], shapely.area(found)[second]
    boxes = shapely.bounds(truth)[first], shapely.bounds(found)[second]
    sides = np.minimum(boxes[0][:, 2:], boxes[1][:, 2:]) - np.maximum(boxes[0][:, :2], boxes[1][:, :2])
    most = np.minimum(sides.clip(0).prod(axis=1), np.minimum(*areas))
    hopeful = _iou(most, *areas) > above - 1e-9  # what is rounded is left to the exact comparison
    first, second, both = first[hopeful], second[hopeful], [area[hopeful] for area in areas]
    iou = _iou(common_areas(truth[first], found[second]), *both)
    pairs = Overlaps(first, second, iou).above(above)
    order = np.lexsort((pairs.found, pairs.truth))
    return Overlaps(pairs.truth[order], pairs.found[order], pairs.iou[order])


def _iou(common: npt.NDArray[np.float64], *areas: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    whole = areas[0] + areas[1] - common
    return np.divide(common, whole, out=np.zeros_like(common), where=whole > 0)


def assign(pairs: Overlaps) -> tuple[Numbers, Numbers]:
    """Return the matched true and predicted footprints: of all one-to-one choices of pairs that with the most reward.

    A pair's reward is 100 + IoU. Arrays (matches,), in order of the truth. Pairs with no rival, as a rule nearly all,
    match at once; the others are a sparse assignment problem (Jonker and Volgenant 1987), in which each true footprint
    may also go without.
    """
    if not len(pairs.iou):
        return pairs.truth, pairs.found
    alone = (np.bincount(pairs.truth)[pairs.truth] == 1) & (np.bincount(pairs.found)[pairs.found] == 1)
    truth, found = _assign_rivals(pairs.truth[~alone], pairs.found[~alone], pairs.iou[~alone])
    truth, found = np.concatenate([pairs.truth[alone], truth]), np.concatenate([pairs.found[alone], found])
    order = np.argsort(truth)
    return truth[order], found[order]


def _assign_rivals(truth: Numbers, found: Numbers, iou: npt.NDArray[np.float64]) -> tuple[Numbers, Numbers]:
    rows, row = np.unique(truth, return_inverse=True)
    columns, column = np.unique(found, return_inverse=True)
    if not len(rows):
        return truth, found
    nobody = len(columns) + np.arange(len(rows))  # a column of its own for each row that stays without a partner
    costs = np.concatenate([2 - iou, np.full(len(rows), 2 + REWARD)])  # above 0: a zero would be no pair
    places = np.concatenate([row, np.arange(len(rows))]), np.concatenate([column, nobody])
    graph = csr_array((costs, places), shape=(len(rows), len(columns) + len(rows)))
    chosen_rows, chosen = min_weight_full_bipartite_matching(graph)
    matched = chosen < len(columns)
    return rows[chosen_rows[matched]], columns[chosen[matched]]
