"""SCOT as one would write it down first: pair after pair, and back through all earlier months for each match.

Only the assignment is the project's own, so that what differs is the way there.
"""

import numpy as np
import shapely

from sn7.challenge import Tracks
from sn7.metrics import Counts
from sn7.score.matching import Overlaps, assign
from sn7.score.scot import MATCH_IOU, MIN_TRUTH_AREA, SceneScore

__all__ = ["plain_score"]

Footprints = list[tuple[int, shapely.Geometry]]


def plain_score(truth: Tracks, found: Tracks) -> SceneScore:
    """Return what `score_scene` does."""
    matches, track, change, mismatches = Counts(), Counts(), Counts(), 0
    history: list[list[tuple[int, int]]] = []
    seen_true: set[int] = set()
    seen_found: set[int] = set()
    for date in truth.months:
        true = [(n, shape) for n, shape in footprints(truth, date) if shape.area >= MIN_TRUTH_AREA]
        predicted = footprints(found, date)
        pairs = match(true, predicted)
        wrong = sum(is_mismatch(pair, history) for pair in pairs)
        mismatches += wrong
        matches += counts(len(pairs), true, predicted)
        track += counts(len(pairs) - wrong, true, predicted)
        new_true, new_found = {n for n, _ in true} - seen_true, {n for n, _ in predicted} - seen_found
        if history:
            both = sum(t in new_true and p in new_found for t, p in pairs)
            change += counts(both, list(new_true), list(new_found))
        seen_true |= new_true
        seen_found |= new_found
        history.append(pairs)
    return SceneScore(len(truth.months), {MATCH_IOU: matches}, track, change, mismatches)


def footprints(tracks: Tracks, date: str) -> Footprints:
    """Return the ids and outlines of a month."""
    rows = np.flatnonzero(tracks.month == tracks.months.index(date))
    return [(int(tracks.ids[row]), tracks.geometry[row]) for row in rows]


def match(true: Footprints, predicted: Footprints) -> list[tuple[int, int]]:
    """Return the ids of the matches: each pair whose bounding boxes meet is compared."""
    tree = shapely.STRtree([shape for _, shape in predicted])
    pairs = []
    for i, (_, shape) in enumerate(true):
        for j in sorted(tree.query(shape)):
            other = predicted[j][1]
            iou = shape.intersection(other).area / shape.union(other).area
            if iou > MATCH_IOU:
                pairs.append((i, int(j), iou))
    first, second, iou = np.array(pairs, float).reshape(-1, 3).T
    rows, columns = assign(Overlaps(first.astype(np.intp), second.astype(np.intp), iou))
    return [(true[i][0], predicted[j][0]) for i, j in zip(rows, columns, strict=True)]


def is_mismatch(pair: tuple[int, int], history: list[list[tuple[int, int]]]) -> bool:
    """Return whether the last earlier match of either side was with another partner."""
    for side in (0, 1):
        earlier = (old for pairs in reversed(history) for old in pairs if old[side] == pair[side])
        last = next(earlier, pair)
        if last != pair:
            return True
    return False


def counts(tp: int, true: list, predicted: list) -> Counts:
    """Return the counts of so many matches."""
    return Counts(tp, len(predicted) - tp, len(true) - tp)
