import json
from pathlib import Path

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pytest
import rasterio
import torch
from affine import Affine
from PIL import Image

from sn7.errors import DataMissing, ImageUnreadable, ResultsConflict
from sn7.predict import predict, predict_image
from sn7.rules import PolygonRules

REAL = Path(__file__).parents[3] / "shared/data/sn7_mini"
SCENE = "L15-0331E-1257N_1327_3160_13"
SIDE = 4.77731426716
TRANSFORM = Affine(SIDE, 0, -13545864.4, 0, -SIDE, 4578883.74)


class Brightness:
    """A predictor that takes bright pixels for buildings."""

    name = "brightness"
    threshold = 0.5
    rules = PolygonRules()
    window = 64
    channels = scale = 1

    def outputs(self, batch: torch.Tensor) -> torch.Tensor:
        """Return the mean of the three channels, 0 to 1."""
        return batch.float().mean(1, keepdim=True) / 255


def bands(height: int = 70, width: int = 90, count: int = 4) -> npt.NDArray[np.uint8]:
    """Return a dark image with a bright block at rows 10 to 14, columns 20 to 30, and full alpha."""
    array = np.full((count, height, width), 51, np.uint8)
    array[:3, 10:14, 20:30] = 204
    array[3:] = 255
    return array


def write_tif(path: Path, array: npt.NDArray[np.uint8], crs: str | None = "EPSG:3857") -> Path:
    """Write bands (n, h, w) as a GeoTIFF at TRANSFORM."""
    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = array.shape
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=count,
        height=height,
        width=width,
        dtype="uint8",
        crs=crs,
        transform=TRANSFORM,
    ) as raster:
        raster.write(array)
    return path


def write_scene(folder: Path, months: tuple[str, ...] = ("2018_01",)) -> Path:
    """Write a scene folder with an image a month."""
    for month in months:
        write_tif(folder / "images_masked" / f"global_monthly_{month}_mosaic_{folder.name}.tif", bands())
    return folder


def test_probs_geotiff(tmp_path: Path) -> None:
    """Probs lie on the grid of the image, NaN where alpha is 0, compressed, tiled and tagged."""
    array = bands(300, 270)
    array[3, :5] = 0
    source = write_tif(tmp_path / "a.tif", array)
    files = predict_image(Brightness(), source, tmp_path / "out")
    assert files is not None
    with rasterio.open(files.probs) as raster:
        assert (raster.count, raster.dtypes, raster.shape) == (1, ("float32",), (300, 270))
        assert raster.transform == TRANSFORM and raster.crs == "EPSG:3857"
        assert np.isnan(raster.nodata)
        assert raster.profile["compress"] == "deflate" and raster.block_shapes == [(256, 256)]
        assert raster.tags(ns="IMAGE_STRUCTURE")["PREDICTOR"] == "3"
        tags = raster.tags()
        assert (tags["MODEL"], tags["THRESHOLD"]) == ("brightness", "0.5") and "probability" in tags["UNITS"]
        probs = raster.read(1)
    expected = np.full((300, 270), 0.2, np.float32)
    expected[10:14, 20:30] = 0.8
    expected[:5] = np.nan
    np.testing.assert_allclose(probs, expected, atol=1e-6)


def test_geojson_and_preview(tmp_path: Path) -> None:
    """The bright block becomes one polygon at its longitude and latitude, outlined in the preview."""
    files = predict_image(Brightness(), write_tif(tmp_path / "a.tif", bands()), tmp_path / "out")
    assert files is not None and files.count == 1
    found = gpd.read_file(files.polygons)
    left, top = -13545864.4 + 20 * SIDE, 4578883.74 - 10 * SIDE
    assert found.to_crs(3857).total_bounds == pytest.approx([left, top - 4 * SIDE, left + 10 * SIDE, top], abs=0.02)
    west, south, east, north = found.total_bounds
    assert -122 < west < east < -121 and 37 < south < north < 39
    assert found["mean_prob"].tolist() == [0.8]
    with Image.open(files.preview) as picture:
        assert picture.size == (360, 280)
        assert picture.getpixel((100, 40)) == (255, 235, 0)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.geojson", "a.png", "a.tif"]


def test_invalid_pixels_yield_no_polygons(tmp_path: Path) -> None:
    """A bright block under alpha 0, or under the mask of unusable pixels, is no building."""
    array = bands()
    array[3, :, :40] = 0
    by_alpha = predict_image(Brightness(), write_tif(tmp_path / "a.tif", array), tmp_path / "out")
    unusable = np.zeros((1, 70, 90), np.uint8)
    unusable[:, :, :40] = 255
    udm = write_tif(tmp_path / "udm.tif", unusable)
    by_udm = predict_image(Brightness(), write_tif(tmp_path / "b.tif", bands()), tmp_path / "out", udm)
    for files in (by_alpha, by_udm):
        assert files is not None and files.count == 0
        assert json.loads(files.polygons.read_text())["features"] == []
        with rasterio.open(files.probs) as raster:
            assert np.isnan(raster.read(1)).sum() == 70 * 40


