"""The plan of a place: where its districts, roads and farms lie, before anything is in the way."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import shapely

from sn7.sample.district import Array, District, Lots, rectangles, turned
from sn7.sample.place import MARGIN, Grid, Place
from sn7.sample.terrain import Ints, cells, values_at

__all__ = ["Plan", "Shapes", "make_plan"]

Shapes = npt.NDArray[np.object_]


@dataclass(frozen=True)
class Plan:
    """What would be built if there were room; shapes are in image pixels."""

    district: Ints
    """(rows, columns) of the canvas, number of the district, -1 outside the town."""
    lots: Lots
    streets: Shapes
    """Streets within the districts; the lots keep clear of them by themselves."""
    roads: Shapes
    """Highways and farm tracks, which go where they like."""


def make_plan(rng: np.random.Generator, place: Place, grid: Grid) -> Plan:
    """Return the plan of a place."""
    district, districts = _districts(rng, place, grid)
    town, streets = _lay_out(rng, district, districts)
    highways = _highways(rng, grid)
    farms, tracks = _farms(rng, grid, highways, district)
    widths = rng.uniform(1.0, 1.6, len(highways))
    return Plan(
        district,
        Lots.join([*town, *farms]),
        streets,
        np.concatenate([tracks, shapely.buffer(highways, widths)]),
    )


def _districts(rng: np.random.Generator, place: Place, grid: Grid) -> tuple[Ints, dict[int, District]]:
    """Return the district of each pixel of the canvas and the districts by number."""
    cell, centres = cells(rng, grid.shape, 72)
    heart = np.array([grid.width, grid.height]) * rng.uniform(0.25, 0.75, 2) + MARGIN
    distance = np.hypot(*(centres - heart).T) * rng.uniform(0.6, 1.6, len(centres))
    chosen = np.argsort(distance)[: max(1, round(place.built_up * len(centres)))]
    districts = {}
    for turn, number in enumerate(chosen):
        style = place.look.styles[turn % len(place.look.styles)]  # in turn: a small town, too, has several
        x, y = centres[number] - MARGIN
        angle, phase, wave = rng.uniform((0, 0, 90), (np.pi, 2 * np.pi, 200))
        districts[int(number)] = District(style, x, y, angle, phase, wave)
    return np.where(np.isin(cell, chosen), cell, -1), districts


def _lay_out(rng: np.random.Generator, cell: Ints, districts: dict[int, District]) -> tuple[list[Lots], Shapes]:
    """Return the lots and the streets that lie inside their own district."""
    lots, streets = [], []
    for number, district in districts.items():
        own = district.lots(rng)
        lots.append(own.take((values_at(cell, own.rings, -1) == number).all(1)))
        for line in district.streets():
            inside = values_at(cell, line, -1) == number
            runs = np.split(np.arange(len(line)), np.flatnonzero(~inside))
            runs = [run[inside[run]] for run in runs]
            streets += [shapely.LineString(line[run]) for run in runs if len(run) > 2]
    widths = rng.uniform(0.55, 0.9, len(streets))
    return lots, shapely.buffer(np.asarray(streets, object), widths, cap_style="flat")


def _highways(rng: np.random.Generator, grid: Grid) -> Shapes:
    """Return lines that cross the whole canvas with gentle bends."""
    count = 1 + round((grid.height * grid.width) ** 0.5 / 200)
    run = np.linspace(-0.75, 0.75, 60) * max(grid.shape)
    lines = []
    for _ in range(count):
        through = rng.uniform(0.1, 0.9, 2) * (grid.width, grid.height)
        waves = [rng.normal(0, 9) * np.sin(run / rng.uniform(25, 90) + rng.uniform(0, 6)) for _ in range(3)]
        line = np.stack([run, np.sum(waves, 0)], -1)
        lines.append(shapely.LineString(turned(line, rng.uniform(0, np.pi)) + through))
    return np.asarray(lines, object)


def _farms(rng: np.random.Generator, grid: Grid, highways: Shapes, cell: Ints) -> tuple[list[Lots], Shapes]:
    """Return farms scattered over the fields, and the tracks that lead from some to the nearest highway."""
    count = max(2, round(grid.height * grid.width / 900))
    spots = rng.random((count, 2)) * [grid.width, grid.height]
    network = shapely.union_all(highways)
    ways = np.asarray([shapely.shortest_line(shapely.Point(spot), network) for spot in spots], object)
    distance = shapely.length(ways)
    wanted = rng.random(count) < 0.12 + 0.88 * np.exp(-distance / 25)  # most stand near a road
    kept = wanted & (distance > 4) & (values_at(cell, spots, -1) < 0)
    ends = shapely.get_coordinates(ways[kept]).reshape(-1, 2, 2)
    tracks = shapely.buffer(ways[kept & (distance < 35)], np.array(0.4), cap_style="flat")
    return [_farm(rng, start, end) for start, end in ends], tracks


def _farm(rng: np.random.Generator, spot: Array, road: Array) -> Lots:
    """Return one to four buildings around `spot`, square to the way to the road."""
    count = int(rng.integers(1, 5))
    angle = np.arctan2(road[1] - spot[1], road[0] - spot[0]) + rng.normal(0, 0.05)
    area = np.clip(19 * np.exp(0.65 * rng.standard_normal(count)), 5, 150)
    u = 2 + np.arange(count) // 2 * 10 + rng.uniform(0, 2, count)
    v = np.where(np.arange(count) % 2, 2.2, -2.2 - np.sqrt(area)) + rng.normal(0, 0.6, count)
    along = np.sqrt(area * rng.uniform(0.6, 2.0, count))
    rings = turned(rectangles(-u - along, -u, v, v + area / along), angle) + spot
    return Lots(rings, np.zeros(count, bool), np.ones(count, bool))
