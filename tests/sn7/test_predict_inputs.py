"""What `sn7 predict` makes of what it is given: masks of a scene, damage, grids, places, folders that are in use."""

import io
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from brightness import Brightness, mean_probs, write_month

from sn7.cli import main
from sn7.errors import FolderUnwritable, MonthsInvalid, ResultsConflict
from sn7.predict import MapOptions, Pooling, predict, predict_image
from sn7.symmetries import Symmetries

Write = Callable[..., Path]
SCENE = "L15-0331E-1257N_1327_3160_13"
RGB = np.full((3, 64, 64), 204, np.uint8)
HALF = 20037508.342789244
"""Metres of EPSG:3857 from the meridian of Greenwich to the antimeridian."""


def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """Return what is written to standard error from here on, which is a terminal."""
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", stream)
    return stream


def test_an_image_of_a_scene_has_its_mask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_image: Write) -> None:
    """Given as a file, from anywhere, it is predicted as it is within its scene: without what the UDM marks."""
    image = write_month(tmp_path / SCENE, "2018_01", 204)
    udm = np.zeros((1, 64, 64), np.uint8)
    udm[0, :10] = 1
    write_image(tmp_path / SCENE / "UDM_masks" / f"{image.stem}_UDM.tif", udm)
    monkeypatch.chdir(image.parent)
    predict(Brightness(), [Path(image.name)], tmp_path / "out")
    with rasterio.open(tmp_path / "out" / image.name) as raster:
        assert np.isnan(raster.read(1)).sum() == 10 * 64