def test_three_bands_are_all_valid(tmp_path: Path) -> None:
    """An image without alpha is predicted everywhere."""
    files = predict_image(Brightness(), write_tif(tmp_path / "a.tif", bands(count=3)), tmp_path / "out")
    assert files is not None and files.count == 1
    with rasterio.open(files.probs) as raster:
        assert np.isfinite(raster.read(1)).all()


def test_nothing_valid_is_skipped_with_its_reason(tmp_path: Path) -> None:
    """An image whose alpha is 0 everywhere writes nothing and is named in the report."""
    blank = write_tif(tmp_path / "blank.tif", np.zeros((4, 40, 40), np.uint8))
    good = write_tif(tmp_path / "good.tif", bands())
    report = predict(Brightness(), [blank, good], tmp_path / "out")
    assert report.images == 2 and len(report.written) == 1
    assert report.skipped == (f"{blank} has no valid pixel.",)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "good.geojson",
        "good.png",
        "good.tif",
    ]


def test_scene_folder(tmp_path: Path) -> None:
    """Every month of a scene is written below the scene's name."""
    scene = write_scene(tmp_path / "data" / SCENE, ("2018_01", "2018_02"))
    report = predict(Brightness(), [scene], tmp_path / "out")
    assert [files.probs for files in report.written] == [
        tmp_path / "out" / SCENE / f"global_monthly_{month}_mosaic_{SCENE}.tif" for month in ("2018_01", "2018_02")
    ]
    assert report.skipped == ()


@pytest.mark.parametrize(
    ("folders", "predicted"), [(["train", "test_public"], ["s2"]), (["train"], ["s1"]), ([""], ["s1"])]
)
def test_data_set_folder(tmp_path: Path, folders: list[str], predicted: list[str]) -> None:
    """Of a data set the final scenes are predicted, or all scenes where it has none."""
    for number, folder in enumerate(folders, 1):
        write_scene(tmp_path / "data" / folder / f"s{number}")
    predict(Brightness(), [tmp_path / "data"], tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == predicted


def test_missing_inputs(tmp_path: Path) -> None:
    """A path that is not there, and a folder without images, are named before anything is predicted."""
    good = write_tif(tmp_path / "good.tif", bands())
    with pytest.raises(DataMissing, match=r"nowhere\.tif does not exist"):
        predict(Brightness(), [good, tmp_path / "nowhere.tif"], tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataMissing, match="empty"):
        predict(Brightness(), [good, tmp_path / "empty"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_unusable_images(tmp_path: Path) -> None:
    """A damaged file and an image without CRS raise ImageUnreadable and leave no file."""
    damaged = tmp_path / "damaged.tif"
    damaged.write_bytes(write_tif(tmp_path / "whole.tif", bands(400, 400)).read_bytes()[:300_000])
    placeless = write_tif(tmp_path / "placeless.tif", bands(), crs=None)
    for source in (damaged, placeless):
        with pytest.raises(ImageUnreadable, match=source.name):
            predict_image(Brightness(), source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_inputs_are_never_overwritten(tmp_path: Path) -> None:
    """Probs have the name of their image, so its own folder is refused, and two images of one name too."""
    source = write_tif(tmp_path / "a.tif", bands())
    before = source.read_bytes()
    with pytest.raises(ResultsConflict, match="overwritten"):
        predict(Brightness(), [source], tmp_path)
    assert source.read_bytes() == before
    other = write_tif(tmp_path / "other" / "a.tif", bands())
    with pytest.raises(ResultsConflict, match="both"):
        predict(Brightness(), [source, other], tmp_path / "out")


@pytest.mark.skipif(not REAL.exists(), reason="needs the real fragments in ../shared/data/sn7_mini")
def test_real_image(tmp_path: Path) -> None:
    """The genuine 1023 × 1024 px image is predicted as the data set's final scene, in its own place."""
    report = predict(Brightness(), [REAL], tmp_path)
    (files,) = report.written
    assert files.probs.parent.name == SCENE and files.count > 50
    with rasterio.open(files.probs) as raster:
        assert raster.shape == (1023, 1024)
        lon, lat = -121.6626, 37.9789  # its centre, by the scene's tile 1327/3160 at zoom 13
    west, south, east, north = gpd.read_file(files.polygons).total_bounds
    assert west < lon < east and south < lat < north
    assert east - west < 0.0441 and north - south < 0.0348  # a tile of zoom 13 there
    with Image.open(files.preview) as picture:
        assert picture.size == (2048, 2046)
