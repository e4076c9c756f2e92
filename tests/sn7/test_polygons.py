import tracemalloc

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import shapely
from affine import Affine
from rasterio.crs import CRS

from sn7.polygons import stream_polygons, to_polygons
from sn7.rules import PolygonRules

MERCATOR = CRS.from_epsg(3857)
PIXEL = 4.77731426716
"""Side of a SpaceNet 7 pixel in EPSG:3857 metres."""
RULES = PolygonRules(simplify_px=0, min_area_m2=0)
RADIUS, FLATTENING = 6378137.0, 1 / 298.257223563


def grid(lon: float, lat: float, side: float = PIXEL) -> Affine:
    """Return the transform of an EPSG:3857 image whose top left corner lies at (lon, lat) degrees."""
    x = RADIUS * np.radians(lon)
    y = RADIUS * np.log(np.tan(np.pi / 4 + np.radians(lat) / 2))
    return Affine(side, 0, x, 0, -side, y)


def pixel_area(lat: float) -> float:
    """Return the ground area of a SpaceNet 7 pixel in m², from the ellipsoid's two radii of curvature."""
    e2 = FLATTENING * (2 - FLATTENING)
    sine = np.sin(np.radians(lat))
    prime_vertical = RADIUS / np.sqrt(1 - e2 * sine**2)
    meridian = RADIUS * (1 - e2) / (1 - e2 * sine**2) ** 1.5
    angle = PIXEL / RADIUS  # in longitude; Mercator's latitude shrinks by the cosine
    across, along = prime_vertical * np.cos(np.radians(lat)), meridian * np.cos(np.radians(lat))
    return float(angle**2 * across * along)


def blank(height: int = 8, width: int = 8) -> npt.NDArray[np.float32]:
    """Return probs of 0.1 everywhere."""
    return np.full((height, width), 0.1, np.float32)


@pytest.mark.parametrize("lat", [0.0, 38.0, -33.0, 60.0])
def test_area_is_true_ground_area(lat: float) -> None:
    """A block of 2 × 3 px, its four corners cut by 1/8 px², has 5.5 times the ground area of a pixel there."""
    probs = blank()
    probs[2:4, 1:4] = 0.9
    found = to_polygons(probs, RULES, grid(10, lat), MERCATOR)
    assert found["area_m2"].tolist() == pytest.approx([5.5 * pixel_area(lat)], rel=1e-5)
    assert found.crs == 3857
    assert found.geometry.iloc[0].area == pytest.approx(5.5 * PIXEL**2)


def test_outlines_lie_where_probs_pass_the_threshold() -> None:
    """From 0.9 to 0.1 the threshold 0.5 is half way, on the pixels' edges; 0.3 is three quarters of the way."""
    probs = blank()
    probs[1:3, 2:6] = 0.9
    utm, transform = CRS.from_epsg(32631), Affine(10, 0, 1000, 0, -10, 2000)
    found = to_polygons(probs, RULES, transform, utm)
    assert found.geometry.iloc[0].bounds == pytest.approx((1020, 1970, 1060, 1990), abs=1e-4)
    assert found.crs == 32631
    lower = PolygonRules(threshold=0.3, simplify_px=0, min_area_m2=0)
    found = to_polygons(probs, lower, transform, utm)
    assert found.geometry.iloc[0].bounds == pytest.approx((1017.5, 1967.5, 1062.5, 1992.5), abs=1e-4)


def test_outlines_follow_the_border_and_what_is_invalid() -> None:
    """At the image's border and beside NaN a polygon reaches to the edge of its pixels, whatever their probs."""
    probs = np.full((4, 6), 0.7, np.float32)
    probs[:, 5] = np.nan
    found = to_polygons(probs, RULES, Affine(1, 0, 0, 0, -1, 0), MERCATOR)
    assert found.geometry.iloc[0].bounds == pytest.approx((0, -4, 5, 0), abs=1e-5)
    assert found["mean_prob"].tolist() == pytest.approx([0.7])


