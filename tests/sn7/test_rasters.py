import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.crs import CRS

from sn7.errors import ImageUnreadable
from sn7.rasters import read_image, read_udm, reproject

Write = Callable[..., Path]


def noise(count: int, height: int = 33, width: int = 31) -> np.ndarray:
    """Return seeded random bands."""
    return np.random.default_rng(0).integers(0, 256, (count, height, width), np.uint8)


def test_four_bands(tmp_path: Path, write_image: Write, grid) -> None:
    """R, G, B and alpha come apart, last row and column included, with their place."""
    bands = noise(4)
    image = read_image(write_image(tmp_path / "a.tif", bands, grid(4096, 4096)))
    assert image.rgb.dtype == np.uint8
    assert np.array_equal(image.rgb, bands[:3])
    assert image.alpha is not None
    assert np.array_equal(image.alpha, bands[3])
    assert image.shape == (33, 31)
    assert image.transform == grid(4096, 4096)
    assert image.crs.to_epsg() == 3857
    # tile 4096, 4096 begins at longitude and latitude 0; a pixel is 360° / (1024 · 2¹³) wide and high there
    assert image.lon == pytest.approx(15.5 * 360 / 2**23)
    assert image.lat == pytest.approx(-16.5 * 360 / 2**23)


def test_three_bands_have_no_alpha(tmp_path: Path, write_image: Write) -> None:
    """Without a fourth band there is no alpha, which means valid everywhere."""
    assert read_image(write_image(tmp_path / "a.tif", noise(3))).alpha is None


@pytest.mark.parametrize(
    ("bands", "found"),
    [
        (noise(1), "1 bands of uint8"),
        (noise(5), "5 bands of uint8"),
        (noise(4).astype(np.uint16), "4 bands of uint16"),
        (noise(3).astype(np.float32), "3 bands of float32"),
    ],
)
def test_other_bands_are_refused(tmp_path: Path, write_image: Write, bands: np.ndarray, found: str) -> None:
    """The number of bands and the dtype that were found are said."""
    with pytest.raises(ImageUnreadable, match=rf"a\.tif has {found}; wanted 3 \(RGB\) or 4"):
        read_image(write_image(tmp_path / "a.tif", bands))


