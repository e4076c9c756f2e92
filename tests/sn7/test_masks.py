import gc
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import pytest
import shapely
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS

from sn7.catalog import LABEL_FOLDERS, LabelKind, read_catalog
from sn7.errors import LabelsUnreadable
from sn7.footprints import read_footprints
from sn7.masks import oracle_mask, rasterize_mask, refined, to_pixels, valid_mask
from sn7.rasters import read_image

Write = Callable[..., Path]
SHAPE = (33, 31)
METRES = CRS.from_epsg(3857)
TRANSFORM = Affine(4.75, 0, 1_000_000, 0, -4.75, 2_000_000)


def mask_of(geometries: list[Any], write: Write, path: Path, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    """Write geometries in pixel coordinates, read them back and rasterise them."""
    footprints = read_footprints(write(path, geometries), "labels_match_pix")
    return rasterize_mask(footprints, shape, TRANSFORM, METRES)


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    """Return a path for a label file."""
    return tmp_path / "x_Buildings.geojson"


def test_square_and_last_row_and_column(labels: Path, write_labels: Write, square) -> None:
    """A pixel is 1 where its centre is inside: edges at .5 reach the next centre or just do not."""
    mask = mask_of([square(2, 3, 5, 4), square(29, 30, 2, 3)], write_labels, labels)
    expected = np.zeros(SHAPE, np.uint8)
    expected[3:7, 2:7] = 1
    expected[30:, 29:] = 1
    assert mask.dtype == np.uint8
    assert np.array_equal(mask, expected)
    mask = mask_of([square(2.4, 3.6, 2.2, 1)], write_labels, labels)  # columns 2.4 … 4.6, rows 3.6 … 4.6
    assert np.argwhere(mask).tolist() == [[4, 2], [4, 3], [4, 4]]


def test_oracle_is_the_finer_mask_averaged(labels: Path, write_labels: Write, square) -> None:
    """Whole pixels come back; of columns 2.4 … 4.6, rows 3.6 … 4.6 at least half covered is column 3 alone.

    At 4 × there are centres at .125, .375, .625 and .875: in rows 3 and 4 two of four lie inside, in columns 2 and 4
    two, in column 3 all four, so 8 of 16 there and 4 beside it.
    """
    path = write_labels(labels, [square(20, 20, 3, 2), square(2.4, 3.6, 2.2, 1)])
    footprints = read_footprints(path, "labels_match_pix")
    oracle = oracle_mask(footprints, SHAPE, TRANSFORM, METRES)
    expected = np.zeros(SHAPE, np.uint8)
    expected[20:22, 20:23] = 1
    expected[3:5, 3] = 1
    assert oracle.dtype == np.uint8
    assert np.array_equal(oracle, expected)
    assert refined(footprints, 4).points.max() == 4 * footprints.points.max()


def test_odd_size_and_footprints_that_reach_outside(labels: Path, write_labels: Write, square) -> None:
    """1023 columns: a footprint over the border fills the last column, one beyond it nothing."""
    mask = mask_of([square(1020, -6, 9, 8), square(1023, 5, 3, 3)], write_labels, labels, (1024, 1023))
    assert mask.shape == (1024, 1023)
    assert np.argwhere(mask).tolist() == [[row, column] for row in (0, 1) for column in (1020, 1021, 1022)]


def test_hole_multipolygon_and_3d(labels: Path, write_labels: Write, square) -> None:
    """Courtyards stay open, all parts of a MultiPolygon count, also where they overlap; z is dropped."""
    (outer,), (hole,) = square(2, 2, 6, 6)["coordinates"], square(4, 4, 2, 2)["coordinates"]
    ring_3d = [[x, y, 7.5] for x, y in square(20, 2, 3, 2)["coordinates"][0]]
    parts = [square(10, 10, 3, 3), square(12, 12, 3, 3)]  # they share pixel 12, 12
    geometries = [
        {"type": "Polygon", "coordinates": [outer, hole]},
        {"type": "Polygon", "coordinates": [ring_3d]},
        {"type": "MultiPolygon", "coordinates": [part["coordinates"] for part in parts]},
    ]
    footprints = read_footprints(write_labels(labels, geometries), "labels_match_pix")
    assert shapely.get_type_id(footprints.geometries).tolist() == [3, 3, 6]
    assert not shapely.has_z(footprints.geometries).any()
    assert shapely.area(footprints.geometries[:2]).tolist() == [32, 6]
    expected = np.zeros(SHAPE, np.uint8)
    expected[2:8, 2:8] = 1
    expected[4:6, 4:6] = 0
    expected[2:4, 20:23] = 1
    expected[10:13, 10:13] = 1
    expected[12:15, 12:15] = 1
    assert np.array_equal(rasterize_mask(footprints, SHAPE, TRANSFORM, METRES), expected)


def test_defects_are_left_out_and_counted(labels: Path, write_labels: Write, square) -> None:
    """Null, empty, lines and degenerate rings vanish, but not silently; the rest is kept."""
    geometries = [
        None,
        None,
        {"type": "LineString", "coordinates": []},
        {"type": "Polygon", "coordinates": []},
        {"type": "Polygon", "coordinates": [[]]},
        {"type": "MultiPolygon", "coordinates": [[], [[]]]},
        {"type": "GeometryCollection", "geometries": []},
        {"type": "LineString", "coordinates": [[0, 0], [9, 9]]},
        {"type": "Point", "coordinates": [1, 1]},
        {"type": "Polygon", "coordinates": [[[1, 1], [2, 2], [1, 1]]]},
        {"type": "MultiPolygon", "coordinates": [[], square(1, 1, 2, 1)["coordinates"]]},
    ]
    footprints = read_footprints(write_labels(labels, geometries), "labels_match_pix")
    assert (footprints.null, footprints.empty, footprints.other, footprints.left_out) == (2, 5, 3, 10)
    assert len(footprints) == 1
    assert rasterize_mask(footprints, SHAPE, TRANSFORM, METRES).sum() == 2


def test_open_rings_and_mixed_positions(labels: Path, write_labels: Write, square) -> None:
    """A ring that does not come back to its start is closed; some positions with a height, some without, are fine."""
    (ring,) = square(2, 3, 5, 4)["coordinates"]
    mixed = [[*ring[0], 9.5], *ring[1:3], [*ring[3], None, "measure"]]
    expected = mask_of([square(2, 3, 5, 4)], write_labels, labels)
    for corners in (ring[:4], mixed):
        assert np.array_equal(mask_of([{"type": "Polygon", "coordinates": [corners]}], write_labels, labels), expected)
        (polygon,) = read_footprints(labels, "labels_match_pix").geometries
        assert polygon.equals(shapely.box(2, 3, 7, 7))


def test_no_footprints(labels: Path, write_labels: Write) -> None:
    """A label file without features, or without usable ones, gives an empty mask."""
    assert mask_of([], write_labels, labels).sum() == 0
    assert mask_of([None], write_labels, labels).shape == SHAPE


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "cannot be read as GeoJSON"),
        (b'{"type": "FeatureCollection", "features": [{"type": "Fea', "cannot be read as GeoJSON"),
        (b"\xff\xfe\x00\xd8", "cannot be read as GeoJSON"),
        (b"[" * 100_000, "cannot be read as GeoJSON"),
        (b"[1, 2]", "holds a list"),
        (b'{"type": "Topology"}', "holds a 'Topology'"),
        (b'{"type": "FeatureCollection", "features": {}}', "holds a 'FeatureCollection'; .* with a list"),
    ],
)
def test_files_that_are_no_geojson(labels: Path, content: bytes, found: str) -> None:
    """Truncated, binary, other JSON: the file and what is wrong with it are named."""
    labels.write_bytes(content)
    with pytest.raises(LabelsUnreadable, match=rf"x_Buildings\.geojson {found}"):
        read_footprints(labels, "labels_match")


