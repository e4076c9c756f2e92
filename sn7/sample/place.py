"""Where the sample's scenes lie, and the names and grids that follow from it."""

import math
from dataclasses import dataclass

import numpy as np
from affine import Affine

from sn7.sample.look import LOOKS, Look

__all__ = ["FULL_SIZE", "MARGIN", "Grid", "Place", "place_of", "scene_rng"]

ZOOM = 13
FULL_SIZE = 1024
"""Pixels along one side of a tile."""
PIXEL = 4.777314267823516
"""Side of a pixel, in metres of EPSG:3857."""
ORIGIN = 20037508.342789244
"""Half the width of the EPSG:3857 world, metres."""
MARGIN = 16
"""Pixels generated around an image, so that shifts, blur and shadows at its border come from something."""


# Longitude, latitude, look, share of the land that is built-up, brightness. None is a place of SpaceNet 7.
_TRAIN = (
    (16.90, 52.40, "temperate", 0.55, 0.95),
    (17.00, 52.36, "temperate", 0.25, 1.0),  # two tiles east, one south: honest folds keep the two together
    (71.50, 30.20, "arid", 0.65, 1.0),
    (125.60, 7.10, "tropical", 0.30, 1.0),
    (-112.10, 33.40, "arid", 0.85, 0.88),
    (-64.20, -31.40, "steppe", 0.45, 0.95),
    (102.70, 25.00, "tropical", 0.35, 1.25),
    (-83.00, 40.00, "temperate", 0.55, 0.9),
    (2.10, 13.50, "arid", 0.25, 0.95),
    (-48.40, -1.40, "tropical", 0.20, 0.9),
    (172.60, -43.50, "steppe", 0.15, 0.9),
    (51.70, 32.70, "arid", 0.40, 1.0),
)
_TEST = (
    (4.90, 45.70, "temperate", 0.60, 1.0),
    (-8.00, 31.60, "arid", 0.50, 0.95),
    (98.70, 3.60, "tropical", 0.35, 1.05),
    (31.00, -17.80, "steppe", 0.30, 0.95),
)


@dataclass(frozen=True)
class Place:
    """One scene's position and character."""

    split: str
    """train or test."""
    index: int
    x: int
    """Column of the XYZ tile at zoom 13."""
    y: int
    """Row of the XYZ tile, from the north."""
    look: Look
    built_up: float
    """Share of the land that is town, 0 to 1."""
    brightness: float

    @property
    def scene(self) -> str:
        """Name of the scene, from which its georeference follows."""
        return f"L15-{self.x // 4:04d}E-{2047 - self.y // 4:04d}N_{self.x}_{self.y}_{ZOOM}"

    @property
    def southern(self) -> bool:
        """Whether summer is around January."""
        return self.y >= 2**ZOOM // 2

    @property
    def transform(self) -> Affine:
        """Pixel (column, row) of the tile's top-left corner → metres of EPSG:3857."""
        tile = FULL_SIZE * PIXEL
        return Affine(PIXEL, 0.0, self.x * tile - ORIGIN, 0.0, -PIXEL, ORIGIN - self.y * tile)

    def grid(self, size: int) -> "Grid":
        """Return the grid of this scene's images, `size` px wide.

        The first training scene has 1023 rows at full size, as some real ones do.
        """
        short = size == FULL_SIZE and self.split == "train" and self.index == 0
        return Grid(size - 1 if short else size, size)


@dataclass(frozen=True)
class Grid:
    """An image of `height` × `width` px inside the larger canvas that it is generated on."""

    height: int
    width: int

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the canvas: the image and MARGIN px on every side."""
        return self.height + 2 * MARGIN, self.width + 2 * MARGIN

    @property
    def inside(self) -> tuple[slice, slice]:
        """Part of the canvas that is the image."""
        return slice(MARGIN, MARGIN + self.height), slice(MARGIN, MARGIN + self.width)


def place_of(split: str, index: int) -> Place:
    """Return the place of the scene number `index` of `split` ("train" or "test").

    It depends on nothing else, so that a larger sample begins with the smaller one. Past the end of the list
    the places come again, 40 tiles (about 150 km) further east each time.
    """
    places = _TRAIN if split == "train" else _TEST
    lon, lat, look, built_up, brightness = places[index % len(places)]
    x, y = _tile(lon, lat)
    x = (x + 40 * (index // len(places))) % 2**ZOOM
    return Place(split, index, x, y, LOOKS[look], built_up, brightness)


def scene_rng(seed: int, place: Place, stage: int, month: int = 0) -> np.random.Generator:
    """Return the random numbers of a stage of a scene, independent of other scenes, stages and months."""
    return np.random.default_rng([seed, int(place.split == "test"), place.index, stage, month])


def _tile(lon: float, lat: float) -> tuple[int, int]:
    side = 2**ZOOM
    mercator = math.asinh(math.tan(math.radians(lat)))
    return int((lon + 180) / 360 * side), int((1 - mercator / math.pi) / 2 * side)
