"""track: the months of a scene and the rules → its buildings."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import shapely

from sn7.challenge import Tracks
from sn7.score.matching import repair
from sn7.tracking.config import TrackConfig
from sn7.tracking.lifetime import Lifetimes, lifetimes, presence
from sn7.tracking.match import Chain, Polygons, is_valid, match_months
from sn7.tracking.months import Months
from sn7.tracking.pool import mean_probs, pooled, regions

__all__ = ["Buildings", "track"]

Geometries = npt.NDArray[np.object_]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Buildings:
    """What was found in a scene: n buildings, T months."""

    tracks: Tracks
    """The footprints, month by month, in pixel coordinates; those that are bridged among them."""
    ids: Ints
    """(n,), 1, 2, …"""
    outlines: Geometries
    """(n,), the footprint of each; of the last month in which it is seen, where it is not one for all."""
    first: Ints
    """(n,), first month, a place in the months."""
    last: Ints
    """(n,), last month; what is not gone at the end has the scene's last one."""
    probs: Floats
    """(n, T), mean prob in a month; NaN where it is not observed."""
    seen: Mask
    """(n, T), observed, and by itself taken for a building; where a footprint is not seen it is bridged."""
    presence: Floats
    """(n, T), probability that it stands in a month, if it is a building at all."""


def track(months: Months, config: TrackConfig) -> Buildings:
    """Return the buildings of a scene. The same months and rules give the same buildings."""
    return _pool(months, config) if config.method == "pool" else _match(months, config)


def _pool(months: Months, config: TrackConfig) -> Buildings:
    labels, outlines = regions(months, pooled(months, config), config)
    probs = mean_probs(months, labels, config.min_valid)
    found = lifetimes(probs, config)
    kept = np.flatnonzero(found.kept)
    first, last, probs = found.first[kept], found.last[kept], probs[kept]
    month = np.arange(len(months.dates))
    alive = (month >= first[:, None]) & (month <= last[:, None])
    shown = alive if config.fill_unseen else alive & np.isfinite(probs)
    place, building = np.nonzero(shown.T)
    tracks = Tracks(months.scene, months.dates, place, building + 1, outlines[kept][building])
    runs = Lifetimes(found.kept[kept], first, last, found.evidence[kept])
    seen = alive & (np.nan_to_num(probs) >= config.present_level)
    sure = presence(runs, _independence(probs, alive))
    return Buildings(tracks, np.arange(1, len(kept) + 1), outlines[kept], first, last, probs, seen, sure)


def _match(months: Months, config: TrackConfig) -> Buildings:
    chains = match_months(months, [_polygons(months, month, config) for month in range(len(months.dates))], config)
    chains = [chain for chain in chains if len(chain.months) >= config.min_months]
    shape = len(chains), len(months.dates)
    probs, seen, sure = np.full(shape, np.nan, np.float32), np.zeros(shape, bool), np.zeros(shape, np.float32)
    rows: list[tuple[int, int, shapely.Geometry]] = []
    for number, chain in enumerate(chains):
        probs[number, chain.months], seen[number, chain.months] = chain.probs, True
        sure[number, chain.months[0] : chain.months[-1] + 1] = 1
        rows += [(month, number + 1, outline) for month, outline in _without_gaps(months, chain, config)]
    rows.sort(key=lambda row: row[:2])
    tracks = Tracks(
        months.scene,
        months.dates,
        np.array([month for month, _, _ in rows], np.int64),
        np.array([number for _, number, _ in rows], np.int64),
        _as_array([outline for _, _, outline in rows]),
    )
    first = np.array([chain.months[0] for chain in chains], np.int64)
    last = np.array([chain.months[-1] for chain in chains], np.int64)
    outlines = _as_array([chain.outlines[-1] for chain in chains])
    return Buildings(tracks, np.arange(1, len(chains) + 1), outlines, first, last, probs, seen, sure)


def _polygons(months: Months, month: int, config: TrackConfig) -> Polygons:
    """Return the outlines of a month by itself, and their mean probs: 1 for those that are given as polygons."""
    if months.polygons is not None:
        outlines = repair(months.polygons[month])
        outlines = outlines[~shapely.is_empty(outlines) & (shapely.area(outlines) >= config.min_area_px)]
        return outlines, np.ones(len(outlines), np.float32)
    labels, outlines = regions(months, months.probs[month], config)
    return outlines, mean_probs(months, labels, config.min_valid)[:, month]


def _without_gaps(months: Months, chain: Chain, config: TrackConfig) -> Iterator[tuple[int, shapely.Geometry]]:
    """Yield the months of a chain from the first to the last; in one that is missed, the outline from before."""
    following = [*chain.months[1:], chain.months[-1] + 1]
    for month, after, outline in zip(chain.months, following, chain.outlines, strict=True):
        yield month, outline
        for missed in range(month + 1, after):
            if config.fill_unseen or is_valid(months, missed, outline):
                yield missed, outline


def _independence(probs: Floats, alive: Mask) -> float:
    """Return what a month is worth beside an independent one, from how alike the errors of neighbouring months are.

    That is (1 - r) / (1 + r) with r the correlation, over all buildings, of what two months in a row deviate from the
    building's mean while it stands, and while it does not.
    """
    deviation = np.full_like(probs, np.nan)
    for part in (alive, ~alive):
        chosen = part & np.isfinite(probs)
        count = chosen.sum(axis=1, keepdims=True)
        mean = np.where(chosen, probs, 0).sum(axis=1, keepdims=True) / np.maximum(count, 1)
        deviation = np.where(chosen & (count > 2), probs - mean, deviation)
    now, then = deviation[:, :-1], deviation[:, 1:]
    both = np.isfinite(now) & np.isfinite(then)
    spread = float((now[both] ** 2).sum() * (then[both] ** 2).sum()) ** 0.5
    r = float((now[both] * then[both]).sum()) / spread if spread else 0.0
    return float(np.clip((1 - r) / (1 + r), 0.05, 1))


def _as_array(outlines: list[shapely.Geometry]) -> Geometries:
    found = np.empty(len(outlines), object)
    found[:] = outlines
    return found
