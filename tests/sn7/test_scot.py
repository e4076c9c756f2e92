import math
from collections.abc import Mapping

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from sn7.challenge import Tracks
from sn7.metrics import Counts
from sn7.score.matching import assign, overlaps
from sn7.score.scot import f1, score_scene

Months = Mapping[int, list[tuple[int, shapely.Polygon]]]
SCENE = "L15-0001E-0002N_3_4_13"


def square(x: float, side: float = 10, y: float = 0) -> shapely.Polygon:
    """Return a square with its corner at (x, y) px."""
    return shapely.box(x, y, x + side, y + side)


def tracks(months: Months) -> Tracks:
    """Return tracks from the ids and outlines of months 0, 1, …"""
    rows = {f"2018-{t + 1:02}": ([n for n, _ in found], [s for _, s in found]) for t, found in months.items()}
    return Tracks.of(SCENE, rows)


def months(*ids_at: Mapping[int, float], side: float = 10) -> Tracks:
    """Return tracks of squares, written id: x, a dictionary a month."""
    return tracks({t: [(n, square(x, side)) for n, x in found.items()] for t, found in enumerate(ids_at)})


START, LATER = {1: 0, 2: 100}, {1: 0, 2: 100, 3: 200}
G = months(START, LATER, LATER)
SWAPPED = months(START, {2: 0, 1: 100, 3: 200}, {2: 0, 1: 100, 3: 200})
WORKED = {
    "G itself": (G, 0, 1, 1, 1),
    "ids 1 and 2 swapped from t1 on": (SWAPPED, 2, 0.75, 1, 0.789474),
    "id 3 missed at t1, found at t2": (months(START, START, LATER), 0, 0.933333, 0, 0),
    "extra id 9@300 at t1 only": (months(START, {**LATER, 9: 300}, LATER), 0, 0.941176, 0.666667, 0.869565),
    "fresh ids in every month": (
        months({1: 0, 2: 100}, {11: 0, 12: 100, 13: 200}, {21: 0, 22: 100, 23: 200}),
        5,
        0.375,
        0.285714,
        0.352941,
    ),
    "all shrunk to 5 × 5 (IoU exactly 0.25)": (months(START, LATER, LATER, side=5), 0, 0, 0, 0),
}


@pytest.mark.parametrize("case", WORKED)
def test_worked_case(case: str) -> None:
    """The score's definition, case by case, computed by hand."""
    proposal, mismatches, f_track, f_change, scot = WORKED[case]
    score = score_scene(G, proposal)
    assert score.mismatches == mismatches
    found = score.f_track, score.f_change, score.scot
    assert found == pytest.approx((f_track, f_change, scot), abs=1e-6)


def test_f1_at_any_iou() -> None:
    """Squares moved by 2 of 10 px have IoU 80 / 120: a match above 0.5 and not above 0.7."""
    moved = months({1: 2, 2: 102}, {1: 2, 2: 102, 3: 202}, {1: 2, 2: 102, 3: 500})
    matches = score_scene(G, moved, (0.25, 0.5, 0.7)).matches
    assert matches == {0.25: Counts(7, 1, 1), 0.5: Counts(7, 1, 1), 0.7: Counts(0, 8, 8)}
    assert f1(matches[0.25]) == pytest.approx(14 / 16)
    assert f1(matches[0.7]) == 0


def test_small_truth_is_not_looked_for() -> None:
    """True footprints under 4 px² are dropped, those of 4 px² and predictions of any size are not."""
    truth = months({1: 0}, {1: 0, 2: 50}, side=2)
    small = tracks({0: [(7, square(100, 1.9))]})
    assert score_scene(truth, months({})).matches[0.25] == Counts(0, 0, 3)
    assert score_scene(small, small).matches[0.25] == Counts(0, 1, 0)


