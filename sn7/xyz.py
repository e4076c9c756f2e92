"""A scene's name ↔ its place: `_X_Y_Z` at its end is an XYZ tile of Web Mercator, 1024 × 1024 px."""

import math
import re
from dataclasses import dataclass

from affine import Affine
from rasterio.crs import CRS

__all__ = ["TILE_PIXELS", "Tile", "image_scale", "scene_tile"]

TILE_PIXELS = 1024
"""Side of a tile's full image."""
_HALF_WORLD = math.pi * 6378137.0
"""Metres of EPSG:3857 from its origin to each of its sides."""
_TILE_NAME = re.compile(r".*_(\d{1,8})_(\d{1,8})_(\d{1,2})")


@dataclass(frozen=True)
class Tile:
    """A tile of the XYZ scheme."""

    x: int
    """Column, from longitude -180° eastwards."""
    y: int
    """Row, from the north."""
    zoom: int

    @property
    def transform(self) -> Affine:
        """Column and row of the tile's full image → x and y in metres of EPSG:3857."""
        side = 2 * _HALF_WORLD / 2**self.zoom
        pixel = side / TILE_PIXELS
        return Affine(pixel, 0, self.x * side - _HALF_WORLD, 0, -pixel, _HALF_WORLD - self.y * side)

    @property
    def centre(self) -> tuple[float, float]:
        """Longitude and latitude, degrees."""
        side = 2**self.zoom
        north = math.pi * (1 - 2 * (self.y + 0.5) / side)
        return (self.x + 0.5) / side * 360 - 180, math.degrees(math.atan(math.sinh(north)))

    def locate(self, lon: float, lat: float) -> tuple[float, float]:
        """Return a place as column and row from the tile's top left corner, in tiles: 0 to 1 inside of it."""
        side = 2**self.zoom
        north = math.asinh(math.tan(math.radians(lat))) / math.pi
        return (lon + 180) / 360 * side - self.x, (1 - north) / 2 * side - self.y


def scene_tile(scene: str) -> Tile | None:
    """Return the tile that a scene's name ends with; None where it ends with none."""
    match = _TILE_NAME.fullmatch(scene)
    if match is None:
        return None
    x, y, zoom = (int(part) for part in match.groups())
    return Tile(x, y, zoom) if max(x, y) < 2**zoom else None


def image_scale(scene: str, transform: Affine, crs: CRS) -> float:
    """Return the side of a pixel of a scene's probs in pixels of its images, to which the challenge's CSV refers.

    Below 1 where probs are finer. The tile in the name of a scene tells how large the images' pixels are; without one,
    or in another CRS, the probs count as not finer.
    """
    tile = scene_tile(scene)
    if tile is None or crs != CRS.from_epsg(3857):
        return 1.0
    scale = transform.a / tile.transform.a
    return 1.0 if abs(scale - 1) < 1e-3 else scale