def test_hole_is_kept() -> None:
    """A courtyard of a pixel, a diamond of 1/2 px², counts neither in the area nor in the mean."""
    probs = blank()
    probs[1:4, 1:4] = 0.9
    probs[2, 2] = 0.1
    found = to_polygons(probs, RULES, grid(10, 50), MERCATOR)
    assert len(found) == 1 and len(found.geometry.iloc[0].interiors) == 1
    assert found["area_m2"].iloc[0] == pytest.approx(8 * pixel_area(50), rel=1e-5)
    assert found["mean_prob"].iloc[0] == pytest.approx(0.9)


def test_diagonal_pixels_are_two_polygons() -> None:
    """Blocks that touch at a corner only are separate, numbered from the top, and do not overlap."""
    probs = blank()
    probs[0:2, 0:2] = 0.6
    probs[2:4, 2:4] = [[0.7, 0.8], [0.9, 1.0]]
    found = to_polygons(probs, RULES, grid(10, 50), MERCATOR)
    assert found["Id"].tolist() == [1, 2]
    assert found["mean_prob"].tolist() == pytest.approx([0.6, 0.85])
    first, second = found.geometry
    assert first.bounds[3] > second.bounds[3] and not first.intersects(second)


def test_pinched_ring_is_valid() -> None:
    """A courtyard that meets the outside at a corner gives one valid polygon."""
    probs = blank(3, 3)
    probs[:] = 0.9
    probs[1, 1] = probs[2, 2] = 0.1
    found = to_polygons(probs, RULES, grid(10, 50), MERCATOR)
    assert len(found) == 1 and found.geometry.is_valid.all()


def test_small_polygons_are_dropped() -> None:
    """Less than so many m² is speckle; the rest is counted from 1."""
    probs = blank()
    probs[0, 2:5] = 0.9  # at the border two corners are cut below, and two at the border: 2.5 px²
    probs[4:6, 0:4] = 0.9
    for limit, ids in ((2.4, [1, 2]), (2.6, [1]), (9, [])):
        rules = PolygonRules(min_area_m2=limit * pixel_area(50), simplify_px=0)
        assert to_polygons(probs, rules, grid(10, 50), MERCATOR)["Id"].tolist() == ids


def test_without_a_crs_pixels_are_counted() -> None:
    """There is no ground area then: it is NaN, and what is below 4 px² is dropped."""
    probs = blank()
    probs[1, 1:5] = 0.9  # 3.5 px²
    probs[4:6, 1:4] = 0.9  # 5.5 px²
    found = to_polygons(probs, RULES, Affine.identity(), None)
    assert found.crs is None and found["area_m2"].isna().all()
    assert found.geometry.iloc[0].bounds == pytest.approx((1, 4, 4, 6), abs=1e-5)


def test_threshold_itself_is_building() -> None:
    """Probs equal to the threshold belong to a polygon, anything below does not."""
    probs = blank()
    probs[0:2, 0:2] = 0.5
    assert len(to_polygons(probs, RULES, grid(10, 50), MERCATOR)) == 1
    above = PolygonRules(threshold=0.5001, min_area_m2=0)
    assert len(to_polygons(probs, above, grid(10, 50), MERCATOR)) == 0


def test_last_row_and_column() -> None:
    """Polygons reach the far corner of an image of odd size."""
    probs = blank(103, 104)
    probs[-2:, -2:] = 0.9
    found = to_polygons(probs, RULES, Affine(1, 0, 0, 0, -1, 0), MERCATOR)
    assert found.geometry.iloc[0].bounds == pytest.approx((102, -103, 104, -101), abs=1e-5)


@pytest.mark.parametrize("value", [0.1, np.nan])
def test_nothing_found(value: float) -> None:
    """No building, or nothing valid, gives an empty table with all columns."""
    found = to_polygons(np.full((8, 8), value, np.float32), RULES, grid(10, 50), MERCATOR)
    assert len(found) == 0 and list(found.columns) == ["Id", "area_m2", "mean_prob", "geometry"]
    assert found.crs == 3857


def test_simplifying_saves_corners_and_moves_little() -> None:
    """A diagonal edge loses its steps; no point lies farther from it than the rule allows."""
    probs = np.tri(40, 40, dtype=np.float32) * 0.8 + 0.1
    exact, simple = (
        to_polygons(probs, PolygonRules(simplify_px=px), Affine(1, 0, 0, 0, -1, 0), MERCATOR).geometry.iloc[0]
        for px in (0.0, 0.5)
    )
    assert len(simple.exterior.coords) < len(exact.exterior.coords) / 4
    assert shapely.hausdorff_distance(simple, exact, densify=0.1) <= 0.51