def test_matching_is_optimal_not_greedy() -> None:
    """The best pair by IoU is given up where two matches can be had in place of one."""
    truth = np.array([square(0), square(10)], object)
    found = np.array([square(3), shapely.box(-8, 0, 6, 10)], object)
    pairs = overlaps(truth, found, 0.25)
    # 0 with 0: 70/130 is the best; 1 with 0: 30/170 is too little. 0 with 1: 60/180.
    assert pairs.iou.tolist() == pytest.approx([70 / 130, 60 / 180])
    truth = np.array([square(0), square(8)], object)
    found = np.array([square(3), shapely.box(-8, 0, 6, 10)], object)
    pairs = overlaps(truth, found, 0.25)
    assert (pairs.truth.tolist(), pairs.found.tolist()) == ([0, 0, 1], [0, 1, 0])
    rows, columns = assign(pairs)
    assert (rows.tolist(), columns.tolist()) == ([0, 1], [1, 0])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(4, 12)), min_size=1, max_size=7), st.data())
def test_no_other_assignment_has_more_reward(rows: list[tuple[int, int]], data: st.DataObject) -> None:
    """The matches of overlapping squares have the largest reward that trying all assignments finds."""
    columns = data.draw(st.lists(st.tuples(st.integers(0, 30), st.integers(4, 12)), min_size=1, max_size=6))
    pairs = overlaps(*(np.array([square(x, side) for x, side in some], object) for some in (rows, columns)), 0.25)
    reward = {(t, p): 100 + iou for t, p, iou in zip(pairs.truth, pairs.found, pairs.iou, strict=True)}
    chosen = list(zip(*assign(pairs), strict=True))
    assert len({t for t, _ in chosen}) == len({p for _, p in chosen}) == len(chosen)

    def best(t: int, free: frozenset[int]) -> float:
        if t == len(rows):
            return 0.0
        taken = [reward[t, p] + best(t + 1, free - {p}) for p in free if (t, p) in reward]
        return max([best(t + 1, free), *taken])

    assert math.fsum(reward[pair] for pair in chosen) == pytest.approx(best(0, frozenset(range(len(columns)))))


def test_last_partner_counts_not_the_last_month() -> None:
    """A building that was missed for a month goes on with its last partner; with another one it is a mismatch."""
    truth = months({1: 0}, {1: 0}, {1: 0})
    assert score_scene(truth, months({5: 0}, {}, {5: 0})).mismatches == 0
    assert score_scene(truth, months({5: 0}, {}, {6: 0})).mismatches == 1
    assert score_scene(truth, months({5: 0}, {6: 0}, {6: 0})).mismatches == 1
    assert score_scene(truth, months({5: 0}, {6: 0}, {5: 0})).mismatches == 2


def test_demolition_is_not_scored() -> None:
    """A building that goes and comes back is new once, in its first month."""
    truth = months({1: 0}, {1: 0, 2: 50}, {1: 0}, {1: 0, 2: 50})
    assert score_scene(truth, truth).change == Counts(1, 0, 0)


def test_no_new_building_scores_nothing() -> None:
    """A scene in which nothing is built has SCOT 0, even for a perfect prediction; so has a single month."""
    truth = months(START, START)
    assert (score_scene(truth, truth).f_track, score_scene(truth, truth).scot) == (1, 0)
    assert score_scene(months(START), months(START)).scot == 0


def test_months_without_truth_do_not_count() -> None:
    """Predictions of a month that the truth has not are neither wrong nor an appearance."""
    truth = Tracks.of(SCENE, {"2018-01": ([1], [square(0)]), "2018-03": ([1, 2], [square(0), square(50)])})
    score = score_scene(truth, months({1: 0}, {1: 0, 2: 50, 3: 90}, {1: 0, 2: 50}))
    assert score.matches[0.25] == Counts(3, 0, 0)
    assert score.change == Counts(1, 0, 0)


