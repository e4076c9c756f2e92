import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from sn7.challenge import Tracks
from sn7.errors import ConfigError, MonthsInvalid
from sn7.score.scot import score_scene
from sn7.tracking.config import NAIVE, TrackConfig
from sn7.tracking.months import Months
from sn7.tracking.track import Buildings, track

SCENE = "L15-0001E-0001N_100_3000_13"
HOUSE, NEW = (2, 2), (2, 10)
"""Row and column of the first of a building's 4 × 4 px."""
POOL = TrackConfig()
MATCH = TrackConfig(method="match")
BOTH = pytest.mark.parametrize("config", [POOL, MATCH], ids=["pool", "match"])


def scene(count: int, *buildings: tuple[tuple[int, int], Sequence[int]], level: float = 0.9) -> npt.NDArray[np.float32]:
    """Return probs (count, 16, 20): 0.1, and `level` on a building's pixels in each of its months."""
    probs = np.full((count, 16, 20), 0.1, np.float32)
    for (row, column), months in buildings:
        probs[np.ix_(list(months), range(row, row + 4), range(column, column + 4))] = level
    return probs


def months_of(probs: npt.NDArray[np.float32]) -> Months:
    """Return them as consecutive months from 2020-01 on."""
    return Months.of_probs(SCENE, [f"2020-{month + 1:02}" for month in range(len(probs))], probs)


def lives(found: Buildings) -> list[tuple[int, int]]:
    """Return first and last month of each building."""
    return list(zip(found.first.tolist(), found.last.tolist(), strict=True))


def iou(one: shapely.Geometry, other: shapely.Geometry) -> float:
    """Return the IoU of two outlines; that of a square and its outline is below 1, since corners are cut."""
    return float(shapely.area(shapely.intersection(one, other)) / shapely.area(shapely.union(one, other)))


def shown(tracks: Tracks, number: int) -> list[int]:
    """Return the months in which a building has a footprint."""
    return sorted(tracks.month[tracks.ids == number].tolist())


@BOTH
def test_a_building_that_appears(config: TrackConfig) -> None:
    """One that stands always and one from the third month on: two Ids, which stay; outlines as drawn."""
    found = track(months_of(scene(6, (HOUSE, range(6)), (NEW, range(2, 6)))), config)
    assert lives(found) == [(0, 5), (2, 5)]
    assert [shown(found.tracks, number) for number in (1, 2)] == [[0, 1, 2, 3, 4, 5], [2, 3, 4, 5]]
    assert iou(found.outlines[0], shapely.box(2, 2, 6, 6)) > 0.95
    assert iou(found.outlines[1], shapely.box(10, 2, 14, 6)) > 0.95
    assert found.seen.tolist() == [[True] * 6, [False] * 2 + [True] * 4]


@BOTH
@pytest.mark.parametrize("fill", [True, False])
def test_a_month_under_the_udm_is_bridged(config: TrackConfig, fill: bool) -> None:
    """Invalid in month 2: the Id stays, there is no new building; the footprint is drawn there only if asked for."""
    probs = scene(5, (HOUSE, range(5)))
    probs[2, :, :8] = np.nan
    found = track(months_of(probs), dataclasses.replace(config, fill_unseen=fill))
    assert lives(found) == [(0, 4)]
    assert shown(found.tracks, 1) == ([0, 1, 2, 3, 4] if fill else [0, 1, 3, 4])
    assert found.seen[0].tolist() == [True, True, False, True, True]
    assert np.isnan(found.probs[0, 2])


@BOTH
def test_a_month_in_which_it_is_missed_is_bridged(config: TrackConfig) -> None:
    """Valid, but not seen in month 2: one building all the same, with a footprint there."""
    found = track(months_of(scene(5, (HOUSE, (0, 1, 3, 4)))), dataclasses.replace(config, fill_unseen=False))
    assert lives(found) == [(0, 4)]
    assert shown(found.tracks, 1) == [0, 1, 2, 3, 4]


