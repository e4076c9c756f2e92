"""The town: which footprints of the plan really stand there, since which month, under which roofs."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import shapely
from scipy import ndimage

from sn7.sample.clutter import make_clutter
from sn7.sample.district import Lots
from sn7.sample.place import Grid, Place
from sn7.sample.plan import Shapes, make_plan
from sn7.sample.terrain import Floats, Ints, Terrain, values_at

__all__ = ["Town", "make_town"]

HALL_ROOFS = (
    (240, 236, 226),
    (112, 138, 176),
    (160, 100, 88),
    (160, 156, 148),
    (82, 80, 78),
    (226, 216, 196),
)


@dataclass(frozen=True)
class Town:
    """Everything built in one scene; shapes are in image pixels, x right and y down, colours 0 to 255."""

    footprints: Shapes
    """(N,) polygons that share walls but no area; a footprint's place in this array is its Id."""
    roofs: Floats
    """(N, 3)."""
    born: Ints
    """(N,), the first month, counted from 0, in which the building stands."""
    roads: Shapes
    clutter: Shapes
    """(D,), what could be taken for a building and is none."""
    clutter_colours: Floats
    """(D, 3)."""
    yards: Floats
    """(rows, columns) of the canvas, share of ground that is yard."""


def make_town(rng: np.random.Generator, place: Place, grid: Grid, terrain: Terrain) -> Town:
    """Return the town of a scene, for all months."""
    plan = make_plan(rng, place, grid)
    lots = plan.lots.take(_free(plan.lots, plan.roads, terrain, grid))
    shapes = _courtyards(rng, lots)
    buildings, open_lots = shapes[lots.built], shapes[~lots.built & lots.hall]
    clutter, clutter_colours = make_clutter(rng, place, grid, buildings, open_lots)
    return Town(
        footprints=buildings,
        roofs=_roofs(rng, place, lots.hall[lots.built]),
        born=_births(rng, buildings, plan.district),
        roads=np.concatenate([plan.streets, plan.roads]),
        clutter=clutter,
        clutter_colours=clutter_colours,
        yards=ndimage.gaussian_filter((plan.district >= 0).astype(np.float32), 2.5),
    )


def _free(lots: Lots, roads: Shapes, terrain: Terrain, grid: Grid) -> npt.NDArray[np.bool_]:
    """Return which lots are dry, off the larger roads, near the image, and clear of all earlier lots."""
    shapes = np.asarray(shapely.polygons(lots.rings), object)
    free = (values_at(terrain.water, lots.rings, 1.0) < 0.1).all(1)
    free &= shapely.intersects(shapes, shapely.box(-8, -8, grid.width + 8, grid.height + 8))
    on_road, _ = shapely.STRtree(roads).query(shapes, predicate="intersects")
    free[on_road] = False
    numbers = np.flatnonzero(free)
    first, second = shapely.STRtree(shapes[numbers]).query(shapes[numbers], predicate="intersects")
    first, second = numbers[first], numbers[second]
    overlap = shapely.area(shapely.intersection(shapes[first], shapes[second]))
    free[second[(first < second) & (overlap > 1e-3)]] = False  # rows of houses share walls, no area
    return free


def _courtyards(rng: np.random.Generator, lots: Lots) -> Shapes:
    """Return the lots as polygons; one wide hall in three encloses a courtyard."""
    sides = np.linalg.norm(lots.rings[:, [1, 3]] - lots.rings[:, [0]], axis=-1)
    courtyard = lots.hall & lots.built & (sides.min(1) > 9) & (rng.random(len(lots)) < 0.35)
    centres = lots.rings.mean(1, keepdims=True)
    holes = centres + (lots.rings - centres) * 0.45
    shapes = [
        shapely.Polygon(ring, [hole] if inner else None)
        for ring, hole, inner in zip(lots.rings, holes, courtyard, strict=True)
    ]
    return np.asarray(shapes, object)


def _roofs(rng: np.random.Generator, place: Place, hall: npt.NDArray[np.bool_]) -> Floats:
    """Return a colour for each roof, 0 to 255; halls have a palette of their own everywhere."""
    houses = np.asarray(place.look.roofs)[rng.integers(len(place.look.roofs), size=len(hall))]
    halls = np.asarray(HALL_ROOFS)[rng.integers(len(HALL_ROOFS), size=len(hall))]
    roofs = np.where(hall[:, None], halls, houses) * rng.normal(1.02, 0.16, (len(hall), 1))
    return np.clip(roofs * rng.normal(1, 0.018, (len(hall), 3)), 20, 255).astype(np.float32)


def _births(rng: np.random.Generator, footprints: Shapes, districts: Ints) -> Ints:
    """Return each footprint's first month; a third of the districts is still being built.

    It does not depend on how many months the sample has: fewer months are the beginning of more.
    """
    centres = shapely.get_coordinates(shapely.centroid(footprints))
    growing = rng.random(int(districts.max()) + 2) < 0.35  # the last, which -1 points to, is the countryside
    growth = np.where(growing[values_at(districts, centres, -1)], 0.4, 0.07)
    return np.where(rng.random(len(footprints)) < growth, rng.integers(1, 13, len(footprints)), 0)
