"""The land: parcels, woods and water, whose colours follow the season."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import fft, ndimage
from scipy.spatial import cKDTree

from sn7.sample.look import Look
from sn7.sample.place import MARGIN, Place

__all__ = ["Floats", "Ints", "Terrain", "cells", "fractal", "make_terrain", "values_at"]

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Terrain:
    """The land of one scene on its canvas of H × W px, with P parcels."""

    parcel: Ints
    """(H, W), the parcel of each pixel."""
    bare: Floats
    """(P, 3), colours without vegetation, 0 to 255."""
    green: Floats
    """(P, 3), colours in full vegetation."""
    vigour: Floats
    """(P,), share of the vegetation in the best month, 0 to 1."""
    peak: Floats
    """(P,), the best month, 1 to 12, fractions allowed."""
    texture: Floats
    """(H, W), factor on the parcels' brightness, about 1."""
    wood: Floats
    """(H, W), share of wood in each pixel, 0 to 1."""
    wood_colour: Floats
    """(H, W, 3)."""
    water: Floats
    """(H, W), share of water, or of a dry river's sand, 0 to 1."""
    water_colour: Floats
    """(3,)."""

    def colours(self, month: int) -> Floats:
        """Return the land in a month (1 to 12) as (H, W, 3) float32, 0 to 255."""
        season = 0.5 + 0.5 * np.cos(2 * np.pi * (month - self.peak) / 12)
        share = (self.vigour * season**1.5)[:, None]
        table = self.bare * (1 - share) + self.green * share
        land = table[self.parcel] * self.texture[..., None]
        land += self.wood[..., None] * (self.wood_colour - land)
        land += self.water[..., None] * (self.water_colour * (0.8 + 0.2 * self.texture[..., None]) - land)
        return land.astype(np.float32)


def make_terrain(rng: np.random.Generator, place: Place, shape: tuple[int, int]) -> Terrain:
    """Return the land of a scene on a canvas of `shape` (rows, columns)."""
    look = place.look
    parcel, stripes = _parcels(rng, shape, look.field)
    count = int(parcel.max()) + 1
    tone = rng.normal(1.0, 0.1, (count, 1)) * place.brightness
    bare = np.asarray(look.bare)[rng.integers(len(look.bare), size=count)] * tone
    green = np.asarray(look.green)[rng.integers(len(look.green), size=count)] * tone
    texture = 1 + 0.05 * fractal(rng, shape, 40, 1.6) + 0.035 * fractal(rng, shape, 6, 0.6)
    texture += stripes * rng.uniform(0, 0.05, count)[parcel]
    texture *= 1 - 0.22 * _hedges(rng, parcel)
    wood, wood_colour = _woods(rng, shape, look)
    return Terrain(
        parcel=parcel,
        bare=bare.astype(np.float32),
        green=green.astype(np.float32),
        vigour=np.clip(rng.normal(look.greenness, 0.3, count), 0, 1).astype(np.float32),
        peak=(rng.normal(1 if place.southern else 6, 1.6, count)).astype(np.float32),
        texture=texture.astype(np.float32),
        wood=wood,
        wood_colour=wood_colour * np.float32(place.brightness),
        water=_water(rng, shape, look),
        water_colour=np.asarray(look.water, np.float32),
    )


def fractal(rng: np.random.Generator, shape: tuple[int, int], scale: float, roughness: float) -> Floats:
    """Return smooth noise of mean 0 and standard deviation 1, (rows, columns) float32.

    `scale` is its longest wavelength in px; a higher `roughness` (the spectrum's slope) is *smoother* noise.
    """
    spectrum = fft.rfft2(rng.standard_normal(shape, dtype=np.float32))
    rows, columns = fft.fftfreq(shape[0])[:, None], fft.rfftfreq(shape[1])[None]
    spectrum *= (scale**-2 + rows**2 + columns**2) ** (-roughness / 2)
    noise = fft.irfft2(spectrum, s=shape)
    return ((noise - noise.mean()) / noise.std()).astype(np.float32)


def cells(rng: np.random.Generator, shape: tuple[int, int], side: float) -> tuple[Ints, npt.NDArray[np.float64]]:
    """Divide a canvas into irregular cells of about `side` px.

    Returns the cell of each pixel, (rows, columns), and the cells' centres, (n, 2) as x, y on the canvas.
    """
    counts = [max(2, round(length / side)) for length in shape]
    rows, columns = np.meshgrid(*(np.arange(n) + 0.5 for n in counts), indexing="ij")
    centres = np.stack([columns, rows], -1).reshape(-1, 2) + rng.uniform(-0.38, 0.38, (counts[0] * counts[1], 2))
    centres *= [shape[1] / counts[1], shape[0] / counts[0]]
    wobble = np.stack([fractal(rng, shape, side, 2.2), fractal(rng, shape, side, 2.2)], -1) * (side / 14)
    y, x = np.indices(shape, dtype=np.float32)
    _, nearest = cKDTree(centres).query((np.stack([x, y], -1) + wobble).reshape(-1, 2))
    return nearest.reshape(shape), centres