@pytest.mark.parametrize(
    "feature",
    [
        1,
        {"type": "Feature"},
        {"geometry": 3},
        {"geometry": {"coordinates": [[[0, 0]]]}},
        {"geometry": {"type": "Polygon", "coordinates": [[1, 2, 3, 4]]}},
        {"geometry": {"type": "Polygon", "coordinates": [[[0, 0], [1], [1, 1], [0, 0]]]}},
        {"geometry": {"type": "Polygon", "coordinates": [[[0], [1], [2], [0]]]}},
        {"geometry": {"type": "Polygon", "coordinates": [[["a", "b"], [1, 0], [1, 1], [0, 0]]]}},
        {"geometry": {"type": "Polygon", "coordinates": [[[0, 0], [float("nan"), 0], [1, 1], [0, 0]]]}},
        {"geometry": {"type": "Polygon", "coordinates": [[[0, 0], [10**400, 0], [1, 1], [0, 0]]]}},
        {"geometry": {"type": "Polygon", "coordinates": [[[0, 0], [None, 0], [1, 1], [0, 0]]]}},
        {"geometry": {"type": "Polygon", "coordinates": {"a": 1}}},
    ],
)
def test_features_that_are_no_geojson(labels: Path, feature: Any) -> None:
    """A feature that no reader could make sense of is an error, not an empty place."""
    labels.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    with pytest.raises(LabelsUnreadable, match=r"x_Buildings\.geojson has a feature whose geometry is no GeoJSON"):
        read_footprints(labels, "labels_match_pix")


