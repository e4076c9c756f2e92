import json
from pathlib import Path

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pytest
import rasterio
import torch
from affine import Affine
from brightness import Brightness
from disk import needs_root, small_disk
from PIL import Image
from rasterio.env import get_gdal_config
from rio_cogeo import cog_validate

from sn7.errors import DataMissing, DiskFull, ImageUnreadable, MonthsInvalid, ResultsConflict
from sn7.predict import MapOptions, Pooling, predict, predict_image
from sn7.rules import PolygonRules

REAL = Path(__file__).parents[3] / "shared/data/sn7_mini"
SCENE = "L15-0331E-1257N_1327_3160_13"
SIDE = 4.77731426716
TRANSFORM = Affine(SIDE, 0, -13545864.4, 0, -SIDE, 4578883.74)


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
    """Probs are a valid COG on the grid of the image, NaN where alpha is 0, compressed, tiled and tagged."""
    array = bands(300, 270)
    array[3, :5] = 0
    source = write_tif(tmp_path / "a.tif", array)
    files = predict_image(Brightness(), source, tmp_path / "out")
    assert files is not None
    assert cog_validate(files.probs, strict=True, quiet=True) == (True, [], [])
    with rasterio.open(files.probs) as raster:
        assert raster.descriptions == ("probs",)
        assert (raster.count, raster.dtypes, raster.shape) == (1, ("float32",), (300, 270))
        assert raster.transform == TRANSFORM and raster.crs == "EPSG:3857"
        assert np.isnan(raster.nodata)
        assert raster.profile["compress"] == "deflate" and raster.block_shapes == [(512, 512)]
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
    """A damaged file and an image of one band raise ImageUnreadable and leave no file."""
    damaged = tmp_path / "damaged.tif"
    damaged.write_bytes(write_tif(tmp_path / "whole.tif", bands(400, 400)).read_bytes()[:300_000])
    one_band = write_tif(tmp_path / "one.tif", bands(count=1))
    for source in (damaged, one_band):
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


class Fine(Brightness):
    """The same on a grid twice as fine, with a boundary output of 0.25 and a contact output of 0.5 everywhere."""

    channels, scale = 3, 2

    def outputs(self, batch: torch.Tensor) -> torch.Tensor:
        """Return three outputs."""
        probs = super().outputs(batch).repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
        return torch.cat([probs, torch.full_like(probs, 0.25), torch.full_like(probs, 0.5)], dim=1)


def test_a_fine_grid_with_all_outputs(tmp_path: Path) -> None:
    """Three named bands of half the pixel's size, at the same place; polygons where they are on the coarse one."""
    array = bands()
    array[3, 40:, 70:] = 0
    source = write_tif(tmp_path / "a.tif", array)
    coarse = predict_image(Brightness(), source, tmp_path / "coarse")
    fine = predict_image(Fine(), source, tmp_path / "fine")
    assert coarse is not None and fine is not None
    with rasterio.open(fine.probs) as raster:
        assert raster.descriptions == ("probs", "boundary", "contact") and raster.shape == (140, 180)
        assert raster.transform.almost_equals(TRANSFORM @ Affine.scale(0.5))
        found = raster.read()
        assert raster.tags()["POLYGONS_SEED_LEVEL"] == "0.0"
    assert np.isnan(found[:, 80:, 140:]).all() and np.isnan(found).sum() == 3 * 60 * 40
    assert found[0, 20, 40] == pytest.approx(0.8) and found[2, 0, 0] == pytest.approx(0.5)
    bounds = [gpd.read_file(files.polygons).to_crs(3857).total_bounds for files in (coarse, fine)]
    np.testing.assert_allclose(*bounds, atol=0.02)


