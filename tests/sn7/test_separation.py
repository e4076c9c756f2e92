from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS

from sn7.catalog import read_catalog
from sn7.errors import LabelsUnreadable
from sn7.footprints import read_footprints
from sn7.masks import rasterize_mask
from sn7.rasters import read_image
from sn7.separation import BOUNDARY, CONTACT, separation_channels

Write = Callable[..., Path]
SHAPE = (33, 31)
METRES = CRS.from_epsg(3857)
TRANSFORM = Affine(4.75, 0, 1_000_000, 0, -4.75, 2_000_000)


@pytest.fixture
def channels(tmp_path: Path, write_labels: Write) -> Callable[..., np.ndarray]:
    """Return a function: geometries in pixel coordinates → boundary and contact."""

    def make(geometries: list[Any]) -> np.ndarray:
        path = write_labels(tmp_path / "x_Buildings.geojson", geometries)
        return separation_channels(read_footprints(path, "labels_match_pix"), SHAPE, TRANSFORM, METRES)

    return make


def filled(*windows: tuple[slice, slice]) -> np.ndarray:
    """Return a raster with 1 in some windows."""
    raster = np.zeros(SHAPE, np.uint8)
    for window in windows:
        raster[window] = 1
    return raster


def test_boundary_is_the_outermost_pixel(channels: Callable[..., np.ndarray], square) -> None:
    """A building of 5 × 4 px keeps a core of 3 × 2, one of 3 × 2 none; far apart, there is no contact."""
    boundary, contact = found = channels([square(2, 3, 5, 4), square(20, 20, 3, 2)])
    assert (found.dtype, found.shape) == (np.uint8, (2, *SHAPE))
    expected = filled(np.s_[3:7, 2:7], np.s_[20:22, 20:23])
    expected[4:6, 3:6] = 0
    assert np.array_equal(boundary, expected)
    assert not contact.any()


def test_courtyards_have_a_boundary(channels: Callable[..., np.ndarray], square) -> None:
    """The pixels around an interior ring are boundary as those at the outer one."""
    (outer,), (hole,) = square(2, 2, 12, 12)["coordinates"], square(6, 6, 4, 4)["coordinates"]
    boundary, _ = channels([{"type": "Polygon", "coordinates": [outer, hole]}])
    expected = filled(np.s_[2:14, 2:14])
    expected[3:13, 3:13] = 0
    expected[5:11, 5:11] = 1
    expected[6:10, 6:10] = 0
    assert np.array_equal(boundary, expected)


@pytest.mark.parametrize(("gap", "columns"), [(0, [7, 8]), (1, [8]), (2, []), (5, [])])
def test_contact_of_neighbours(channels: Callable[..., np.ndarray], square, gap: int, columns: list[int]) -> None:
    """A shared wall gives two columns of contact, a gap of one pixel that pixel, a wider one nothing."""
    boundary, contact = channels([square(3, 3, 5, 6), square(8 + gap, 3, 5, 6)])
    rows = contact[4:8]  # beyond them the grown corners are round
    assert np.flatnonzero(rows.any(axis=0)).tolist() == columns
    assert rows[:, columns].all()
    assert boundary[4:8, [3, 7, 8 + gap]].all()


def test_a_finer_grid_shows_the_same_outlines_and_distances(tmp_path: Path, write_labels: Write, square) -> None:
    """At 3 × a boundary is 3 of its pixels wide, as one of the image's; so is the contact over a gap of one pixel."""
    path = write_labels(tmp_path / "x_Buildings.geojson", [square(3, 3, 5, 6), square(9, 3, 5, 6)])
    footprints = read_footprints(path, "labels_match_pix")
    boundary, contact = fine = separation_channels(footprints, SHAPE, TRANSFORM, METRES, scale=3)
    assert (fine.dtype, fine.shape) == (np.uint8, (2, 99, 93))
    expected = np.zeros((99, 93), np.uint8)
    expected[9:27, 9:24] = expected[9:27, 27:42] = 1
    expected[12:24, 12:21] = expected[12:24, 30:39] = 0
    assert np.array_equal(boundary, expected)
    rows = contact[9:27]  # beyond them the grown corners are round
    assert np.flatnonzero(rows.any(axis=0)).tolist() == [24, 25, 26]
    assert rows[:, 24:27].all()