def test_the_collector_runs_again(labels: Path, write_labels: Write, square) -> None:
    """Python's cycle collector, which reading holds, is let go whether the file is good or not."""
    read_footprints(write_labels(labels, [square(0, 0, 1, 1)]), "labels")
    assert gc.isenabled()
    labels.write_text("{")
    with pytest.raises(LabelsUnreadable):
        read_footprints(labels, "labels")
    assert gc.isenabled()


def test_missing_file_and_unknown_crs(labels: Path, write_labels: Write, square) -> None:
    """A file that is gone, and a CRS nobody knows, are both named."""
    with pytest.raises(LabelsUnreadable, match="No such file"):
        read_footprints(labels, "labels")
    write_labels(labels, [square(0, 0, 1, 1)], "EPSG:nonsense")
    with pytest.raises(LabelsUnreadable, match="names a CRS that is not known"):
        read_footprints(labels, "labels_match")


def test_utm_image_with_lon_lat_labels(labels: Path, write_labels: Write, square) -> None:
    """Labels in degrees on a UTM image: reprojected, pixel for pixel; also where the file names no CRS."""
    utm, transform = CRS.from_epsg(32648), Affine(4, 0, 500_000, 0, -4, 3_360_000)
    to_degrees = pyproj.Transformer.from_crs(32648, 4326, always_xy=True).transform
    polygon = square(4.1, 5.1, 5, 3)
    ring = [to_degrees(transform.c + 4 * x, transform.f - 4 * y) for x, y in polygon["coordinates"][0]]
    expected = np.zeros(SHAPE, np.uint8)
    expected[5:8, 4:9] = 1
    cases: list[tuple[LabelKind, str | None]] = [
        ("labels", "EPSG:4326"),
        ("labels_match", "EPSG:4326"),
        ("labels", None),
    ]
    for kind, crs in cases:
        write_labels(labels, [{"type": "Polygon", "coordinates": [ring]}], crs)
        assert np.array_equal(rasterize_mask(read_footprints(labels, kind), SHAPE, transform, utm), expected)


def test_utm_image_without_square_pixels(labels: Path, write_labels: Write, square) -> None:
    """Columns and rows have their own size; footprints taken to pixels once need no second time."""
    utm, transform = CRS.from_epsg(32633), Affine(3, 0, 400_000, 0, -5, 5_000_000)
    ring = [transform @ position for position in square(4.2, 5.2, 5, 3)["coordinates"][0]]
    write_labels(labels, [{"type": "Polygon", "coordinates": [ring]}], "urn:ogc:def:crs:EPSG::32633")
    footprints = read_footprints(labels, "labels_match")
    mask = rasterize_mask(footprints, SHAPE, transform, utm)
    expected = np.zeros(SHAPE, np.uint8)
    expected[5:8, 4:9] = 1
    assert np.array_equal(mask, expected)
    pixels = to_pixels(footprints, SHAPE, transform, utm)
    assert pixels.points == pytest.approx(np.array(square(4.2, 5.2, 5, 3)["coordinates"][0]))
    assert to_pixels(pixels, SHAPE, transform, utm) is pixels
    assert np.array_equal(rasterize_mask(pixels, SHAPE, transform, utm), expected)


