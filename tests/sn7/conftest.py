"""Tiny data sets in the SpaceNet 7 layout, built by the tests themselves."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyproj
import pytest
import rasterio
import torch
from affine import Affine

Position = tuple[float, float]
Geometry = dict[str, Any] | None

PIXEL = 4.777314267823516
ORIGIN = 20037508.342789244
MINI = Path(__file__).parents[3] / "shared" / "data" / "sn7_mini"
SCENES_CSV = MINI.parent / "sn7_scenes.csv"


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Begin each test at the same state of torch's generator: random weights are the same in every run."""
    torch.manual_seed(0)


@pytest.fixture
def mini() -> Path:
    """Return the folder of real SpaceNet 7 fragments; skip where it is absent."""
    if not MINI.is_dir():
        pytest.skip(f"the real fragments are not at {MINI}")
    return MINI


@pytest.fixture
def scenes_csv() -> Path:
    """Return the list of the real scenes; skip where it is absent."""
    if not SCENES_CSV.is_file():
        pytest.skip(f"the list of scenes is not at {SCENES_CSV}")
    return SCENES_CSV


@pytest.fixture
def grid() -> Callable[..., Affine]:
    """Return a function: tile (x, y) at zoom 13 → the transform of its image in EPSG:3857."""
    return _grid


@pytest.fixture
def square() -> Callable[..., dict[str, Any]]:
    """Return a function: column, row, width, height in px → a rectangle as GeoJSON, in pixel coordinates."""
    return _square


@pytest.fixture
def write_image() -> Callable[..., Path]:
    """Return a function that writes a GeoTIFF: (path, bands (n, h, w), transform, crs, **options) → path."""
    return _write_image


@pytest.fixture
def write_labels() -> Callable[..., Path]:
    """Return a function that writes a GeoJSON: (path, geometries, crs name or None) → path."""
    return _write_labels


@pytest.fixture
def make_data(tmp_path: Path) -> Callable[..., Path]:
    """Return a function: scenes, months, shape → a data set in tmp_path/data, all three label folders filled.

    Each image has noise for R, G, B, alpha 255, and two footprints: columns 2 to 6 of rows 3 to 6 (5 × 4 px)
    and the last two columns of the last three rows. Scene number i is L15-000iE-0001N_(100·i)_3000_13, so
    scenes lie some 300 km apart.
    """

    def make(scenes: int = 2, months: int = 2, shape: tuple[int, int] = (33, 31)) -> Path:
        data = tmp_path / "data"
        for number in range(1, scenes + 1):
            name = f"L15-{number:04}E-0001N_{100 * number}_3000_13"
            for month in range(1, months + 1):
                _write_month(data / "train" / name, month, shape, seed=100 * number + month)
        return data

    return make


def _write_month(scene: Path, month: int, shape: tuple[int, int], seed: int) -> None:
    stem = f"global_monthly_2020_{month:02}_mosaic_{scene.name}"
    height, width = shape
    transform = _grid(int(scene.name.split("_")[1]), 3000)
    bands = np.random.default_rng(seed).integers(0, 256, (4, *shape), np.uint8)
    bands[3] = 255
    _write_image(scene / "images_masked" / f"{stem}.tif", bands, transform)
    pixels = [_square(2, 3, 5, 4), _square(width - 2, height - 3, 2, 3)]
    to_lonlat = pyproj.Transformer.from_crs(3857, 4326, always_xy=True).transform

    def to_metres(x: float, y: float) -> Position:
        return transform.c + transform.a * x, transform.f + transform.e * y

    for folder, move, crs in (
        ("labels_match_pix", lambda x, y: (x, y), None),
        ("labels_match", to_metres, "urn:ogc:def:crs:EPSG::3857"),
        ("labels", lambda x, y: to_lonlat(*to_metres(x, y)), "urn:ogc:def:crs:OGC:1.3:CRS84"),
    ):
        _write_labels(scene / folder / f"{stem}_Buildings.geojson", [_moved(shape, move) for shape in pixels], crs)


def _moved(polygon: dict[str, Any], move: Callable[[float, float], Position]) -> dict[str, Any]:
    rings = [[list(move(*position)) for position in ring] for ring in polygon["coordinates"]]
    return {"type": "Polygon", "coordinates": rings}


def _grid(x: int, y: int) -> Affine:
    return Affine(PIXEL, 0, x * 1024 * PIXEL - ORIGIN, 0, -PIXEL, ORIGIN - y * 1024 * PIXEL)


def _square(column: float, row: float, width: float, height: float) -> dict[str, Any]:
    right, low = column + width, row + height
    ring = [[column, row], [right, row], [right, low], [column, low], [column, row]]
    return {"type": "Polygon", "coordinates": [ring]}


def _write_image(
    path: Path,
    bands: npt.NDArray[Any],
    transform: Affine | None = None,
    crs: str | None = "EPSG:3857",
    **options: Any,
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = bands.shape
    profile = {"driver": "GTiff", "count": count, "height": height, "width": width, "dtype": bands.dtype}
    place = {"transform": transform or _grid(4000, 3000), "crs": crs}
    with rasterio.open(path, "w", **profile, **place, **options) as target:
        target.write(bands)
    return path


def _write_labels(path: Path, geometries: Sequence[Geometry], crs: str | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    features = [{"type": "Feature", "properties": {"Id": i}, "geometry": g} for i, g in enumerate(geometries)]
    content: dict[str, Any] = {"type": "FeatureCollection", "features": features}
    if crs:
        content["crs"] = {"type": "name", "properties": {"name": crs}}
    path.write_text(json.dumps(content))
    return path