@pytest.mark.parametrize("smoothing", [0.0, 0.8])
@pytest.mark.parametrize("height", [3, 50])
def test_strips_give_the_same_polygons(height: int, smoothing: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """A raster that comes in strips of any height gives what it gives as a whole, each polygon once."""
    monkeypatch.setattr("sn7.polygons.COLUMNS", 16)
    random = np.random.default_rng(3)
    outputs = random.random((3, 90, 60), np.float32) ** np.array([0.6, 3, 3], np.float32)[:, None, None]
    outputs[0, 20:60, 30] = 0.9  # one region over many strips
    outputs[:, 70:75, 10:20] = np.nan
    rules = PolygonRules(seed_level=0.5, seed_smoothing=smoothing, simplify_px=0, min_area_m2=0)
    whole = to_polygons(outputs, rules, grid(10, 50), MERCATOR)
    strips = (outputs[:, row : row + height] for row in range(0, 90, height))
    parts = pd.concat(list(stream_polygons(strips, rules, grid(10, 50), MERCATOR)))
    assert len(whole) > 100 and parts["Id"].tolist() == list(range(1, len(whole) + 1))
    first, second = whole.sort_values("mean_prob"), parts.sort_values("mean_prob")
    assert first["mean_prob"].tolist() == pytest.approx(second["mean_prob"].tolist())
    assert first["area_m2"].tolist() == pytest.approx(second["area_m2"].tolist(), rel=1e-5)


def test_a_region_too_tall_to_be_held_is_cut() -> None:
    """Of a raster of 100 rows by 10 px with room for 300 px, a stripe from top to bottom comes in several parts."""
    probs = blank(100, 10)
    probs[:, 4:6] = 0.9
    strips = [probs[None, row : row + 10] for row in range(0, 100, 10)]
    parts = pd.concat(list(stream_polygons(strips, RULES, Affine(1, 0, 0, 0, -1, 0), MERCATOR, max_pixels=300)))
    assert 2 <= len(parts) <= 6
    assert parts.geometry.area.sum() == pytest.approx(200, abs=0.51 * len(parts))
    assert parts.geometry.total_bounds == pytest.approx((4, -100, 6, 0), abs=1e-5)


def test_beside_a_region_that_is_cut_others_stay_whole() -> None:
    """Buildings of 4 × 4 px that lie across the rows at which the stripe is cut, or at any others, come as they are."""
    probs = blank(100, 10)
    probs[:, 1:3] = 0.9
    for row in range(2, 96, 6):
        probs[row : row + 4, 5:9] = 0.9
    strips = [probs[None, row : row + 10] for row in range(0, 100, 10)]
    parts = pd.concat(list(stream_polygons(strips, RULES, Affine(1, 0, 0, 0, -1, 0), MERCATOR, max_pixels=300)))
    stripes, buildings = parts[parts.bounds["minx"] < 4], parts[parts.bounds["minx"] > 4]
    assert [-top for top in buildings.bounds["maxy"]] == pytest.approx(list(range(2, 96, 6)), abs=1e-5)
    assert buildings.geometry.area.tolist() == pytest.approx([buildings.geometry.area.iloc[0]] * 16, rel=1e-4)
    assert 2 <= len(stripes) <= 6 and stripes.geometry.area.sum() == pytest.approx(200, abs=0.51 * len(stripes))


def test_little_more_is_held_than_a_tall_region_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 400 rows that a stripe keeps, with buildings in each: less than 24 bytes a pixel, 4 of which are probs."""
    monkeypatch.setattr("sn7.polygons.COLUMNS", 128)
    probs = np.tile(np.kron(np.array([[0.1, 0.9], [0.1, 0.1]], np.float32), np.ones((4, 4), np.float32)), (50, 300))
    probs[:, :2] = 0.9
    strips = (probs[None, row : row + 20].copy() for row in range(0, 400, 20))
    tracemalloc.start()
    try:
        count = sum(map(len, stream_polygons(strips, RULES, Affine(1, 0, 0, 0, -1, 0), MERCATOR)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 1 + 50 * 300 and peak < 24 * probs.size
