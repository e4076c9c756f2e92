"""Size, bands and place of an image, held against the tile in its scene's name."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from rasterio.crs import CRS

from sn7.catalog import Image
from sn7.check.findings import Finding, finding
from sn7.rasters import RasterImage
from sn7.xyz import TILE_PIXELS, Tile, scene_tile

__all__ = ["TOLERANCE", "Grid", "Position", "examine_grid"]

Position = Literal["its tile", "inside it", "other grid", "elsewhere", "unknown"]
TOLERANCE = 0.5
"""An image this far off its tile, px, still lies where it should: published ones are off by up to 0.0004."""


@dataclass(frozen=True)
class Grid:
    """Size, bands and place of an image that can be used; its dtype is uint8."""

    height: int
    width: int
    bands: int
    crs: str
    transform: tuple[float, ...]
    """Affine coefficients a b c d e f, in units of `crs`."""
    lon: float
    lat: float
    """Centre, degrees."""
    position: Position
    """Against the tile in the scene's name; "its tile" fills it but for a row or column, "inside it" is a crop."""

    @property
    def size(self) -> str:
        """Height × width, px."""
        return f"{self.height} × {self.width}"


def examine_grid(image: Image, raster: RasterImage, findings: list[Finding]) -> Grid:
    """Return an image's grid; what is unusual about it is added to the findings."""
    tile = scene_tile(image.scene)
    grid = Grid(
        *raster.shape,
        bands=3 if raster.alpha is None else 4,
        crs=raster.crs.to_string(),
        transform=tuple(raster.transform[:6]),
        lon=raster.lon,
        lat=raster.lat,
        position=_position(raster, tile) if tile else "unknown",
    )
    if raster.alpha is None:
        findings.append(finding("no_alpha", image.path))
    elif not raster.alpha_marked:
        share = np.count_nonzero(raster.alpha == 0) / raster.alpha.size
        findings.append(finding("alpha_unmarked", image.path, f"{share:.1%} of it are 0"))
    if tile:
        findings += [finding(kind, image.path, found) for kind, found in _unusual(grid, tile)]
    return grid


def _unusual(grid: Grid, tile: Tile) -> list[tuple[str, str]]:
    """Return kind and text of each finding."""
    found = []
    if (grid.height, grid.width) != (TILE_PIXELS, TILE_PIXELS):
        published = {grid.height, grid.width} == {TILE_PIXELS - 1, TILE_PIXELS}
        found.append(("size_1023" if published else "size", f"{grid.size} px (height × width)"))
    if grid.position == "other grid":
        a, _, _, _, e, _ = grid.transform
        found.append(("other_grid", f"{grid.crs}, pixels of {a:.6g} × {-e:.6g}"))
    if grid.position == "elsewhere":
        (lon, lat), place = tile.centre, "{:.4f}, {:.4f}".format
        found.append(("displaced", f"centre at {place(grid.lon, grid.lat)} degrees, its tile's at {place(lon, lat)}"))
    return found


def _position(raster: RasterImage, tile: Tile) -> Position:
    """Compare pixel size and CRS, then the centre, which all but a full image may have anywhere in its tile."""
    wanted = tile.transform
    scale = raster.transform.a / wanted.a, raster.transform.e / wanted.e
    same = raster.crs == CRS.from_epsg(3857) and max(abs(s - 1) for s in scale) * TILE_PIXELS < TOLERANCE
    height, width = raster.shape if same else (0, 0)
    column, row = (TILE_PIXELS * part for part in tile.locate(raster.lon, raster.lat))
    beyond = max(abs(column - TILE_PIXELS / 2) + width / 2, abs(row - TILE_PIXELS / 2) + height / 2) - TILE_PIXELS / 2
    if beyond > TOLERANCE:
        return "elsewhere"
    if not same:
        return "other grid"
    return "its tile" if min(height, width) >= TILE_PIXELS - 1 else "inside it"
