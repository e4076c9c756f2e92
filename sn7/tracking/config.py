"""TrackConfig: every rule by which months become buildings, so that all of them can be searched."""

from dataclasses import dataclass
from typing import ClassVar

from sn7.fields import Fields, field
from sn7.rules import PolygonRules

__all__ = ["FLOOR", "NAIVE", "TrackConfig"]

FLOOR = 0.1
"""Lowest threshold; what never reaches it in any month is no building, whatever the rules."""


@dataclass(frozen=True)
class TrackConfig(Fields):
    """How the months of a scene become buildings that keep their Id.

    Raises ConfigError at construction where a value has a wrong type or is out of range.
    """

    what: ClassVar[str] = "tracking"

    method: str = field(
        "pool",
        "pool: one footprint a building from the probs of all months, then its first and last month; "
        "match: the polygons of each month to those of the months before",
        choices=("pool", "match"),
    )
    threshold: float = field(0.5, "probs (pool: pooled over the months) from which a pixel is building", FLOOR, 0.99)
    seed_level: float = field(
        0.7, "smoothed probs from here on are seeds, and what has several is parted between them (0: nothing)", 0.0, 1.0
    )
    seed_smoothing: float = field(0.5, "standard deviation, px, by which probs are smoothed for seeds", 0.0, 10.0)
    boundary_share: float = field(0.5, "how much of a boundary output, if any, is taken off for seeds", 0.0, 1.0)
    contact_share: float = field(1.0, "how much of a contact output, if any, is taken off for seeds", 0.0, 1.0)
    min_area_px: float = field(4.0, "smallest footprint, px² of the probs' grid", 0.0, 10_000.0)
    min_months: int = field(
        2, "months in which a building must be seen; with fewer it is a ghost, and dropped", 1, 1000
    )
    fill_unseen: bool = field(True, "give a building its footprint also in months in which it lies under the UDM")
    pool_months: int = field(
        2, "pool: months over which probs are averaged, at least (half of a pixel's, if that is less)", 1, 1000
    )
    pool_doubt: float = field(
        0.3, "pool: by how much a mean of k months counts as lower, times 1/√k, less the same of all months", 0.0, 2.0
    )
    present_share: float = field(
        0.8, "pool: share of the threshold from which a building's mean prob in a month speaks for it", 0.1, 1.5
    )
    min_valid: float = field(
        0.5, "pool: share of a building's pixels that are valid in a month; with less, the month is bridged", 0.01, 1.0
    )
    new_months: int = field(1, "pool: valid months without a building before it counts as new", 1, 1000)
    gone_months: int = field(6, "pool: valid months without a building at the end before it counts as gone", 1, 1000)
    change_cost: float = field(
        1.0, "pool: evidence (log-odds) by which months without a building must speak against it, each way", 0.0, 1000.0
    )
    match_iou: float = field(0.25, "match: a polygon continues a building where their IoU exceeds this", 0.0, 0.99)
    bridge_months: int = field(
        3, "match: valid months that a building may be missed (0: it must be in the month before)", 0, 1000
    )

    @property
    def polygon_rules(self) -> PolygonRules:
        """How probs become footprints."""
        return PolygonRules(
            threshold=self.threshold,
            seed_level=self.seed_level,
            seed_smoothing=self.seed_smoothing,
            boundary_share=self.boundary_share,
            contact_share=self.contact_share,
        )

    @property
    def present_level(self) -> float:
        """Mean of a building's probs from which a month speaks for it."""
        return min(self.present_share * self.threshold, 0.99)


NAIVE = TrackConfig(method="match", seed_level=0.0, min_months=1, bridge_months=0, fill_unseen=False)
"""Month by month, nothing parted, bridged or dropped: the baseline."""