@BOTH
@pytest.mark.parametrize("month", [0, 3, 7])
def test_a_ghost_is_dropped(config: TrackConfig, month: int) -> None:
    """Seen in a single month, be it the first or the last one."""
    found = track(months_of(scene(8, (HOUSE, range(8)), (NEW, (month,)))), config)
    assert lives(found) == [(0, 7)]


def test_pooling_drops_what_flickers() -> None:
    """Seen in every fourth of 12 months, which no run of months makes a building."""
    found = track(months_of(scene(12, (HOUSE, range(12)), (NEW, (0, 4, 8)))), POOL)
    assert lives(found) == [(0, 11)]


def test_pooling_finds_what_no_month_shows() -> None:
    """Noise of ± 0.3 around 0.65 hides parts of a building in each month, not in their mean: one Id, one outline."""
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, (12, 4, 4)).astype(np.float32)
    probs = scene(12)
    probs[:, 2:6, 2:6] = 0.65 + noise
    found = track(months_of(probs), POOL)
    assert lives(found) == [(0, 11)]
    assert iou(found.outlines[0], shapely.box(2, 2, 6, 6)) > 0.7
    naive = track(months_of(probs), NAIVE).tracks.geometry
    assert min(iou(outline, shapely.box(2, 2, 6, 6)) for outline in naive) < 0.6


def test_demolition() -> None:
    """Gone for six valid months at the end: its last month is the last one seen; for five, it still counts."""
    assert lives(track(months_of(scene(12, (HOUSE, range(6)))), POOL)) == [(0, 5)]
    assert lives(track(months_of(scene(11, (HOUSE, range(6)))), POOL)) == [(0, 10)]


def test_new_needs_months_without_it() -> None:
    """With new_months = 2, one that is missed in the first month alone was there before."""
    probs = scene(6, (HOUSE, range(1, 6)), (NEW, range(2, 6)))
    assert lives(track(months_of(probs), dataclasses.replace(POOL, change_cost=0.0))) == [(1, 5), (2, 5)]
    assert lives(track(months_of(probs), TrackConfig(new_months=2, change_cost=0.0))) == [(0, 5), (2, 5)]


def test_an_invalid_beginning_makes_nothing_new() -> None:
    """A building under the UDM in the first two months has been there, as far as anyone knows."""
    probs = scene(6, (HOUSE, range(6)))
    probs[:2] = np.nan
    found = track(months_of(probs), POOL)
    assert lives(found) == [(0, 5)]


@pytest.mark.parametrize(("bridge", "expected"), [(0, [(0, 1), (4, 5)]), (1, [(0, 1), (4, 5)]), (2, [(0, 5)])])
def test_match_bridges_as_many_months_as_allowed(bridge: int, expected: list[tuple[int, int]]) -> None:
    """Missed in months 2 and 3."""
    config = dataclasses.replace(MATCH, bridge_months=bridge)
    assert lives(track(months_of(scene(6, (HOUSE, (0, 1, 4, 5)))), config)) == expected


def test_the_naive_way_bridges_no_invalid_month() -> None:
    """A month under the UDM ends all identities; nothing is dropped."""
    probs = scene(5, (HOUSE, range(5)), (NEW, (4,)))
    probs[2] = np.nan
    assert lives(track(months_of(probs), NAIVE)) == [(0, 1), (3, 4), (4, 4)]


@BOTH
def test_merging_and_splitting_keeps_identities(config: TrackConfig) -> None:
    """Two neighbours that one month runs together are the same two afterwards."""
    probs = scene(6, (HOUSE, range(6)), ((2, 7), range(6)))
    probs[3, 2:6, 6] = 0.9  # the gap between them
    found = track(months_of(probs), config)
    assert lives(found) == [(0, 5), (0, 5)]
    assert [shown(found.tracks, number) for number in (1, 2)] == [[0, 1, 2, 3, 4, 5]] * 2