@pytest.mark.parametrize(
    ("place", "found"),
    [
        ({"crs": None}, "no CRS"),
        ({"transform": Affine.identity()}, "no geotransform"),
        ({"transform": Affine(4, 1, 1e6, 1, -4, 1e6)}, "rotated"),
        ({"transform": Affine(4, 0, 1e6, 0, 0, 1e6)}, "without a width or height"),
        ({"transform": Affine(1, 0, 900, 0, -1, 900), "crs": "EPSG:4326"}, "outside its CRS"),
        ({"transform": Affine(1, 0, 1e9, 0, -1, 1e9), "crs": "EPSG:32631"}, "outside its CRS"),
        ({"crs": 'LOCAL_CS["site grid",UNIT["metre",1]]'}, "outside its CRS"),
    ],
)
def test_images_without_a_usable_place_are_refused(
    tmp_path: Path, write_image: Write, place: dict[str, Any], found: str
) -> None:
    """No CRS, no, a rotated or a flat geotransform, off the earth: refused in a sentence, without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = write_image(tmp_path / "a.tif", noise(4), **place)
        warnings.simplefilter("error")
        with pytest.raises(ImageUnreadable, match=rf"a\.tif .*{found}.*; wanted .*: "):
            read_image(path)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compress": "lzw"},
        {"compress": "deflate", "tiled": True, "blockxsize": 16, "blockysize": 16},
        {"interleave": "pixel", "blockysize": 2},
    ],
)
def test_truncated_files(tmp_path: Path, write_image: Write, options: dict[str, Any]) -> None:
    """Wherever a file ends too early, it is named as unreadable; its pixels are never made up."""
    whole = write_image(tmp_path / "whole.tif", noise(4), **options).read_bytes()
    path = tmp_path / "cut.tif"
    for length in {*range(0, len(whole), 61), *range(0, 400, 7), len(whole) - 1}:
        path.write_bytes(whole[:length])
        with pytest.raises(ImageUnreadable, match=r"cut\.tif"):
            read_image(path)


def test_truncated_real_image(tmp_path: Path, mini: Path) -> None:
    """The same for a real file: its header, its last byte, and 30 places between."""
    source = next((mini / "train").glob("*0683E*/images_masked/*.tif"))
    whole, path = source.read_bytes(), tmp_path / "cut.tif"
    for length in [*np.linspace(0, len(whole) - 1, 32).astype(int), 8, 200, 1000]:
        path.write_bytes(whole[:length])
        with pytest.raises(ImageUnreadable, match=r"cut\.tif"):
            read_image(path)


def test_files_that_are_no_tiff(tmp_path: Path) -> None:
    """Text, another image format, a folder, nothing at all: one error class."""
    (tmp_path / "text.tif").write_text("hello")
    (tmp_path / "folder.tif").mkdir()
    (tmp_path / "png.tif").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(50))
    for name in ("text.tif", "folder.tif", "png.tif", "missing.tif"):
        with pytest.raises(ImageUnreadable, match=rf"{name} cannot be read as a GeoTIFF") as caught:
            read_image(tmp_path / name)
        assert name == "missing.tif" or str(caught.value).count(name) == 1


def test_an_image_larger_than_any_memory(tmp_path: Path) -> None:
    """A header may claim 300 TB of pixels; the file is named, whatever asks for the room."""
    path = tmp_path / "huge.tif"
    place = {"crs": "EPSG:3857", "transform": Affine(0.001, 0, 1e6, 0, -0.001, 2e6)}
    layout = {"tiled": True, "blockxsize": 16384, "blockysize": 16384, "interleave": "pixel", "sparse_ok": True}
    size = {"count": 4, "height": 20_000_000, "width": 4_000_000, "dtype": "uint8", "bigtiff": "yes"}
    with rasterio.open(path, "w", driver="GTiff", **size, **place, **layout):
        pass
    with pytest.raises(ImageUnreadable, match=r"huge\.tif cannot be read as a GeoTIFF \(Unable to allocate"):
        read_image(path)


def test_udm(tmp_path: Path, write_image: Write) -> None:
    """Whatever is not 0 is unusable; a mask of another size is refused with both sizes."""
    band = np.zeros((1, 33, 31), np.uint8)
    band[0, -1, -1], band[0, 0, 2] = 255, 1
    path = write_image(tmp_path / "udm.tif", band)
    assert np.argwhere(read_udm(path, (33, 31))).tolist() == [[0, 2], [32, 30]]
    with pytest.raises(ImageUnreadable, match=r"udm\.tif is 33 × 31 px .*; wanted 31 × 33 px"):
        read_udm(path, (31, 33))
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(ImageUnreadable, match=r"udm\.tif"):
        read_udm(path, (33, 31))


def test_reproject() -> None:
    """Longitude comes first whatever the CRS says of its axes; a point without a place becomes infinite."""
    points = np.array([[180.0, 0.0], [0.0, 0.0], [1e6, 1e6]])
    metres = reproject(points, CRS.from_epsg(4326), CRS.from_epsg(3857))
    assert metres[:2] == pytest.approx(np.array([[20037508.342789244, 0], [0, 0]]), abs=1e-6)
    assert not np.isfinite(metres[2]).all()


def test_real_image(mini: Path) -> None:
    """The real image of 1615E lies where its name's tile does; 0.39 % of its pixels are unusable."""
    source = next((mini / "train").glob("*1615E*/images_masked/*.tif"))
    image = read_image(source)
    assert image.shape == (1024, 1024)
    assert image.lon == pytest.approx((6460.5 / 2**13) * 360 - 180, abs=1e-5)
    assert image.alpha is not None
    assert (image.alpha == 0).mean() == pytest.approx(0.0039, abs=5e-5)