@pytest.mark.parametrize("ending", ["gpkg", "parquet"])
def test_other_formats_keep_the_crs(tmp_path: Path, ending: str) -> None:
    """Polygons of a GeoPackage or of GeoParquet are in the image's CRS."""
    options = MapOptions(PolygonRules(simplify_px=0), ending)
    files = predict_image(Brightness(), write_tif(tmp_path / "a.tif", bands()), tmp_path / "out", options=options)
    assert files is not None and files.polygons.name == f"a.{ending}"
    found = gpd.read_parquet(files.polygons) if ending == "parquet" else gpd.read_file(files.polygons)
    left, top = -13545864.4 + 20 * SIDE, 4578883.74 - 10 * SIDE
    assert found.crs == 3857
    assert found.total_bounds == pytest.approx([left, top - 4 * SIDE, left + 10 * SIDE, top], abs=1e-3)


def test_an_image_without_a_crs_is_predicted_with_a_warning(tmp_path: Path) -> None:
    """Probs without CRS, polygons in the file's own coordinates, no area, one sentence that says so."""
    source = write_tif(tmp_path / "a.tif", bands(), crs=None)
    report = predict(Brightness(), [source], tmp_path / "out")
    (files,), (warning,) = report.written, report.warnings
    assert "a.tif has no CRS" in warning and report.km2 == 0
    with rasterio.open(files.probs) as raster:
        assert raster.crs is None and raster.transform == TRANSFORM
    found = gpd.read_file(files.polygons)
    assert found["area_m2"].isna().all()
    left, top = -13545864.4 + 20 * SIDE, 4578883.74 - 10 * SIDE
    assert found.total_bounds == pytest.approx([left, top - 4 * SIDE, left + 10 * SIDE, top], abs=1e-2)


def test_ground_area_is_counted(tmp_path: Path) -> None:
    """70 × 90 px of 4.78 m at 38° N are 70 · 90 · (4.78 · cos 38°)² m², within what the ellipsoid changes."""
    report = predict(Brightness(), [write_tif(tmp_path / "a.tif", bands())], tmp_path / "out")
    assert report.km2 == pytest.approx(70 * 90 * (SIDE * np.cos(np.radians(37.98))) ** 2 / 1e6, rel=0.005)


def write_months(folder: Path) -> Path:
    """Write a scene of four months: a bright block in all, another in January alone, April transparent on the left."""
    for month in (1, 2, 3, 4):
        array = bands()
        if month == 1:
            array[:3, 40:44, 20:30] = 204
        if month == 4:
            array[3, :, :60] = 0
        write_tif(folder / "images_masked" / f"global_monthly_2018_{month:02}_mosaic_{folder.name}.tif", array)
    return folder


def test_a_scene_is_pooled_over_its_months(tmp_path: Path) -> None:
    """One map of the scene's name; the mean is over valid months; the median forgets what was there once."""
    scene = write_months(tmp_path / "data" / SCENE)
    for how, there_once in (("mean", 0.4), ("median", 0.2)):
        report = predict(Brightness(), [scene], tmp_path / how, pooling=Pooling(how))
        (files,) = report.written
        assert files.probs == tmp_path / how / SCENE / f"{SCENE}.tif" and files.count == 1
        with rasterio.open(files.probs) as raster:
            probs = raster.read(1)
        assert probs[42, 25] == pytest.approx(there_once) and probs[12, 25] == pytest.approx(0.8)
        assert sorted(path.suffix for path in files.probs.parent.iterdir()) == [".geojson", ".png", ".tif"]


def test_each_month_is_pooled_with_its_neighbours(tmp_path: Path) -> None:
    """Over three months: January with February; February with both; April, where it is invalid, is March."""
    scene = write_months(tmp_path / "data" / SCENE)
    images = sorted((scene / "images_masked").iterdir())  # as GeoTIFFs, their names tell scene and month
    for inputs, out in (([scene], tmp_path / "a"), (images, tmp_path / "b")):
        report = predict(Brightness(), inputs, out, pooling=Pooling("mean", 3))
        found = []
        for files, image in zip(report.written, images, strict=True):
            assert files.probs == out / SCENE / image.name
            with rasterio.open(files.probs) as raster:
                found.append(raster.read(1)[42, 25])
        assert found == pytest.approx([0.5, 0.4, 0.2, 0.2])