@BOTH
def test_neighbours_are_parted(config: TrackConfig) -> None:
    """Two squares that touch, the line between them a little lower, are two buildings where seeds are asked for."""
    probs = scene(6, (HOUSE, range(6)), ((2, 7), range(6)))
    probs[:, 2:6, 6] = 0.6
    assert len(track(months_of(probs), dataclasses.replace(config, seed_level=0.0)).ids) == 1
    assert len(track(months_of(probs), dataclasses.replace(config, seed_level=0.8)).ids) == 2


@BOTH
def test_contact_parts_neighbours(config: TrackConfig) -> None:
    """Two squares that touch, probs alike all over: the contact output, of a month or of its sum, parts them."""
    probs = scene(4, (HOUSE, range(4)), ((2, 7), range(4)))
    probs[:, 2:6, 6] = 0.9
    separation = np.zeros((2, 16, 20), np.float32)
    separation[1, 2:6, 6] = 0.8 * 4
    dates = [f"2020-0{month}" for month in range(1, 5)]
    for summed, expected in ((None, 1), (separation, 2)):
        found = track(Months.of_probs(SCENE, dates, probs, summed), dataclasses.replace(config, seed_level=0.6))
        assert len(found.ids) == expected


@BOTH
def test_polygons_in_place_of_probs(config: TrackConfig) -> None:
    """The same squares as polygons give the same buildings; a month without one is nothing special."""
    house, new = shapely.box(2, 2, 6, 6), shapely.box(10, 2, 14, 6)
    polygons = [np.array(shapes, object) for shapes in ([house], [], [house, new], [house, new], [house, new])]
    months = Months.of_polygons(SCENE, [f"2020-0{month}" for month in range(1, 6)], polygons, (16, 20))
    found = track(months, config)
    assert lives(found) == [(0, 4), (2, 4)]
    assert iou(found.outlines[1], new) > 0.95


def test_nothing_at_all() -> None:
    """No building, or nothing valid: no rows, and all months."""
    for probs in (scene(3), np.full((3, 16, 20), np.nan, np.float32)):
        for config in (POOL, MATCH):
            found = track(months_of(probs), config)
            assert len(found.tracks) == len(found.ids) == 0
            assert found.tracks.months == ("2020-01", "2020-02", "2020-03")


def test_small_footprints_are_dropped() -> None:
    """The outline of a square of 16 px, corners cut, is larger than 15 px² and smaller than 16."""
    months = months_of(scene(4, (HOUSE, range(4))))
    assert len(track(months, TrackConfig(min_area_px=15)).ids) == 1
    assert len(track(months, TrackConfig(min_area_px=16)).ids) == 0


def test_presence_is_surest_far_from_the_change() -> None:
    """It appears in month 4 of 9, with an unclear month before: near 0 before, near 1 after, open there."""
    probs = scene(9, (NEW, range(4, 9)))
    probs[3, 2:6, 10:14] = 0.35
    found = track(months_of(probs), POOL)
    sure = found.presence[0]
    assert lives(found) == [(4, 8)]
    assert sure[:3].max() < 0.1 < 0.3 < sure[3] < 0.7 < 0.95 < sure[4:].min()