def test_pixel_coordinates_are_never_reprojected(labels: Path, write_labels: Write, square) -> None:
    """In labels_match_pix a CRS member, which some writers add, means nothing."""
    write_labels(labels, [square(2, 3, 5, 4)], "EPSG:4326")
    mask = rasterize_mask(read_footprints(labels, "labels_match_pix"), SHAPE, TRANSFORM, METRES)
    assert mask[3:7, 2:7].all()
    assert mask.sum() == 20


def test_matched_labels_without_a_crs_have_the_images(labels: Path, write_labels: Write) -> None:
    """The folder's name says it: labels_match is in the coordinates of the image."""
    ring = [[1e6, 2e6], [1e6 + 9.5, 2e6], [1e6 + 9.5, 2e6 - 4.75], [1e6, 2e6 - 4.75], [1e6, 2e6]]
    write_labels(labels, [{"type": "Polygon", "coordinates": [ring]}])
    mask = rasterize_mask(read_footprints(labels, "labels_match"), SHAPE, TRANSFORM, METRES)
    assert np.argwhere(mask).tolist() == [[0, 0], [0, 1]]


@pytest.mark.parametrize("crs", [None, "EPSG:4326", "EPSG:3857"])
def test_footprints_elsewhere_are_an_error(labels: Path, write_labels: Write, square, crs: str | None) -> None:
    """Coordinates of another CRS than the file says would give an empty mask: they are refused instead."""
    write_labels(labels, [square(103.9, 30.3, 0.1, 0.1)], crs)
    with pytest.raises(LabelsUnreadable, match="1 footprints, but not on its image: they span x"):
        rasterize_mask(read_footprints(labels, "labels_match"), SHAPE, TRANSFORM, METRES)
    write_labels(labels, [square(1e6, 1.9e6, 10, 10)])  # metres, read as degrees
    with pytest.raises(LabelsUnreadable, match="not on its image"):
        rasterize_mask(read_footprints(labels, "labels"), SHAPE, TRANSFORM, METRES)


def test_valid() -> None:
    """Alpha 0 and UDM both make a pixel invalid; without either all are valid."""
    assert valid_mask((3, 2), None, None).tolist() == [[1, 1], [1, 1], [1, 1]]
    alpha = np.array([[255, 0], [1, 255], [255, 255]], np.uint8)
    unusable = np.array([[False, False], [False, False], [True, False]])
    assert valid_mask((3, 2), alpha, unusable).tolist() == [[1, 0], [1, 1], [0, 1]]
    valid = valid_mask((3, 2), np.zeros((3, 2), np.uint8), None)
    assert (valid.dtype, valid.sum()) == (np.uint8, 0)


Corner = tuple[float, float]
KEEP = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@st.composite
def stars(draw: st.DrawFn) -> list[list[Corner]]:
    """Draw a polygon, concave or not, with or without a hole, partly outside of the image at times."""
    corners = draw(st.integers(3, 9))
    centre = draw(st.tuples(st.floats(-3, 34), st.floats(-3, 36)))
    radii = draw(st.lists(st.floats(0.3, 12), min_size=corners, max_size=corners))
    angles = draw(st.floats(0, 6.28)) + 2 * np.pi * np.arange(corners) / corners
    scales = [1.0, draw(st.floats(0.1, 0.9))] if draw(st.booleans()) else [1.0]
    return [_closed(centre, scale * np.array(radii), angles) for scale in scales]


def _closed(centre: Corner, radii: np.ndarray, angles: np.ndarray) -> list[Corner]:
    ring = [(centre[0] + r * np.cos(a), centre[1] + r * np.sin(a)) for r, a in zip(radii, angles, strict=True)]
    return [*ring, ring[0]]