def test_what_cannot_be_pooled_is_named(tmp_path: Path) -> None:
    """A name without scene and month, before anything is predicted; months on other grids, with nothing written."""
    with pytest.raises(MonthsInvalid, match=r"a\.tif has a name that does not tell"):
        predict(Brightness(), [write_tif(tmp_path / "a.tif", bands())], tmp_path / "out", pooling=Pooling("mean"))
    scene = write_months(tmp_path / "data" / SCENE)
    moved = scene / "images_masked" / f"global_monthly_2018_02_mosaic_{SCENE}.tif"
    with rasterio.open(moved, "r+") as raster:
        raster.transform = TRANSFORM @ Affine.translation(3, 0)
    with pytest.raises(MonthsInvalid, match="do not lie on one grid"):
        predict(Brightness(), [scene], tmp_path / "out", pooling=Pooling("mean"))
    assert not list((tmp_path / "out").rglob("*.*"))


class Failing(Brightness):
    """A predictor that fails after some windows, as a GPU may."""

    def __init__(self) -> None:
        super().__init__()
        self.left = 2

    def outputs(self, batch: torch.Tensor) -> torch.Tensor:
        """Return the outputs, or raise."""
        self.left -= 1
        if self.left < 0:
            raise RuntimeError("device lost")
        return super().outputs(batch)


def test_an_end_half_way_leaves_nothing(tmp_path: Path) -> None:
    """Neither a file nor the folder."""
    source = write_tif(tmp_path / "a.tif", bands(400, 90))
    with pytest.raises(RuntimeError, match="device lost"):
        predict_image(Failing(), source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@needs_root
@pytest.mark.parametrize("size", ["1m", "5m"])
def test_a_full_disk_leaves_nothing(tmp_path: Path, size: str) -> None:
    """Full while the outputs, or the GeoTIFF, are written: DiskFull, and the disk is as it was."""
    noise = np.random.default_rng(0).integers(0, 256, (3, 900, 900), dtype=np.uint8)
    source = write_tif(tmp_path / "a.tif", noise)
    with small_disk(tmp_path / "disk", size) as disk:
        with pytest.raises(DiskFull, match="the disk is full"):
            predict_image(Brightness(), source, disk / "out")
        assert list(disk.rglob("*")) == []


def test_an_image_is_read_a_few_rows_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 700 rows never more than a window's are read from the file at once, but for the preview's every nth pixel."""
    source = write_tif(tmp_path / "a.tif", bands(700, 90))
    heights = []
    read = rasterio.io.DatasetReader.read

    def watched(self, *args, **options):  # type: ignore[no-untyped-def]
        if "window" in options:
            heights.append(options["window"].height)
        return read(self, *args, **options)

    monkeypatch.setattr(rasterio.io.DatasetReader, "read", watched)
    assert predict_image(Brightness(), source, tmp_path / "out") is not None
    assert len(heights) > 10 and max(heights) <= 512  # the rows that are looked at for valid pixels


class Watching(Brightness):
    """A predictor that writes down how much GDAL may keep of its files meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.caches: list[int] = []

    def outputs(self, batch: torch.Tensor) -> torch.Tensor:
        """Return the outputs."""
        self.caches.append(get_gdal_config("GDAL_CACHEMAX"))
        return super().outputs(batch)


def test_gdal_keeps_little_of_an_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """128 MiB from the first row that is read to the last that is copied, in place of a share of the machine's RAM."""
    watching, copy = Watching(), rasterio.shutil.copy

    def watched(*args, **options):  # type: ignore[no-untyped-def]
        watching.caches.append(get_gdal_config("GDAL_CACHEMAX"))
        return copy(*args, **options)

    monkeypatch.setattr(rasterio.shutil, "copy", watched)
    source = write_tif(tmp_path / "a.tif", bands())
    predict(watching, [source], tmp_path / "one")
    predict_image(watching, source, tmp_path / "two")
    assert len(watching.caches) > 2 and set(watching.caches) == {128 << 20}


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