def values_at(raster: npt.NDArray[Any], xy: npt.NDArray[np.float64], outside: float) -> npt.NDArray[Any]:
    """Return a canvas' values at image positions (..., 2) as x, y; `outside` beyond the canvas."""
    column, row = np.moveaxis(np.floor(xy).astype(int) + MARGIN, -1, 0)
    inside = (row >= 0) & (row < raster.shape[0]) & (column >= 0) & (column < raster.shape[1])
    values = raster[np.clip(row, 0, raster.shape[0] - 1), np.clip(column, 0, raster.shape[1] - 1)]
    return np.where(inside, values, outside).astype(raster.dtype)


def _parcels(rng: np.random.Generator, shape: tuple[int, int], width: float) -> tuple[Ints, Floats]:
    """Return the parcel of each pixel, numbered from 0, and the rows of a plough, -1 to 1.

    Within a cell of the land all parcels have one direction, as where one owner or one road laid them out.
    """
    system, centres = cells(rng, shape, 5 * width)
    angle = rng.uniform(0, np.pi, len(centres))[system]
    wide = (width * rng.uniform(0.6, 1.5, len(centres)))[system]
    long = wide * rng.uniform(1.2, 3.5, len(centres))[system]
    y, x = np.indices(shape)
    across, along = np.cos(angle) * x + np.sin(angle) * y, -np.sin(angle) * x + np.cos(angle) * y
    uneven = across + 0.3 * wide * np.sin(2 * np.pi * across / (2.7 * wide))  # strips of differing width
    column = np.floor(uneven / wide).astype(np.int64)
    row = np.floor(along / long + (column * 0.618) % 1).astype(np.int64)  # staggered, no chessboard
    key = (system * 4096 + column + 2048) * 4096 + row + 2048
    _, parcel = np.unique(key, return_inverse=True)
    return parcel.reshape(shape), np.sin(across * 1.7).astype(np.float32)


def _hedges(rng: np.random.Generator, parcel: Ints) -> Floats:
    """Return -1 (bright track) to 1 (dark hedge) along some of the parcels' borders, (rows, columns)."""
    kind = rng.choice([1.0, 0.6, 0.0, 0.0, -0.8], int(parcel.max()) + 1)
    border = np.zeros(parcel.shape, bool)
    border[:, 1:] |= parcel[:, 1:] != parcel[:, :-1]
    border[1:] |= parcel[1:] != parcel[:-1]
    return ndimage.gaussian_filter(border * kind[parcel], 0.6, output=np.float32)


def _woods(rng: np.random.Generator, shape: tuple[int, int], look: Look) -> tuple[Floats, Floats]:
    """Return the share of wood in each pixel and the colour of its crowns, lit from one side."""
    patches = fractal(rng, shape, 110, 2.4) + 0.15 * fractal(rng, shape, 12, 1.0)
    wood = np.clip((patches - np.quantile(patches, 1 - look.wood_share)) * 6 + 0.5, 0, 1)
    crowns = ndimage.gaussian_filter(rng.standard_normal(shape, dtype=np.float32), 1.1)
    single = crowns > np.quantile(crowns, 0.985)  # trees that stand alone
    wood = np.maximum(wood, 0.8 * ndimage.gaussian_filter(single.astype(np.float32), 0.8))
    light = crowns - np.roll(crowns, (-1, -1), (0, 1))
    shade = 1 + 0.16 * light / light.std() + 0.08 * fractal(rng, shape, 50, 2.0)
    return wood.astype(np.float32), (shade[..., None] * np.asarray(look.wood)).astype(np.float32)


def _water(rng: np.random.Generator, shape: tuple[int, int], look: Look) -> Floats:
    """Return the share of water: a river along a contour of smooth noise, and a few ponds."""
    height = fractal(rng, shape, max(shape), 3.6)
    slope = np.hypot(*np.gradient(height)) + 1e-4
    distance = np.abs(height - np.quantile(height, rng.uniform(0.2, 0.8))) / slope  # px, nearly
    width = look.river * (1 + 0.35 * fractal(rng, shape, 40, 2.5))
    water = np.clip(width - distance, 0, 1) if look.river else np.zeros(shape)
    if not look.dry_river:
        ponds = fractal(rng, shape, 45, 3.0)
        water = np.maximum(water, np.clip((ponds - 3.0) * 6, 0, 1))
    return np.asarray(water, np.float32)