numbers = st.one_of(st.integers(-4, 38), st.floats(-4, 38))
tangles = st.lists(st.tuples(numbers, numbers), min_size=3, max_size=7).map(lambda ring: [[*ring, ring[0]]])
"""Any corners: rings that cross themselves, without area, with a corner twice."""
footprint_sets = st.lists(st.lists(st.one_of(stars(), tangles), min_size=1, max_size=3), min_size=1, max_size=4)
"""Footprints of one polygon (Polygon) or more, which may overlap (MultiPolygon)."""


def centres_inside(polygons: list[Any]) -> tuple[np.ndarray, np.ndarray]:
    """Return, of each pixel, whether its centre lies in a polygon, and whether it keeps clear of every edge.

    Each centre is tested against each polygon. A centre on an edge may fall either way, so those within 1e-6 px
    of one are left to GDAL.
    """
    rows, columns = np.indices(SHAPE) + 0.5
    inside = np.any([shapely.contains_xy(polygon, columns, rows) for polygon in polygons], axis=0)
    centres = shapely.points(columns, rows)
    edges = [shapely.LineString(ring) for polygon in polygons for ring in (polygon.exterior, *polygon.interiors)]
    return inside, ~np.any([shapely.dwithin(centres, edge, 1e-6) for edge in edges], axis=0)


@settings(KEEP, max_examples=200)
@given(sets=footprint_sets, metres=st.booleans(), height=st.sampled_from([None, 7.5]))
def test_mask_is_the_pixel_centres_inside(
    labels: Path, write_labels: Write, sets: list[list[Any]], metres: bool, height: float | None
) -> None:
    """Any polygons, in pixels or metres, 2-D or 3-D: the mask is 1 exactly where a centre lies in one of them."""

    def position(x: float, y: float) -> list[float]:
        place = TRANSFORM @ (x, y) if metres else (x, y)
        return [*place, *([] if height is None else [height])]

    anchor = [[(0.0, 0.0), (0.1, 0.0), (0.1, 0.1), (0.0, 0.0)]]  # no pixel's centre, but on the image
    parts = [[[[position(*corner) for corner in ring] for ring in rings] for rings in group] for group in sets]
    geometries = [{"type": "Polygon", "coordinates": [[position(*corner) for corner in ring] for ring in anchor]}]
    geometries += [
        {"type": "Polygon", "coordinates": group[0]}
        if len(group) == 1
        else {"type": "MultiPolygon", "coordinates": group}
        for group in parts
    ]
    write_labels(labels, geometries)
    footprints = read_footprints(labels, "labels_match" if metres else "labels_match_pix")
    mask = rasterize_mask(footprints, SHAPE, TRANSFORM, METRES)
    inside, clear = centres_inside([shapely.Polygon(rings[0], rings[1:]) for group in sets for rings in group])
    assert (len(footprints), footprints.left_out) == (1 + len(sets), 0)
    assert np.array_equal(mask[clear] == 1, inside[clear])
    assert set(np.unique(mask)) <= {0, 1}


def test_real_label_folders_agree(mini: Path) -> None:
    """The three label folders of the real scene 1615E give the same mask, pixel for pixel."""
    (image,) = next(scene for scene in read_catalog(mini).training if "1615E" in scene.name).images
    raster = read_image(image.path)
    counts, masks = {}, []
    for kind in LABEL_FOLDERS:
        footprints = read_footprints(image.path.parents[1] / kind / f"{image.name}_Buildings.geojson", kind)
        counts[kind] = (len(footprints), footprints.null, footprints.empty, footprints.other)
        masks.append(rasterize_mask(footprints, raster.shape, raster.transform, raster.crs))
    # labels has the same buildings in 2,773 geometries, of which two are MultiPolygons of two parts
    assert counts == {
        "labels_match": (2775, 0, 0, 0),
        "labels_match_pix": (2775, 0, 0, 0),
        "labels": (2773, 1, 0, 0),
    }
    assert [int(mask.sum()) for mask in masks] == [97295] * 3
    assert np.array_equal(masks[0], masks[1])
    assert np.array_equal(masks[0], masks[2])
