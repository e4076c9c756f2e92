"""PolygonRules: how probs become polygons, in one object, for a search to vary."""

from dataclasses import dataclass
from typing import ClassVar

from sn7.fields import Fields, field

__all__ = ["PolygonRules"]


@dataclass(frozen=True)
class PolygonRules(Fields):
    """All parameters of `sn7.polygons`. Pixels are those of the raster that the polygons are made of.

    Raises ConfigError at construction where a value has a wrong type or is out of range.
    """

    what: ClassVar[str] = "the rules of polygons"

    threshold: float = field(0.5, "probs from here on are building", 0.001, 0.999)
    seed_level: float = field(
        0.0, "seed scores from here on are seeds, and a watershed parts what has several (0: no seeds)", 0.0, 1.0
    )
    seed_smoothing: float = field(0.0, "standard deviation, px, by which the seed score is smoothed (0: none)", 0.0, 10)
    boundary_share: float = field(0.5, "how much of a boundary output is taken off the seed score", 0.0, 1.0)
    contact_share: float = field(1.0, "how much of a contact output is taken off the seed score", 0.0, 1.0)
    min_area_m2: float = field(30.0, "least ground area of a polygon, m²; smaller ones are dropped", 0.0, 1e9)
    simplify_px: float = field(0.2, "how far an outline may be moved to save corners, px (0: keep all)", 0.0, 10.0)
