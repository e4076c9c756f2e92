"""The probs of a building over the months → its first and last month, and how sure each month is.

Every month that is observed speaks for or against the building, by the log-odds of its mean prob. A lifetime is an
unbroken run of months; of the runs that the rules allow, that with the most evidence is chosen. Months that are not
observed say nothing, and so are bridged.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sn7.tracking.config import TrackConfig

__all__ = ["Lifetimes", "lifetimes", "presence"]

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.intp]
Mask = npt.NDArray[np.bool_]

CLIP = 0.05
"""No month counts as surer than 19 to 1, so that a single one cannot outweigh several."""


@dataclass(frozen=True, eq=False)
class Lifetimes:
    """What the months say of n buildings; T months."""

    kept: Mask
    """(n,), False for ghosts: no run of months that the rules allow speaks for them."""
    first: Ints
    """(n,), first month."""
    last: Ints
    """(n,), last month."""
    evidence: Floats
    """(n, T, T): of each run, by its first and last month, in nats; -inf where the last comes first."""


def lifetimes(probs: Floats, config: TrackConfig) -> Lifetimes:
    """Return the lifetimes of buildings from their mean probs (n, T), NaN where a month is not observed."""
    count, months = probs.shape
    observed = np.isfinite(probs)
    seen = observed & (probs >= config.present_level)
    said = np.where(observed, _log_odds(np.nan_to_num(probs)) - _log_odds(np.float32(config.present_level)), 0)
    run = _sums(said)
    run[:, 1:, :] -= config.change_cost
    run[:, :, :-1] -= config.change_cost
    begins = _starts(observed, seen, config.new_months)
    ends = _starts(observed[:, ::-1], seen[:, ::-1], config.gone_months)[:, ::-1]
    allowed = begins[:, :, None] & ends[:, None, :] & (_sums(seen.astype(np.float32)) >= config.min_months)
    run[:, np.tril(np.ones((months, months), bool), -1)] = -np.inf
    runs = np.where(allowed, run, np.float32(-np.inf)).reshape(count, months * months)
    best = runs.argmax(axis=1)
    most = np.take_along_axis(runs, best[:, None], axis=1)[:, 0]
    return Lifetimes(most > 0, best // months, best % months, run)


def _starts(observed: Mask, seen: Mask, absent: int) -> Mask:
    """Return in which months (n, T) a run may begin.

    That is the first one, and every one that is seen where the last observed one before was not, after `absent`
    observed months at least.
    """
    before: Ints = np.cumsum(observed, axis=1) - observed
    # The running maximum carries the latest observed month's answer over those that are not: 2 t, + 1 if seen.
    clock = np.where(observed, 2 * np.arange(observed.shape[1]) + seen, -1)
    latest = np.maximum.accumulate(np.pad(clock[:, :-1], ((0, 0), (1, 0)), constant_values=-1), axis=1)
    starts = seen & (latest % 2 == 0) & (latest >= 0) & (before >= absent)
    starts[:, 0] = True
    return starts


def presence(found: Lifetimes, independence: float) -> Floats:
    """Return the probability (n, T) that a building, if it is one, stands in a month: all runs, by their evidence.

    `independence`, 0 to 1, is what a month is worth beside one whose error has nothing to do with its neighbours'.
    """
    weight = np.exp(independence * (found.evidence - found.evidence.max(axis=(1, 2), keepdims=True)))
    begun, ended = weight.sum(axis=2), weight.sum(axis=1)
    standing = np.cumsum(begun, axis=1) - np.cumsum(ended, axis=1) + ended
    sure: Floats = (standing / begun.sum(axis=1, keepdims=True)).clip(0, 1)
    return sure


def _log_odds(probs: Floats | np.float32) -> Floats:
    clipped = np.clip(probs, CLIP, 1 - CLIP)
    return np.asarray(np.log(clipped / (1 - clipped)), np.float32)


def _sums(values: Floats) -> Floats:
    """Return the sums (n, T, T) of values (n, T) from each month to each, both included."""
    total = np.pad(np.cumsum(values, axis=1, dtype=np.float32), ((0, 0), (1, 0)))
    return total[:, None, 1:] - total[:, :-1, None]
