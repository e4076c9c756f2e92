"""Districts: parts of a town with one street plan, laid out in street coordinates and bent onto the land.

Street coordinates are (u, v) in px: u along the streets, v across them, the district's centre at (0, 0).
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["STYLES", "District", "Lots", "Style", "rectangles", "turned"]

Array = npt.NDArray[np.float64]
REACH = 85.0
"""Streets run this far from a district's centre, px; what leaves the district's cell is dropped later."""


@dataclass(frozen=True)
class Style:
    """How a kind of district is built; lengths in px, areas in px²."""

    area: float
    """Median footprint."""
    spread: float
    """Standard deviation of the footprints' log area."""
    gap: float
    """Between neighbours; 0 makes rows of houses that touch."""
    setback: float
    """From the middle of the street to the front."""
    block: float
    """Between parallel streets."""
    cross: float
    """Between cross streets."""
    density: float
    """Share of lots that are built on."""
    bend: float
    """Amplitude of the streets' waves."""
    disorder: float
    """Standard deviation of the setback."""


STYLES = {
    "detached": Style(21, 0.50, 1.8, 2.9, 19.5, 70, 0.9, 5, 0.35),
    "terrace": Style(19, 0.40, 0.0, 2.7, 16, 60, 0.95, 3, 0.0),
    "village": Style(20, 0.55, 3.8, 3.4, 22, 110, 0.75, 9, 1.1),
    "compact": Style(18, 0.55, 0.7, 2.0, 13.5, 45, 0.9, 2, 0.25),
    "halls": Style(120, 0.65, 4.0, 3.2, 25, 75, 0.85, 0, 0.5),
}


@dataclass(frozen=True)
class District:
    """One district, placed on the land."""

    style: str
    x: float
    y: float
    angle: float
    """Direction of the streets, radians."""
    phase: float
    wave: float
    """Wavelength of the streets' bend, px."""

    def to_land(self, uv: Array) -> Array:
        """Map street coordinates (..., 2) to image pixels (..., 2) as x, y."""
        wave = np.sin(2 * np.pi * uv[..., 0] / self.wave + self.phase)
        bent = np.stack([uv[..., 0], uv[..., 1] + STYLES[self.style].bend * wave], -1)
        return turned(bent, self.angle) + np.array([self.x, self.y])

    def streets(self) -> list[Array]:
        """Return the streets as lines, each (n, 2) in image pixels."""
        style = STYLES[self.style]
        run = np.arange(-REACH, REACH + 1, 5.0)
        along = [np.stack([run, np.full_like(run, v)], -1) for v in np.arange(-REACH, REACH, style.block)]
        over = [np.stack([np.full_like(run, u), run], -1) for u in np.arange(-REACH, REACH, style.cross)]
        return [self.to_land(line) for line in along + over]

    def lots(self, rng: np.random.Generator) -> "Lots":
        """Return the footprints that this district would have if nothing were in the way."""
        rows = _halls if self.style == "halls" else _houses
        lots = rows(rng, STYLES[self.style])
        return replace(lots, rings=self.to_land(lots.rings))


@dataclass(frozen=True)
class Lots:
    """N footprints to be."""

    rings: Array
    """(N, 4, 2), corners."""
    hall: npt.NDArray[np.bool_]
    """(N,), True for halls, which get other roofs and sometimes a courtyard."""
    built: npt.NDArray[np.bool_]
    """(N,), False for lots that stay open: yards, or the parking lots beside halls."""

    def __len__(self) -> int:
        return len(self.rings)

    def take(self, which: npt.NDArray[Any]) -> "Lots":
        """Return the lots that a boolean mask (N,) or an index array selects."""
        return Lots(*(getattr(self, field.name)[which] for field in fields(self)))

    @classmethod
    def join(cls, parts: Sequence["Lots"]) -> "Lots":
        """Return all lots of one or more `parts`, in their order."""
        return cls(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)))


def rectangles(u0: Array, u1: Array, v0: Array, v1: Array) -> Array:
    """Return the corners of rectangles, (N, 4, 2), from their sides' (N,) coordinates."""
    return np.stack([np.stack(corner, -1) for corner in ((u0, v0), (u1, v0), (u1, v1), (u0, v1))], 1)


def turned(uv: Array, angle: float) -> Array:
    """Rotate positions (..., 2) about the origin by `angle`, in radians from the first axis to the second."""
    cos, sin = np.cos(angle), np.sin(angle)
    return uv @ np.array([[cos, sin], [-sin, cos]])


def _houses(rng: np.random.Generator, style: Style) -> Lots:
    """Houses on both sides of every street, front to the street."""
    rows = [_row(rng, style, street, side) for street in np.arange(-REACH, REACH, style.block) for side in (-1, 1)]
    rings = np.concatenate(rows)
    left, right = rings[:, :, 0].min(1), rings[:, :, 0].max(1)
    crossing = np.floor((left + REACH - 1.6) / style.cross) != np.floor((right + REACH + 1.6) / style.cross)
    rings = rings[~crossing]
    built = rng.random(len(rings)) < style.density
    return Lots(rings, np.zeros(len(rings), bool), built)


def _row(rng: np.random.Generator, style: Style, street: float, side: int) -> Array:
    count = int(2 * REACH / (style.area**0.5 + style.gap))
    area = style.area * np.exp(style.spread * rng.standard_normal(count))
    along = np.sqrt(area * rng.uniform(0.75, 1.7, count))
    across = np.full(count, rng.uniform(3.4, 4.4)) if style.gap == 0 else area / along
    ends = -REACH + np.cumsum(np.maximum(along, 2.0) + style.gap * rng.uniform(0.5, 1.9, count))
    starts = np.concatenate([[-REACH], ends[:-1]])
    # Without a gap a house begins exactly where its neighbour ends: the two footprints share that wall.
    near = street + side * (style.setback + np.abs(style.disorder * rng.standard_normal(count)))
    gap = ends - starts - np.maximum(along, 2.0) if style.gap else 0.0
    return rectangles(starts, ends - gap, near, near + side * across)


def _halls(rng: np.random.Generator, style: Style) -> Lots:
    """Halls and parking lots in a lattice of blocks."""
    length = style.block * rng.uniform(0.6, 1.0)
    u, v = np.meshgrid(np.arange(-REACH, REACH, length), np.arange(-REACH, REACH, style.block))
    u, v = u.ravel(), v.ravel()
    area = style.area * np.exp(style.spread * rng.standard_normal(len(u)))
    deep = np.clip(np.sqrt(area / rng.uniform(0.8, 2.4, len(u))), 5, style.block - 2 * style.setback)
    wide = np.clip(area / deep, 4, length - 3)
    start, near = u + rng.uniform(1, 2, len(u)), v + style.setback
    built = rng.random(len(u)) < style.density
    return Lots(
        rectangles(start, start + wide, near, near + deep),
        np.ones(len(u), bool),
        built,
    )