def test_pooling_beats_the_naive_way() -> None:
    """Twelve noisy months of thirty buildings, six of which are new: SCOT of pooled tracks is the higher one."""
    rng = np.random.default_rng(1)
    places = [(row, column) for row in range(2, 62, 8) for column in range(2, 34, 8)][:30]
    births = np.where(np.arange(30) < 6, rng.integers(2, 10, 30), 0)
    probs = np.full((12, 66, 40), 0.2, np.float32)
    for (row, column), birth in zip(places, births, strict=True):
        probs[birth:, row : row + 4, column : column + 4] = 0.7
    probs = (probs + rng.normal(0, 0.25, probs.shape)).clip(0, 1).astype(np.float32)
    dates = [f"2020-{month:02}" for month in range(1, 13)]
    boxes = [shapely.box(column, row, column + 4, row + 4) for row, column in places]
    truth = Tracks.of(
        SCENE,
        {
            date: (np.flatnonzero(births <= month).tolist(), [boxes[i] for i in np.flatnonzero(births <= month)])
            for month, date in enumerate(dates)
        },
    )
    months = Months.of_probs(SCENE, dates, probs)
    pooled, naive = (score_scene(truth, track(months, config).tracks) for config in (POOL, NAIVE))
    assert pooled.scot > 0.9 > 0.7 > naive.scot


@pytest.mark.parametrize(
    ("dates", "said"),
    [
        (["2020-01"], "has 1 month; wanted two at least"),
        (["2020-02", "2020-01"], "has 2020-01 after 2020-02; wanted each month once, in order"),
        (["2020-01", "2020-01"], "has 2020-01 twice; wanted each month once, in order"),
    ],
)
def test_months_that_cannot_be_tracked(dates: list[str], said: str) -> None:
    """One month, months out of order, a month twice."""
    with pytest.raises(MonthsInvalid, match=said):
        Months.of_probs(SCENE, dates, scene(len(dates)))


def test_months_of_two_sizes() -> None:
    """Named with both sizes."""
    with pytest.raises(MonthsInvalid, match=r"is 8 × 9 px .* in 2020-02, but 16 × 20 in 2020-01"):
        Months.of_probs(SCENE, ["2020-01", "2020-02"], [scene(1)[0], np.zeros((8, 9), np.float32)])


def test_a_rule_out_of_range() -> None:
    """Told with what was wanted; so is a rule that does not exist, with the nearest."""
    with pytest.raises(ConfigError, match="min_months = 0 cannot be used; wanted a whole number from 1 to 1000"):
        TrackConfig(min_months=0)
    with pytest.raises(ConfigError, match="treshold is not a field of tracking; did you mean threshold"):
        TrackConfig.from_dict({"treshold": 0.4})
    assert TrackConfig.from_texts(["threshold=0.4", "fill_unseen=false"]) == TrackConfig(
        threshold=0.4, fill_unseen=False
    )


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    count=st.integers(2, 7),
    invalid=st.sampled_from([0.0, 0.3, 0.95]),
    method=st.sampled_from(["pool", "match"]),
    fill=st.booleans(),
    absent=st.integers(1, 4),
)
def test_whatever_the_months(seed: int, count: int, invalid: float, method: str, fill: bool, absent: int) -> None:
    """Each Id at most once a month, and only from its first to its last one; what is seen is shown."""
    rng = np.random.default_rng(seed)
    probs = rng.random((count, 9, 9)).astype(np.float32).repeat(2, axis=1).repeat(2, axis=2)
    probs[rng.random(probs.shape) < invalid] = np.nan
    rules = {"method": method, "fill_unseen": fill, "new_months": absent, "gone_months": absent, "min_months": 1}
    found = track(months_of(probs), TrackConfig.from_dict({**rules, "min_valid": 0.1}))
    tracks = found.tracks
    rows = list(zip(tracks.ids.tolist(), tracks.month.tolist(), strict=True))
    assert len(set(rows)) == len(rows) and set(tracks.ids.tolist()) == set(found.ids.tolist())
    assert all(found.first[number - 1] <= month <= found.last[number - 1] for number, month in rows)
    shown_rows = set(rows)
    assert {
        (i + 1, month) for i, month in zip(*map(np.ndarray.tolist, np.nonzero(found.seen)), strict=True)
    } <= shown_rows
    assert (found.presence >= 0).all() and (found.presence <= 1).all()
    assert shapely.is_valid(tracks.geometry).all()
    assert np.isfinite(found.probs[found.seen]).all()
