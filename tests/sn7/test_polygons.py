import json
from pathlib import Path

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pytest
from affine import Affine
from rasterio.crs import CRS

from sn7.polygons import to_polygons, write_geojson

MERCATOR = CRS.from_epsg(3857)
PIXEL = 4.77731426716
"""Side of a SpaceNet 7 pixel in EPSG:3857 metres."""
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
    """A block of 2 × 3 px has six times the ground area of a pixel at its latitude."""
    probs = blank()
    probs[2:4, 1:4] = 0.9
    found = to_polygons(probs, 0.5, grid(10, lat), MERCATOR)
    assert found["area_m2"].tolist() == pytest.approx([6 * pixel_area(lat)], rel=1e-5)
    assert found.crs == 3857
    assert found.geometry.iloc[0].area == pytest.approx(6 * PIXEL**2)


def test_corners_lie_on_pixel_corners() -> None:
    """A polygon's bounds are the outer edges of its pixels, in the image's CRS."""
    probs = blank()
    probs[1:3, 2:6] = 0.9
    found = to_polygons(probs, 0.5, Affine(10, 0, 1000, 0, -10, 2000), CRS.from_epsg(32631))
    assert found.geometry.iloc[0].bounds == (1020, 1970, 1060, 1990)
    assert found.crs == 32631


def test_hole_is_kept() -> None:
    """A courtyard counts neither in the area nor in the mean."""
    probs = blank()
    probs[1:4, 1:4] = 0.8
    probs[2, 2] = 0.0
    found = to_polygons(probs, 0.5, grid(10, 50), MERCATOR)
    assert len(found) == 1 and len(found.geometry.iloc[0].interiors) == 1
    assert found["area_m2"].iloc[0] == pytest.approx(8 * pixel_area(50), rel=1e-5)
    assert found["mean_prob"].iloc[0] == pytest.approx(0.8)


def test_diagonal_pixels_are_two_polygons() -> None:
    """Blocks that touch at a corner only are separate, numbered from the top."""
    probs = blank()
    probs[0:2, 0:2] = 0.6
    probs[2:4, 2:4] = [[0.7, 0.8], [0.9, 1.0]]
    found = to_polygons(probs, 0.5, grid(10, 50), MERCATOR)
    assert found["Id"].tolist() == [1, 2]
    assert found["mean_prob"].tolist() == pytest.approx([0.6, 0.85])
    assert found.geometry.iloc[0].bounds[3] > found.geometry.iloc[1].bounds[3]


def test_pinched_ring_is_valid() -> None:
    """A courtyard that meets the outside at a corner gives a valid polygon with a hole."""
    probs = blank(3, 3)
    probs[:] = 0.9
    probs[1, 1] = probs[2, 2] = 0.1
    found = to_polygons(probs, 0.5, grid(10, 50), MERCATOR)
    assert len(found) == 1 and found.geometry.is_valid.all()
    assert found.geometry.iloc[0].area == pytest.approx(7 * PIXEL**2)


def test_small_groups_are_dropped() -> None:
    """Three pixels are speckle, four are a polygon; the limit can be lowered."""
    probs = blank()
    probs[0, 0:3] = 0.9
    probs[4, 0:4] = 0.9
    assert len(to_polygons(probs, 0.5, grid(10, 50), MERCATOR)) == 1
    assert len(to_polygons(probs, 0.5, grid(10, 50), MERCATOR, min_area_px=1)) == 2


def test_threshold_itself_is_building() -> None:
    """Probs equal to the threshold belong to a polygon, anything below does not."""
    probs = blank()
    probs[0:2, 0:2] = 0.5
    assert len(to_polygons(probs, 0.5, grid(10, 50), MERCATOR)) == 1
    assert len(to_polygons(probs, 0.5001, grid(10, 50), MERCATOR)) == 0


def test_invalid_pixels_are_excluded() -> None:
    """NaN cuts a polygon and leaves the mean alone."""
    probs = blank()
    probs[0:2, :] = 0.8
    probs[:, 3] = np.nan
    found = to_polygons(probs, 0.5, grid(10, 50), MERCATOR)
    assert found["mean_prob"].tolist() == pytest.approx([0.8, 0.8])
    assert (found.geometry.area / PIXEL**2).tolist() == pytest.approx([6, 8])


def test_last_row_and_column() -> None:
    """Polygons reach the far corner of an image of odd size."""
    probs = blank(1023, 1024)
    probs[-2:, -2:] = 0.9
    transform = Affine(1, 0, 0, 0, -1, 0)
    found = to_polygons(probs, 0.5, transform, MERCATOR)
    assert found.geometry.iloc[0].bounds == (1022, -1023, 1024, -1021)


@pytest.mark.parametrize("value", [0.1, np.nan])
def test_nothing_found(value: float, tmp_path: Path) -> None:
    """No building, or nothing valid, gives an empty table with all columns and an empty FeatureCollection."""
    found = to_polygons(np.full((8, 8), value, np.float32), 0.5, grid(10, 50), MERCATOR)
    assert len(found) == 0 and list(found.columns) == ["Id", "area_m2", "mean_prob", "geometry"]
    assert found.crs == 3857
    write_geojson(found, tmp_path / "none.geojson")
    written = json.loads((tmp_path / "none.geojson").read_text())
    assert written["type"] == "FeatureCollection" and written["features"] == []


def test_geojson_is_rfc_7946(tmp_path: Path) -> None:
    """Longitude first, 7 decimals, outer ring anticlockwise and hole clockwise, no crs member."""
    probs = blank()
    probs[0:3, 0:3] = 0.8
    probs[1, 1] = 0.0
    path = tmp_path / "x.geojson"
    write_geojson(to_polygons(probs, 0.5, grid(-121.5, 37.5), MERCATOR), path)
    written = json.loads(path.read_text())
    assert "crs" not in written
    (feature,) = written["features"]
    assert feature["properties"] == {
        "Id": 1, "area_m2": pytest.approx(8 * pixel_area(37.5), abs=0.06), "mean_prob": 0.8,
    }  # fmt: skip
    outer, hole = (np.array(ring) for ring in feature["geometry"]["coordinates"])
    assert signed_area(outer) > 0 > signed_area(hole)
    step = np.degrees(PIXEL / RADIUS)
    assert outer[:, 0].min() == pytest.approx(-121.5, abs=6e-8)
    assert outer[:, 0].max() == pytest.approx(-121.5 + 3 * step, abs=6e-8)
    assert outer[:, 1].max() == pytest.approx(37.5, abs=6e-8)
    assert outer[:, 1].min() == pytest.approx(37.5 - 3 * step * np.cos(np.radians(37.5)), abs=1e-7)
    assert all(round(value, 7) == value for value in np.concatenate([outer, hole]).ravel())
    assert gpd.read_file(path).crs == 4326
    assert list(tmp_path.iterdir()) == [path]


def signed_area(ring: npt.NDArray[np.float64]) -> float:
    """Return the shoelace area of a closed ring, positive where it runs anticlockwise."""
    x, y = ring[:, 0], ring[:, 1]
    return float(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1]) / 2)
