"""The object scores of the SpaceNet 7 challenge: F1 at an IoU, and SCOT with its track and its change term.

Defined in Van Etten et al. 2021, "The Multi-Temporal Urban Development SpaceNet Dataset": each month is matched by
itself; the track term takes away matches whose partner has changed, the change term counts first appearances.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import shapely

from sn7.challenge import Tracks
from sn7.metrics import Counts
from sn7.score.matching import Overlaps, assign, overlaps, repair

__all__ = ["MATCH_IOU", "SceneScore", "f1", "score_scene"]

Ints = npt.NDArray[np.int64]
MATCH_IOU = 0.25
"""What a match of the challenge has to exceed."""
MIN_TRUTH_AREA = 4.0
"""px²; smaller true footprints are not looked for. Predictions of any size count."""
NOBODY = -1


@dataclass(frozen=True)
class SceneScore:
    """Counts of a scene's footprints, summed over its months."""

    months: int
    matches: dict[float, Counts]
    """By the IoU that a match has to exceed."""
    track: Counts
    """Those of a match above 0.25, with each mismatch taken from the TP and added to both FP and FN."""
    change: Counts
    """Of first appearances, from the second month on."""
    mismatches: int

    @property
    def f_track(self) -> float:
        """F1 of the track term."""
        return f1(self.track)

    @property
    def f_change(self) -> float:
        """F1 of the change term: 0 where no building is new, even if none was predicted."""
        return f1(self.change)

    @property
    def scot(self) -> float:
        """SCOT, 0 to 1: the F-score of both terms with beta = 2, so that tracking counts more."""
        change, track = self.f_change, self.f_track
        return 5 * change * track / (4 * change + track) if change * track else 0.0


def f1(counts: Counts) -> float:
    """Return F1; 0 where nothing matches, as the challenge has it, also where nothing was to be found."""
    return counts.dice if counts.tp else 0.0


def score_scene(truth: Tracks, found: Tracks, ious: Sequence[float] = (MATCH_IOU,)) -> SceneScore:
    """Return the score of the predicted tracks `found` over the months of `truth`; other months do not count.

    `ious` are the IoUs, each 0 or more and below 1, at which F1 is counted; SCOT is at 0.25 always. Neither what ids
    are called nor the order of rows makes a difference.
    """
    true, predicted = _Months(truth, MIN_TRUTH_AREA), _Months(found, 0.0)
    terms = _Terms(true.identities, predicted.identities)
    matches = dict.fromkeys(ious, Counts())
    for date in truth.months:
        (ids, shapes), (found_ids, found_shapes) = true.at(date), predicted.at(date)
        pairs = overlaps(shapes, found_shapes, min((*ious, MATCH_IOU)))
        for iou in ious:
            matches[iou] += _counts(len(assign(pairs.above(iou))[0]), len(ids), len(found_ids))
        terms.add(ids, found_ids, pairs.above(MATCH_IOU))
    return SceneScore(len(truth.months), matches, terms.track, terms.change, terms.mismatches)


def _counts(tp: int, truth: int, found: int) -> Counts:
    return Counts(tp, found - tp, truth - tp)


class _Months:
    """Tracks month by month, with ids renumbered by what they denote.

    Among equally good matches the assignment takes one by the order of its input, so this must not hang on names: an
    identity's number, and its place in a month, follow from the boxes and areas of its footprints over the months.
    """

    def __init__(self, tracks: Tracks, min_area: float) -> None:
        geometry = repair(tracks.geometry)
        area = shapely.area(geometry)
        kept = (area >= min_area) & ~shapely.is_empty(geometry)
        geometry, month, ids = geometry[kept], tracks.month[kept], tracks.ids[kept]
        signature = np.column_stack([month, shapely.bounds(geometry), area[kept]])
        number = _numbers(ids, month, signature)
        order = np.lexsort((number, month))
        self.identities = int(number.max(initial=-1)) + 1
        self._number, self._geometry = number[order], geometry[order]
        edges = np.searchsorted(month[order], np.arange(len(tracks.months) + 1))
        self._rows = {date: slice(edges[i], edges[i + 1]) for i, date in enumerate(tracks.months)}

    def at(self, date: str) -> tuple[Ints, npt.NDArray[np.object_]]:
        """Return the identities, 0 and up, and the outlines of a month; nothing where it is none of the tracks'."""
        rows = self._rows.get(date, slice(0, 0))
        return self._number[rows], self._geometry[rows]


def _numbers(ids: Ints, month: Ints, signature: npt.NDArray[np.float64]) -> Ints:
    """Return the number of each row's identity, 0 and up, in the order of the identities' signatures."""
    names, name = np.unique(ids, return_inverse=True)
    order = np.lexsort((month, name))
    edges = np.searchsorted(name[order], np.arange(len(names) + 1)).tolist()
    rows = signature[order]
    signatures = [rows[edges[i] : edges[i + 1]].tobytes() for i in range(len(names))]
    number = np.empty(len(names), np.int64)
    number[sorted(range(len(names)), key=signatures.__getitem__)] = np.arange(len(names))
    return number[name]


class _Terms:
    """The two terms, month after month: who was matched with whom last, and who has been there before."""

    def __init__(self, true: int, found: int) -> None:
        self._last_of_true, self._last_of_found = np.full(true, NOBODY), np.full(found, NOBODY)
        self._seen_true, self._seen_found = np.zeros(true, bool), np.zeros(found, bool)
        self._first = True
        self.track, self.change, self.mismatches = Counts(), Counts(), 0

    def add(self, true: Ints, found: Ints, pairs: Overlaps) -> None:
        """Add a month: the identities in it, and their overlaps above 0.25 as places in these."""
        rows, columns = assign(pairs)
        mismatches = self._mismatches(true[rows], found[columns])
        self.mismatches += mismatches
        self.track += _counts(len(rows) - mismatches, len(true), len(found))
        new_true, new_found = ~self._seen_true[true], ~self._seen_found[found]
        if not self._first:
            both = int(np.count_nonzero(new_true[rows] & new_found[columns]))
            self.change += _counts(both, int(new_true.sum()), int(new_found.sum()))
        self._seen_true[true], self._seen_found[found] = True, True
        self._first = False

    def _mismatches(self, true: Ints, found: Ints) -> int:
        """Count matches of which one side was matched before, the last time with another partner; remember all."""
        last_of_true, last_of_found = self._last_of_true[true], self._last_of_found[found]
        changed = (last_of_true != NOBODY) & (last_of_true != found)
        changed |= (last_of_found != NOBODY) & (last_of_found != true)
        self._last_of_true[true], self._last_of_found[found] = found, true
        return int(np.count_nonzero(changed))
