"""A scene as the sensor sees it in one month: land, town, light, haze, blur, noise."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import shapely
from scipy import ndimage

from sn7.sample.paint import Drawing, draw, lay
from sn7.sample.place import Grid, Place, scene_rng
from sn7.sample.terrain import Floats, Terrain, fractal, make_terrain
from sn7.sample.town import Town, make_town

__all__ = ["Bytes", "Mask", "Scene", "make_scene"]

Bytes = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
BLACK, CONTRAST = 37, 1.3
"""Real mosaics are stretched hard: dark woods lie near 0, roofs near 255."""
AIR = (178, 182, 186)
"""Colour of haze."""
STAGE_TERRAIN, STAGE_TOWN, STAGE_YARD, STAGE_SENSOR, STAGE_CLOUD = range(5)


@dataclass(frozen=True)
class Scene:
    """A scene, all months of it; months are counted from 0, which is a January."""

    seed: int
    place: Place
    grid: Grid
    town: Town
    terrain: Terrain
    yards: Floats
    """(rows, columns, 3), the ground between houses."""
    roads: Floats
    """(rows, columns), share of road."""
    clutter: Drawing
    sites: Drawing
    """The building sites around the footprints."""
    buildings: Drawing

    def image(self, month: int) -> Bytes:
        """Return the image of a month as (3, height, width) uint8: R, G, B, each at least 1."""
        offset_for_good = self._random(STAGE_SENSOR).normal(0, 0.45, 2)
        rng = self._random(STAGE_SENSOR, month + 1)
        # Image and footprints are about half a pixel apart for good, and each month by some more.
        offset = np.clip(offset_for_good + rng.normal(0, 0.3, 2), -1.2, 1.2)
        return _sense(rng, self.place, self.grid, self._surface(month), offset)

    def clouds(self, month: int) -> Floats | None:
        """Return how dense the clouds are, (height, width) float32, 0 to 1; None where the sky is clear.

        It is in four months of five, and in the first month of every scene.
        """
        if month == 0 or (self.place.index + month) % 5 != 1:
            return None
        rng = self._random(STAGE_CLOUD, month)
        cover = fractal(rng, self.grid.shape, 70, 2.8)[self.grid.inside]
        dense = (cover - np.quantile(cover, rng.uniform(0.84, 0.95))) * 2.5
        return np.clip(dense, 0, 1).astype(np.float32)

    def _surface(self, month: int) -> Floats:
        """Return the colours on the ground, (rows, columns, 3) of the canvas."""
        place, town = self.place, self.town
        canvas = self.terrain.colours(month % 12 + 1)
        lay(canvas, 0.72 * town.yards * (1 - self.terrain.wood), self.yards)
        lay(canvas, self.roads, np.asarray(place.look.road, np.float32))
        self.clutter.paint(canvas, town.clutter_colours)
        wait = town.born - month
        soil = np.asarray(max(place.look.bare, key=sum)) * place.brightness * 1.12
        self.sites.paint(canvas, np.broadcast_to(soil, town.roofs.shape), (wait > 0) & (wait < 4))
        canvas *= 1 - _shadow(place, month, self.buildings.cover(wait <= 0))[..., None]
        self.buildings.paint(canvas, town.roofs, wait <= 0)
        return canvas

    def _random(self, stage: int, month: int = 0) -> np.random.Generator:
        return scene_rng(self.seed, self.place, stage, month)


def make_scene(seed: int, place: Place, grid: Grid) -> Scene:
    """Return the scene of a place; `seed` decides everything but its position."""
    terrain = make_terrain(scene_rng(seed, place, STAGE_TERRAIN), place, grid.shape)
    town = make_town(scene_rng(seed, place, STAGE_TOWN), place, grid, terrain)
    return Scene(
        seed=seed,
        place=place,
        grid=grid,
        town=town,
        terrain=terrain,
        yards=_yards(scene_rng(seed, place, STAGE_YARD), place, grid),
        roads=draw(town.roads, grid).cover(),
        clutter=draw(town.clutter, grid),
        sites=draw(shapely.buffer(town.footprints, 1.3, join_style="mitre"), grid),
        buildings=draw(town.footprints, grid),
    )


def _yards(rng: np.random.Generator, place: Place, grid: Grid) -> Floats:
    """Soil, paving and trees at random."""
    trees = np.clip(0.5 * fractal(rng, grid.shape, 8, 1.2) - 0.2, 0, 1)[..., None] * place.look.trees
    paving = 1 + 0.12 * fractal(rng, grid.shape, 12, 0.8)[..., None]
    yard = np.asarray(place.look.yard) * paving * (1 - trees) + np.asarray(place.look.wood) * trees
    return (yard * place.brightness).astype(np.float32)


def _shadow(place: Place, month: int, buildings: Floats) -> Floats:
    """Return how much the ground darkens beside buildings, away from the morning sun; longest in winter."""
    winter = 0.5 + 0.5 * np.cos(2 * np.pi * (month + 1 - (7 if place.southern else 1)) / 12)
    length = 0.9 + 0.5 * winter
    away = length * (1 if place.southern else -1)
    cast = ndimage.shift(buildings, (away, -0.8 * length), order=1)
    return 0.55 * np.clip(cast - buildings, 0, 1)


def _sense(
    rng: np.random.Generator, place: Place, grid: Grid, surface: Floats, offset: npt.NDArray[np.float64]
) -> Bytes:
    """Return (3, height, width) uint8: the surface blurred, moved by `offset` px, under haze, noisy."""
    blur = rng.uniform(0.8, 1.1)
    gain = rng.normal(1, 0.05) * rng.normal(1, 0.02, 3)
    uneven = 1 + 0.3 * fractal(rng, grid.shape, 150, 3)[grid.inside]
    haze = np.clip(place.look.haze * rng.uniform(0.4, 1.8) * uneven, 0, 1)
    image = np.empty((3, grid.height, grid.width), np.uint8)
    for band in range(3):
        soft = ndimage.gaussian_filter(surface[..., band], blur)
        seen = ndimage.shift(soft, offset, order=1, mode="nearest")[grid.inside]
        seen = (seen - BLACK) * CONTRAST * gain[band]
        seen += haze * (AIR[band] - seen) + rng.normal(0, 1.9, seen.shape)
        image[band] = np.clip(np.rint(seen), 1, 255)  # 0 is kept for unusable pixels
    return image