def test_one_footprint_is_in_no_contact_with_itself(channels: Callable[..., np.ndarray], square) -> None:
    """Parts of one MultiPolygon that touch or overlap, and an outline that crosses itself, are one building."""
    parts = [square(2, 2, 6, 6), square(5, 5, 6, 6), square(11, 5, 4, 6)]
    tangle = [[20, 2], [28, 10], [28, 2], [20, 10], [20, 2]]
    geometries = [
        {"type": "MultiPolygon", "coordinates": [part["coordinates"] for part in parts]},
        {"type": "Polygon", "coordinates": [tangle]},
    ]
    boundary, contact = channels(geometries)
    assert not contact.any()
    assert not boundary[6, 6]  # in two parts, and 2.5 px from the outline of what they cover together
    assert channels([*geometries, geometries[1]])[1].sum() > 32  # the same building twice is two


def test_nothing_and_elsewhere(channels: Callable[..., np.ndarray], square) -> None:
    """Without footprints both are empty; footprints beside the image are refused as for the mask."""
    assert not channels([]).any()
    assert not channels([None]).any()
    with pytest.raises(LabelsUnreadable, match="not on its image"):
        channels([square(100, 100, 5, 5)])


corners = st.tuples(st.floats(-3, 33), st.floats(-3, 35), st.floats(0.5, 12), st.floats(0.5, 12), st.floats(0, 90))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=st.lists(corners, min_size=1, max_size=6))
def test_channels_are_distances(channels: Callable[..., np.ndarray], drawn: list[tuple[float, ...]]) -> None:
    """Rotated rectangles anywhere: both rasters follow from each centre's distance to each footprint and outline.

    Centres within 0.08 px of a limit are left aside, since shapely grows a corner by an octagon, not by a circle.
    """
    polygons = [_rectangle(*rectangle) for rectangle in drawn]
    anchor = shapely.box(0, 0, 0.1, 0.1)
    boundary, contact = channels([shapely.geometry.mapping(polygon) for polygon in (anchor, *polygons)])
    centres = shapely.points(*(np.indices(SHAPE)[::-1] + 0.5))
    outside = np.array([shapely.distance(centres, polygon) for polygon in (anchor, *polygons)])
    to_outline = np.array([shapely.distance(centres, polygon.exterior) for polygon in (anchor, *polygons)])
    near = ((outside == 0) & (to_outline < BOUNDARY)).any(axis=0)
    clear = (to_outline > 1e-6).all(axis=0)
    sure = clear & (np.abs(to_outline - BOUNDARY) > 0.08).all(axis=0)
    assert np.array_equal(boundary[sure] == 1, near[sure])
    sure = clear & (np.abs(outside - CONTACT) > 0.08).all(axis=0)
    assert np.array_equal(contact[sure] == 1, (outside < CONTACT).sum(axis=0)[sure] > 1)


numbers = st.one_of(st.integers(-4, 38), st.floats(-4, 38))
tangles = st.lists(st.tuples(numbers, numbers), min_size=3, max_size=7).map(lambda ring: [*ring, ring[0]])


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(groups=st.lists(st.lists(st.lists(tangles, min_size=1, max_size=2), min_size=1, max_size=3), max_size=3))
@example(
    groups=[[[[(0, 1), (1, 0), (1, 1), (0, 1)], [(0, 2), (1, 0), (1e-76, 0), (0, 2)]]]]
)  # mended to a line beside it
def test_any_outlines(tmp_path: Path, write_labels: Write, square, groups: list[Any]) -> None:
    """Outlines that cross themselves or have no area, misplaced holes: no error, and a boundary is in the mask."""
    geometries = [{"type": "MultiPolygon", "coordinates": group} for group in groups]
    path = write_labels(tmp_path / "x_Buildings.geojson", [square(0, 0, 0.1, 0.1), *geometries])
    footprints = read_footprints(path, "labels_match_pix")
    boundary, contact = separation_channels(footprints, SHAPE, TRANSFORM, METRES)
    mask = rasterize_mask(footprints, SHAPE, TRANSFORM, METRES)
    assert not (boundary & ~mask & 1).any()
    assert set(np.unique(contact)) <= {0, 1}


def _rectangle(x: float, y: float, width: float, height: float, turn: float) -> shapely.Polygon:
    return shapely.affinity.rotate(shapely.box(x, y, x + width, y + height), turn)


def test_real_scene(mini: Path) -> None:
    """On 1615E the boundary lies in the mask and half of it; cores come apart where the mask runs together."""
    (image,) = next(scene for scene in read_catalog(mini).training if "1615E" in scene.name).images
    raster = read_image(image.path)
    footprints = read_footprints(image.labels, "labels_match")
    mask = rasterize_mask(footprints, raster.shape, raster.transform, raster.crs)
    boundary, contact = separation_channels(footprints, raster.shape, raster.transform, raster.crs)
    assert not (boundary & ~mask & 1).any()
    assert boundary.sum() / mask.sum() == pytest.approx(0.4922, abs=5e-4)
    assert contact.mean() == pytest.approx(0.00668, abs=5e-5)