def test_truth_without_buildings() -> None:
    """A month without a building counts what was predicted in it as wrong."""
    truth = Tracks.of(SCENE, {"2018-01": ([], []), "2018-02": ([1], [square(0)])})
    assert score_scene(truth, months({1: 0}, {1: 0})).matches[0.25] == Counts(1, 1, 0)
    assert score_scene(truth, months({1: 0}, {1: 0})).change == Counts(0, 0, 1)


def test_outlines_that_cross_themselves() -> None:
    """A bow tie is two triangles: half of its box, so IoU 0.5 with a square there."""
    bow_tie = shapely.Polygon([(0, 0), (10, 10), (10, 0), (0, 10)])
    assert score_scene(months({1: 0}), tracks({0: [(1, bow_tie)]}), (0.49, 0.5)).matches == {
        0.49: Counts(1, 0, 0),
        0.5: Counts(0, 1, 1),
    }


def test_courtyards_and_parts_count() -> None:
    """An interior ring is no area; a MultiPolygon is one footprint."""
    ring = shapely.box(0, 0, 10, 10).difference(shapely.box(1, 1, 9, 9))
    parts = shapely.MultiPolygon([square(0, 10), square(20, 10)])
    assert score_scene(months({1: 0}), tracks({0: [(1, ring)]}), (0.3, 0.4)).matches[0.4].tp == 0
    assert score_scene(tracks({0: [(1, parts)]}), tracks({0: [(1, parts)]}), (0.99,)).matches[0.99].tp == 1


@st.composite
def scenes(draw: st.DrawFn) -> Months:
    """Draw up to four months of up to six buildings, each on its own lot, shifted and resized a little at will."""
    found: dict[int, list[tuple[int, shapely.Polygon]]] = {}
    for month in range(draw(st.integers(1, 4))):
        lots = draw(st.lists(st.integers(0, 5), unique=True, max_size=6))
        names = draw(st.permutations(range(6)))
        found[month] = [
            (names[lot], square(12 * lot + draw(st.integers(0, 6)), draw(st.integers(3, 9)))) for lot in lots
        ]
    return found


@settings(max_examples=40, deadline=None)
@given(scenes(), scenes(), st.permutations(range(6)), st.permutations(range(6)), st.randoms(use_true_random=False))
def test_names_and_order_make_no_difference(
    truth: Months, found: Months, true_names: list[int], names: list[int], random: np.random.Generator
) -> None:
    """Other ids for the same buildings, and rows in another order, give the very same score, ties included."""

    def renamed(scene: Months, name: list[int]) -> Tracks:
        again = {t: [(1000 - 7 * name[n], shape) for n, shape in rows] for t, rows in scene.items()}
        for rows in again.values():
            random.shuffle(rows)
        return tracks(again)

    score = score_scene(tracks(truth), tracks(found))
    assert score_scene(renamed(truth, true_names), renamed(found, names)) == score


@settings(max_examples=40, deadline=None)
@given(scenes(), scenes())
def test_scores_lie_between_0_and_1(truth: Months, found: Months) -> None:
    """Whatever is compared, no F1, no term and no SCOT leaves [0, 1], and no count is negative."""
    score = score_scene(tracks(truth), tracks(found), (0.0, 0.25, 0.9))
    assert all(0 <= f1(counts) <= 1 for counts in score.matches.values())
    assert all(0 <= value <= 1 for value in (score.f_track, score.f_change, score.scot))
    assert min(score.track.tp, score.track.fp, score.track.fn) >= 0
    assert score.matches[0.0].tp >= score.matches[0.25].tp >= score.matches[0.9].tp


@settings(max_examples=40, deadline=None)
@given(scenes())
def test_identity_is_perfect(scene: Months) -> None:
    """What is compared with itself scores 1, if a building is new in it."""
    score = score_scene(tracks(scene), tracks(scene))
    assert score.mismatches == 0
    assert score.scot == (1 if score.change.tp else 0)
    some = {n for n, shape in scene[0] if shape.area >= 4}
    later = {n for t, rows in scene.items() if t for n, _ in rows}
    assert bool(score.change.tp) == bool(later - some)
