"""What could be taken for a building and is none: parking lots, greenhouses, rocks and bare patches."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import shapely

from sn7.sample.district import Array, rectangles, turned
from sn7.sample.place import MARGIN, Grid, Place
from sn7.sample.terrain import Floats

__all__ = ["make_clutter"]

Shapes = npt.NDArray[np.object_]


def make_clutter(
    rng: np.random.Generator, place: Place, grid: Grid, buildings: Shapes, parking: Shapes
) -> tuple[Shapes, Floats]:
    """Return shapes (D,) in image pixels, none of them on a building, and their colours (D, 3), 0 to 255.

    `parking` are the lots that stay open between halls.
    """
    tarmac = rng.uniform(90, 175, (len(parking), 1)) * [1.0, 0.98, 0.93]
    kinds = [
        (parking, tarmac),
        _patches(rng, place, grid),
        _greenhouses(rng, grid),
        _rocks(rng, place, grid),
    ]
    shapes = np.concatenate([shape for shape, _ in kinds])
    colours = np.concatenate([colour for _, colour in kinds])
    hit, _ = shapely.STRtree(buildings).query(shapely.buffer(shapes, 0.7), predicate="intersects")
    clear = np.ones(len(shapes), bool)
    clear[hit] = False
    return shapes[clear], np.clip(colours[clear], 0, 255).astype(np.float32)


def _patches(rng: np.random.Generator, place: Place, grid: Grid) -> tuple[Shapes, Array]:
    """Bright bare soil: building sites, pits, beaten ground; blobs of 20 to 400 px²."""
    count = _count(rng, grid, 0.2)
    shapes = _blobs(rng, _spots(rng, grid, count), 3.2 * np.exp(0.55 * rng.standard_normal(count)), 14)
    soil = np.asarray(max(place.look.bare, key=sum)) * place.brightness
    return shapes, soil * rng.uniform(0.95, 1.35, (count, 1))


def _rocks(rng: np.random.Generator, place: Place, grid: Grid) -> tuple[Shapes, Array]:
    """Single bright or dark specks of 1 to 7 px², in swarms."""
    swarms = _spots(rng, grid, _count(rng, grid, 0.06))
    count = _count(rng, grid, place.look.rocks)
    spots = swarms[rng.integers(len(swarms), size=count)] + rng.normal(0, 14, (count, 2))
    stray = rng.random(count) < 0.4
    spots[stray] = _spots(rng, grid, int(stray.sum()))
    shapes = _blobs(rng, spots, rng.uniform(0.6, 1.5, count), 6)
    grey = np.where(rng.random((count, 1)) < 0.75, rng.uniform(170, 245, (count, 1)), rng.uniform(40, 80, (count, 1)))
    return shapes, grey * [1.0, 0.96, 0.88]


def _greenhouses(rng: np.random.Generator, grid: Grid) -> tuple[Shapes, Array]:
    """Stacks of long narrow strips under foil or straw."""
    stacks = _count(rng, grid, 0.022)
    rings: list[Array] = []
    for x, y in _spots(rng, grid, stacks):
        count, angle, pitch = int(rng.integers(2, 9)), rng.uniform(0, np.pi), rng.uniform(2.6, 4.5)
        start, length = rng.normal(0, 0.5, count), np.full(count, rng.uniform(12, 30))
        near = np.linspace(0, pitch * (count - 1), count)
        uv = rectangles(start, start + length, near, near + rng.uniform(1.2, 1.8, count))
        rings += list(turned(uv, angle) + np.array([x, y]))
    shapes = np.asarray(_polygons(rings), object)
    return shapes, rng.uniform(165, 235, (len(shapes), 1)) * [1.0, 0.99, 0.95]


def _blobs(rng: np.random.Generator, spots: Array, radius: Array, corners: int) -> Shapes:
    """Irregular outlines around spots (n, 2) with mean radius (n,)."""
    turn = np.arange(corners) * 2 * np.pi / corners
    reach = radius[:, None] * np.clip(rng.normal(1, 0.25, (len(spots), corners)), 0.4, 1.7)
    stretch = rng.uniform(0.6, 1.5, (len(spots), 1))
    ring = np.stack([reach * np.cos(turn) * stretch, reach * np.sin(turn) / stretch], -1)
    return np.asarray(_polygons(spots[:, None] + ring), object)


def _polygons(rings: Iterable[Array]) -> list[shapely.Polygon]:
    return [shapely.Polygon(ring) for ring in rings]


def _spots(rng: np.random.Generator, grid: Grid, count: int) -> Array:
    return rng.uniform(-MARGIN, 0, (count, 2)) + rng.random((count, 2)) * [
        grid.width + MARGIN,
        grid.height + MARGIN,
    ]


def _count(rng: np.random.Generator, grid: Grid, per_thousand: float) -> int:
    return 1 + int(rng.poisson(grid.height * grid.width * per_thousand / 1000))
