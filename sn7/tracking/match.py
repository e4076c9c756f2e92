"""Buildings from the polygons of each month, matched to those of the months before: by IoU, one to one, optimally."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import shapely

from sn7.score.matching import assign, overlaps
from sn7.tracking.config import TrackConfig
from sn7.tracking.months import Months

__all__ = ["Chain", "is_valid", "match_months"]

Polygons = tuple[npt.NDArray[np.object_], npt.NDArray[np.float32]]
"""Valid outlines in pixel coordinates, and the mean prob of each."""


@dataclass
class Chain:
    """A building and the polygons that it was seen as: of its months, in order."""

    months: list[int] = field(default_factory=list)
    outlines: list[shapely.Geometry] = field(default_factory=list)
    probs: list[float] = field(default_factory=list)
    """Mean prob of each polygon."""
    missed: int = 0
    """Months since the last one in which it should have been seen."""

    def add(self, month: int, outline: shapely.Geometry, prob: float) -> None:
        """Continue it."""
        self.months.append(month)
        self.outlines.append(outline)
        self.probs.append(prob)
        self.missed = 0


def match_months(months: Months, polygons: Sequence[Polygons], config: TrackConfig) -> list[Chain]:
    """Return the chains of polygons, in order of their first month; of all lengths.

    A chain can be continued until it has been missed in more than `bridge_months` months in which its place was
    valid. Where polygons merge, the merged one continues the one that it overlaps most; if the other comes back
    in time, so does its chain.
    """
    finished: list[Chain] = []
    open_chains: list[Chain] = []
    for month, (outlines, probs) in enumerate(polygons):
        last = np.empty(len(open_chains), object)
        last[:] = [chain.outlines[-1] for chain in open_chains]
        chains, places = assign(overlaps(last, outlines, config.match_iou))
        for chain, place in zip(chains.tolist(), places.tolist(), strict=True):
            open_chains[chain].add(month, outlines[place], float(probs[place]))
        _count_missed(months, month, np.delete(np.arange(len(open_chains)), chains), open_chains, config)
        for place in np.delete(np.arange(len(outlines)), places).tolist():
            open_chains.append(Chain())
            open_chains[-1].add(month, outlines[place], float(probs[place]))
        finished += [chain for chain in open_chains if chain.missed > config.bridge_months]
        open_chains = [chain for chain in open_chains if chain.missed <= config.bridge_months]
    return sorted(finished + open_chains, key=lambda chain: chain.months[0])


def _count_missed(
    months: Months, month: int, unmatched: npt.NDArray[np.intp], chains: list[Chain], config: TrackConfig
) -> None:
    """Count a month for the chains that were not continued, but not where it is invalid, unless nothing is bridged."""
    for chain in unmatched.tolist():
        if config.bridge_months == 0 or is_valid(months, month, chains[chain].outlines[-1]):
            chains[chain].missed += 1


def is_valid(months: Months, month: int, outline: shapely.Geometry) -> bool:
    """Return whether a month's image is usable in the middle of an outline."""
    inside, (height, width) = shapely.point_on_surface(outline), months.shape
    row, column = min(max(int(inside.y), 0), height - 1), min(max(int(inside.x), 0), width - 1)
    return bool(months.valid[month, row, column])
