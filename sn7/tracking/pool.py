"""One footprint a building from the probs of all months: averaged where it stands, labelled once.

A scene is drawn some 24 times by the same model; errors that change from month to month cancel out in the mean, and
what is labelled once keeps its identity and its outline. A building that is new stands only in the later months, so
each pixel is averaged over the run of months, up to the last one or from the first one on, that makes it most of a
building.
"""

import numpy as np
import numpy.typing as npt
import shapely

from sn7.outlines import outlines
from sn7.regions import label_regions
from sn7.tracking.config import TrackConfig
from sn7.tracking.months import Months, Probs

__all__ = ["mean_probs", "pooled", "regions"]

Labels = npt.NDArray[np.int32]
Geometries = npt.NDArray[np.object_]


def pooled(months: Months, config: TrackConfig) -> Probs:
    """Return each pixel's (K,) highest mean of probs over a run that ends with the last or begins with the first month.

    The latter only where the rules let a building be gone at the end.
    A run of k of the pixel's n valid months is lowered by `pool_doubt` · (1 / √k - 1 / √n), as the error of a mean is
    the larger the fewer there are; it has `pool_months` valid months, or half of what the pixel has where that is less.
    """
    valid = months.known.sum(axis=0).astype(np.float32)
    at_least = np.minimum(np.ceil(valid / 2), config.pool_months).clip(1)
    found = _highest(months, at_least, valid, config.pool_doubt, -1)
    if config.gone_months < len(months.dates):
        found = np.maximum(found, _highest(months, at_least, valid, config.pool_doubt, 1))
    return found


def _highest(months: Months, at_least: Probs, valid: Probs, doubt: float, step: int) -> Probs:
    total, count, highest = (np.zeros(len(months.pixels), np.float32) for _ in range(3))
    for probs, known in zip(months.probs[::step], months.known[::step], strict=True):
        total += probs
        count += known
        mean = np.divide(total, count, out=np.zeros_like(total), where=count >= at_least)
        if doubt:
            mean -= np.float32(doubt) * (1 / np.sqrt(count.clip(1)) - 1 / np.sqrt(valid.clip(1)))
        np.maximum(highest, mean, out=highest)
    return highest


def regions(months: Months, values: Probs, config: TrackConfig) -> tuple[Labels, Geometries]:
    """Return the buildings of one map of probs, whose values (K,) at the pixels that could be building are given.

    That is labels (h, w), 0 for no building, and the outline of label i + 1 at place i, in pixel coordinates.
    """
    probs = months.spread(values)
    separation = () if months.separation is None else map(months.spread, months.separation)
    _, labels = label_regions(np.stack([probs, *separation]), config.polygon_rules)
    geometry, _ = outlines(labels, probs, config.threshold)  # one each, in order
    kept = shapely.area(geometry) >= config.min_area_px
    numbers = np.concatenate([[0], np.where(kept, np.cumsum(kept), 0)]).astype(np.int32)
    return numbers[labels], geometry[kept]


def mean_probs(months: Months, labels: Labels, min_valid: float) -> Probs:
    """Return the mean of probs over each label's valid pixels (n, T); NaN where fewer than `min_valid` of them are."""
    owner = labels.ravel()[months.pixels]
    chosen = np.flatnonzero(owner)
    chosen = chosen[np.argsort(owner[chosen], kind="stable")]
    if not len(chosen):
        return np.empty((0, len(months.dates)), np.float32)
    starts = np.searchsorted(owner[chosen], np.arange(1, int(owner.max()) + 1))
    sizes = np.diff(np.append(starts, len(chosen)))
    sums = np.add.reduceat(months.probs[:, chosen], starts, axis=1)
    known = np.add.reduceat(months.known[:, chosen], starts, axis=1, dtype=np.float32)
    enough = (known > 0) & (known >= min_valid * sizes)
    return np.divide(sums, known, out=np.full_like(sums, np.nan), where=enough).T