@pytest.mark.filterwarnings("error::tqdm.TqdmWarning")
def test_a_bar_counts_an_image_as_often_as_it_is_predicted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a file and in its scene: twice its area, and no more than that."""
    image = write_month(tmp_path / SCENE, "2018_01", 204)
    said = terminal(monkeypatch)
    report = predict(Brightness(), [tmp_path / SCENE, image], tmp_path / "out")
    assert len(report.written) == 2 and f"{report.km2:.1f}/{report.km2:.1f} km²" in said.getvalue()


@pytest.mark.filterwarnings("error::tqdm.TqdmWarning")
def test_a_bar_counts_pixels_where_a_place_is_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_image: Write
) -> None:
    """Of 640 × 640 px, 0.4 million."""
    rgb = np.full((3, 640, 640), 51, np.uint8)
    said = terminal(monkeypatch)
    predict(Brightness(), [write_image(tmp_path / "a.tif", rgb, crs=None)], tmp_path / "out")
    assert "100%" in said.getvalue() and "0.4/0.4 Mpx" in said.getvalue()


def test_an_image_that_ends_too_early_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], write_image: Write
) -> None:
    """The others are predicted, also those after it, and the closing line is printed; the command ends with 1."""
    monkeypatch.setattr("sn7.ensemble.load_predictor", lambda *_: Brightness())
    noise = np.random.default_rng(0).integers(0, 256, (3, 400, 400), np.uint8)
    cut = tmp_path / "cut.tif"
    cut.write_bytes(write_image(tmp_path / "whole.tif", noise).read_bytes()[:300_000])
    (tmp_path / "none.tif").write_bytes(b"no image")
    good = write_image(tmp_path / "good.tif", RGB)
    inputs = [str(tmp_path / name) for name in ("cut.tif", "none.tif", "good.tif")]
    assert main(["predict", "model", *inputs, "--out", str(tmp_path / "out"), "--batch-size", "1"]) == 1
    said = capsys.readouterr()
    assert "1 of 3 images predicted" in said.out and "2 skipped" in said.out
    assert said.out.count("skipped: ") == 2 and str(cut) in said.out
    assert "error: 2 of 3 images cannot be read" in said.err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["good.geojson", "good.png", good.name]


def test_a_damaged_month_does_not_count(tmp_path: Path) -> None:
    """The mean is over the months that can be read."""
    for month, value in (("2018_01", 51), ("2018_02", 102), ("2018_03", 204)):
        image = write_month(tmp_path / SCENE, month, value)
    image.write_bytes(image.read_bytes()[:-4096])
    report = predict(Brightness(), [tmp_path / SCENE], tmp_path / "out", pooling=Pooling("mean"))
    assert (report.images, report.unreadable, len(report.skipped)) == (3, 1, 1)
    assert mean_probs(tmp_path / "out") == pytest.approx([0.3], abs=1e-6)


@pytest.mark.parametrize(
    ("place", "apart"),
    [
        (Affine.translation(0.05, 0), False),
        (Affine.translation(0.2, 0), True),
        (Affine.scale(1.001), False),
        (Affine.scale(1.01), True),
        (Affine.translation(64, 64) @ Affine.scale(-1), True),
    ],
)
def test_grids_are_compared_in_pixels(tmp_path: Path, write_image: Write, place: Affine, apart: bool) -> None:
    """In degrees, where a pixel is 4e-5: to a tenth of a pixel at every corner, and before anything is predicted."""
    first = Affine(4e-5, 0, -121.7, 0, -4e-5, 37.9)
    names = [f"global_monthly_2018_0{month}_mosaic_{SCENE}.tif" for month in (1, 2)]
    images = [
        write_image(tmp_path / name, RGB, transform, "EPSG:4326")
        for name, transform in zip(names, (first, first @ place), strict=True)
    ]
    model = Brightness()
    if not apart:
        assert len(predict(model, images, tmp_path / "out", pooling=Pooling("mean")).written) == 1
        return
    with pytest.raises(MonthsInvalid, match=rf"{names[1]} and .*{names[0]} do not lie on one grid"):
        predict(model, images, tmp_path / "out", pooling=Pooling("mean"))
    assert model.calls == 0 and not (tmp_path / "out").exists()


def test_files_beside_an_image_are_not_ours(tmp_path: Path, write_image: Write) -> None:
    """An image that ends differently than probs would stay, but not the polygons that lie beside it."""
    image = write_image(tmp_path / "town.tiff", RGB)
    (tmp_path / "town.geojson").write_text("drawn by hand")
    for attempt in (
        lambda: predict(Brightness(), [image], tmp_path),
        lambda: predict_image(Brightness(), image, tmp_path),
    ):
        with pytest.raises(ResultsConflict, match="would be overwritten"):
            attempt()
    assert (tmp_path / "town.geojson").read_text() == "drawn by hand"


def test_polygons_in_another_format_take_the_place_of_older_ones(tmp_path: Path, write_image: Write) -> None:
    """Else there would be two files of polygons, one of which is of other probs."""
    image = write_image(tmp_path / "a.tif", RGB)
    for ending in ("geojson", "gpkg", "parquet"):
        predict(Brightness(), [image], tmp_path / "out", MapOptions(format=ending))
        assert {path.name for path in (tmp_path / "out").iterdir()} == {f"a.{ending}", "a.png", "a.tif"}


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        ("EPSG:3857", Affine(5, 0, HALF - 160, 0, -5, 160)),
        ("EPSG:4326", Affine(5 / 111319.49, 0, 180 - 160 / 111319.49, 0, -5 / 111319.49, 160 / 111319.49)),
        ("EPSG:4326", Affine(5 / 111319.49, 0, 200, 0, -5 / 111319.49, 160 / 111319.49)),
    ],
)
def test_across_the_antimeridian(tmp_path: Path, write_image: Write, crs: str, transform: Affine) -> None:
    """64 × 64 px of 5 m at the equator are 320 × 320 m there too, also where longitudes are counted from 0 to 360."""
    report = predict(Brightness(), [write_image(tmp_path / "a.tif", RGB, transform, crs)], tmp_path / "out")
    assert report.km2 == pytest.approx(0.32**2, rel=0.01)
    (files,) = report.written
    assert files.count == 1 and f'"area_m2": {report.km2 * 1e6:.0f}'[:14] in files.polygons.read_text()


def test_without_a_geotransform_there_is_no_warning_of_a_library(tmp_path: Path, write_image: Write) -> None:
    """The image's own is said in the report; none of those is of the files on the way."""
    with pytest.warns(rasterio.errors.NotGeoreferencedWarning):
        image = write_image(tmp_path / "a.tif", RGB, Affine.identity(), None)
    assert len(predict(Brightness(), [image], tmp_path / "out").warnings) == 1


def test_out_is_a_file(tmp_path: Path, write_image: Write) -> None:
    """One sentence, which names it."""
    (tmp_path / "out").touch()
    with pytest.raises(FolderUnwritable, match=r"out cannot be written to \(it is no folder\)"):
        predict(Brightness(), [write_image(tmp_path / "a.tif", RGB)], tmp_path / "out")


def test_tags_say_how_probs_were_made(tmp_path: Path) -> None:
    """Which model it was, its symmetries and the pooling; what was not done is not there."""
    image = write_month(tmp_path / SCENE, "2018_01", 204)
    made = {"SYMMETRIES": "8", "POOL": "median", "POOL_MONTHS": "3"}
    predict(Brightness(), [image], tmp_path / "plain")
    predict(Symmetries(Brightness()), [image], tmp_path / "tta", pooling=Pooling("median", 3))
    for folder, expected in ((tmp_path / "plain", {}), (tmp_path / "tta" / SCENE, made)):
        with rasterio.open(folder / image.name) as raster:
            tags = raster.tags()
        assert tags["MODEL"] == "brightness" and {name: tags[name] for name in made if name in tags} == expected
