import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.warp
from affine import Affine
from matplotlib.figure import Figure
from PIL import Image as Picture

from sn7.catalog import Catalog, Image, Scene, read_catalog
from sn7.cli import main
from sn7.config import TrainConfig
from sn7.errors import ConfigError, DataMissing, FolderUnwritable, ImageUnreadable, ResultsConflict
from sn7.explore import atlas, explore
from sn7.explore.atlas import _same_ground
from sn7.explore.ground import mask_picture, round_length
from sn7.explore.numbers import Surveyed
from sn7.explore.scenemap import draw_map
from sn7.explore.survey import survey
from sn7.explore.view import crop, read_view
from sn7.folds import building_pixels, make_folds
from sn7.prepare import prepare
from sn7.sample import SampleReport, make_sample
from sn7.tiles import training_tiles

PICTURES = {"scenes", "months", "footprints", "tiles", "building_share", "unusable", "map"}
PIXEL = 4.777314267823516


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SampleReport]:
    """Three scenes and one to predict, two months, 160 px: what is on disk and what the generator says of it."""
    root = tmp_path_factory.mktemp("explore") / "data"
    return root, make_sample(root, scenes=3, months=2, size=160, seed=2)


@pytest.fixture(scope="module")
def explored(sample: tuple[Path, SampleReport], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample's pictures and numbers, tiles of 64 px."""
    out = tmp_path_factory.mktemp("explored")
    explore(sample[0], out, tile_size=64)
    return out


def numbers_of(data: Path, tile_size: int = 255) -> dict[str, Any]:
    """Return the numbers of a data set without drawing anything."""
    return surveyed(data, tile_size).numbers()


def surveyed(data: Path, tile_size: int = 255) -> Surveyed:
    """Return the survey of the training scenes of a data set."""
    catalog = read_catalog(data)
    return Surveyed(catalog, survey([image for s in catalog.training for image in s.images], tile_size), tile_size)


def files(scene: Path, folder: str) -> list[Path]:
    """Return the files of one folder of a scene, in order."""
    return sorted((scene / folder).iterdir())


def test_numbers_are_the_generators(sample: tuple[Path, SampleReport], tmp_path: Path) -> None:
    """With the truth of the test scenes put beside their images, every count is the generator's own."""
    data, report = tmp_path / "data", sample[1]
    shutil.copytree(sample[0], data)
    for split in ("test_public", "test_truth"):
        shutil.copytree(data / split, data / "train", dirs_exist_ok=True)
        shutil.rmtree(data / split)
    found = numbers_of(data)
    assert found["scenes"] == {"training": report.scenes + report.test_scenes, "final": 0}
    assert found["images"]["training"] == found["images"]["labelled"] == report.images
    assert found["images"]["with_unusable_pixels"] == report.images_with_udm > 0
    assert found["footprints"] == {"used": report.footprints, "left_out": 0}
    assert found["building_share"] == pytest.approx(report.building_share, abs=1e-12)


def test_numbers_file(sample: tuple[Path, SampleReport], explored: Path) -> None:
    """Scenes to predict count apart; a scene's own numbers add up to those of the whole."""
    report, found = sample[1], json.loads((explored / "numbers.json").read_text())
    assert found["scenes"] == {"training": report.scenes, "final": report.test_scenes}
    assert found["images"]["training"] + found["images"]["final"] == report.images
    assert found["images"]["with_udm_file"] == len(list(sample[0].glob("train/*/UDM_masks/*")))
    assert found["images"]["with_unusable_pixels"] == report.images_with_udm
    assert found["months"] == {"first": "2018-01", "last": "2018-02"}
    images = [image for scene in found["per_scene"] for image in scene["images"]]
    assert len(images) == report.images
    assert sum(image["footprints"] for image in images) == found["footprints"]["used"]
    assert np.mean([image["unusable_share"] for image in images]) == pytest.approx(found["unusable_share"])
    assert [scene["split"] for scene in found["per_scene"]] == ["training"] * 3 + ["final"]
    assert sum(found["tiles"]["histogram"]["counts"]) == found["tiles"]["count"]
    for scene in found["per_scene"]:
        assert scene["ground_m"] == pytest.approx(PIXEL * math.cos(math.radians(scene["lat"])), rel=0.0034)
    assert [len(names) for names in found["clusters"]] == [2, 1]  # the generator's first two scenes are neighbours


def test_tiles_and_folds_are_those_of_training(
    sample: tuple[Path, SampleReport], explored: Path, tmp_path: Path
) -> None:
    """Tiles, empty tiles, building pixels and folds are what a training on the prepared data set would use."""
    prepared = prepare(sample[0], tmp_path / "prepared").prepared
    found = json.loads((explored / "numbers.json").read_text())
    counts = []
    for undersample in (False, True):
        config = TrainConfig(tile_size=64, images_per_scene=1000, undersample=undersample)
        counts.append(len(training_tiles(prepared, prepared.scenes, config)))
    assert found["tiles"]["count"] == counts[0] and found["tiles"]["empty"] == counts[0] - counts[1] > 0
    pixels = building_pixels(prepared)
    assert [fold["scenes"] for fold in found["folds"]] == make_folds(prepared.centres(), pixels, 2)
    for fold in found["folds"]:
        assert fold["building_pixels"] == pytest.approx(sum(pixels[scene] for scene in fold["scenes"]))


def test_pictures(explored: Path) -> None:
    """Each is a PNG at least as wide as a README shows it, with colours in it, and nothing else is left behind."""
    assert {path.stem for path in explored.iterdir()} == PICTURES | {"numbers"}
    for name in PICTURES:
        picture = Picture.open(explored / f"{name}.png")
        assert picture.format == "PNG" and 1250 < picture.width < 1400, name
        assert len(picture.convert("RGB").getcolors(1 << 24) or ()) > 50, name


def test_the_seed_draws_the_tiles(sample: tuple[Path, SampleReport], explored: Path, tmp_path: Path) -> None:
    """The same seed gives the same bytes, from two processes too; another one other tiles."""
    explore(sample[0], tmp_path / "again", tile_size=64, workers=2)
    for path in explored.iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes(), path.name
    explore(sample[0], tmp_path / "other", tile_size=64, seed=1)
    changed = {p.name for p in explored.iterdir() if (tmp_path / "other" / p.name).read_bytes() != p.read_bytes()}
    assert changed == {"tiles.png"}


def test_an_unlabelled_image_is_not_empty(make_data: Callable[..., Path]) -> None:
    """No label file, or none with a footprint: no tile, no building share, but a known share of unusable pixels."""
    data = make_data(scenes=2, months=3, shape=(40, 40))
    scene = next((data / "train").iterdir())
    for folder in ("labels", "labels_match", "labels_match_pix"):
        first, second, _ = files(scene, folder)
        first.unlink()
        second.write_text(json.dumps({"type": "FeatureCollection", "features": [{"geometry": None}]}))
    with rasterio.open(files(scene, "images_masked")[0], "r+") as image:
        alpha = image.read(4)
        alpha[:10] = 0
        image.write(alpha, 4)
    found = numbers_of(data)
    assert found["images"] == {
        "training": 6,
        "final": 0,
        "labelled": 4,
        "unlabelled": 2,
        "with_udm_file": 0,
        "with_unusable_pixels": 1,
    }
    assert found["footprints"] == {"used": 8, "left_out": 1}
    assert found["tiles"]["count"] == 4 and found["tiles"]["empty"] == 0
    assert found["pixels"] == {"valid": 4 * 1600, "building": 4 * 26}
    assert found["building_share"] == found["tiles"]["median"] == 26 / 1600
    first, second, third = next(s for s in found["per_scene"] if s["scene"] == scene.name)["images"]
    assert (first["unusable_share"], second["unusable_share"]) == (0.25, 0)
    assert first["building_share"] is second["building_share"] is None and third["building_share"] == 26 / 1600


def test_a_tile_without_a_valid_pixel(make_data: Callable[..., Path]) -> None:
    """It counts apart, neither as empty nor in the mean."""
    data = make_data(scenes=1, months=1, shape=(64, 64))
    with rasterio.open(next(data.glob("train/*/images_masked/*")), "r+") as image:
        image.write(np.repeat(np.uint8([0, 255]), 32)[:, None].repeat(64, axis=1), 4)
    tiles = numbers_of(data, tile_size=32)["tiles"]
    assert (tiles["count"], tiles["without_valid_pixel"], tiles["empty"]) == (2, 2, 1)
    assert tiles["mean"] == 6 / 1024 / 2
    assert tiles["histogram"] == {"edges": [0, 0.02], "counts": [2]}


def test_only_scenes_to_predict(sample: tuple[Path, SampleReport], tmp_path: Path) -> None:
    """What needs labels is left out, said, and not left over from another data set."""
    shutil.copytree(sample[0] / "test_public", tmp_path / "data" / "test_public")
    out = tmp_path / "out"
    out.mkdir()
    (out / "tiles.png").write_text("of another data set")
    done = explore(tmp_path / "data", out)
    assert {path.stem for path in out.iterdir()} == {"scenes", "months", "unusable", "map", "numbers"}
    assert [sentence.split(":")[0] for sentence in done.left_out] == [
        "footprints.png",
        "tiles.png",
        "building_share.png",
    ]
    assert done.numbers["building_share"] is done.numbers["tiles"]["mean"] is None
    assert done.numbers["folds"] == done.numbers["clusters"] == []


def test_truth_of_scenes_to_predict_is_not_looked_at(
    sample: tuple[Path, SampleReport], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Labels that somebody put under test_public/ change nothing."""
    monkeypatch.setattr("sn7.explore.make._draw", lambda found, out, seed: ((), ()))
    data = tmp_path / "data"
    shutil.copytree(sample[0], data)
    before = explore(data, tmp_path / "before").numbers
    shutil.copytree(data / "test_truth", data / "test_public", dirs_exist_ok=True)
    assert explore(data, tmp_path / "after").numbers == before


def test_ground_size_of_a_pixel(
    make_data: Callable[..., Path], write_image: Callable[..., Path], tmp_path: Path
) -> None:
    """A metre of Web Mercator shrinks with the latitude; one of UTM is a metre, to 0.1 %."""
    view = read_view(read_catalog(make_data(scenes=1, months=1)).training[0].images[0])
    assert view.ground_m == pytest.approx(PIXEL * math.cos(math.radians(view.lat)), rel=0.0034)
    scene = tmp_path / "utm" / "train" / "x"
    path = scene / "images" / "global_monthly_2020_01_mosaic_x.tif"
    write_image(path, np.zeros((3, 50, 60), np.uint8), Affine(10, 0, 400_000, 0, -10, 5_000_000), "EPSG:32631")
    assert read_view(read_catalog(tmp_path / "utm").training[0].images[0]).ground_m == pytest.approx(10, rel=1e-3)


def test_outlines_lie_on_the_mask(make_data: Callable[..., Path]) -> None:
    """The first footprint of the data set covers columns 2 to 6 of rows 3 to 6, whichever folder it comes from."""
    data = make_data(scenes=1, months=1)
    for folder in ("labels_match", "labels_match_pix", "labels"):
        view = read_view(read_catalog(data).training[0].images[0])
        ring, _ = view.outlines()
        assert ring.min(axis=0) == pytest.approx([2, 3], abs=1e-3)
        assert ring.max(axis=0) == pytest.approx([7, 7], abs=1e-3)
        assert view.mask[3:7, 2:7].all() and view.mask.sum() == 26
        shutil.rmtree(next((data / "train").iterdir()) / folder)


def test_crop_beyond_the_border() -> None:
    """Pixels outside of the image have the value asked for, on every side and where nothing overlaps."""
    pixels = np.arange(6, dtype=np.uint8).reshape(1, 2, 3)
    assert crop(pixels, -1, -1, (2, 3), 9).tolist() == [[[9, 9, 9], [9, 0, 1]]]
    assert crop(pixels, 1, 2, (2, 2), 9).tolist() == [[[5, 9], [9, 9]]]
    assert crop(pixels, 0, 0, (2, 3)).tolist() == pixels.tolist()
    for row, col in ((-9, 0), (0, -9), (5, 0), (0, 5)):
        assert (crop(pixels, row, col, (2, 2), 9) == 9).all()


def test_months_show_the_same_ground(
    make_data: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An image that begins 5 px further east is cropped 5 px further west; the key names the grey beyond."""
    data = make_data(scenes=1, months=2, shape=(40, 40))
    first, second = files(next((data / "train").iterdir()), "images_masked")
    with rasterio.open(first) as source, rasterio.open(second, "r+") as target:
        bands = source.read()
        target.write(np.roll(bands, -5, axis=2))
        a, b, c, d, e, f, *_ = source.transform
        target.transform = Affine(a, b, c + 5 * a, d, e, f)
    shown: list[np.ndarray] = []
    monkeypatch.setattr(atlas, "show", lambda axes, pixels, title: shown.append(pixels))
    monkeypatch.setattr(atlas, "scale_bar", lambda axes, metres: None)
    figures: list[Figure] = []
    monkeypatch.setattr(atlas, "save", lambda figure, path: figures.append(figure))
    atlas.draw_months(surveyed(data), tmp_path / "x.png")
    earlier, later = shown
    assert np.array_equal(earlier[:, :, :35], bands[:3, :, 5:]) and (earlier[:, :, 35:] == 128).all()
    assert np.array_equal(later[:, :, :35], earlier[:, :, :35])
    assert [text.get_text() for text in figures[0].legends[0].get_texts()] == ["beyond the image"]


def test_months_show_the_same_ground_in_another_crs(make_data: Callable[..., Path]) -> None:
    """Of an image in degrees with pixels of half the size it shows twice as many, from the same place on."""
    data = make_data(scenes=1, months=2, shape=(40, 40))
    first, second = files(next((data / "train").iterdir()), "images_masked")
    for path in (data / "train").rglob("*.geojson"):
        path.unlink()
    with rasterio.open(first) as source, rasterio.open(second, "r+") as target:
        west, south, east, north = rasterio.warp.transform_bounds(source.crs, "EPSG:4326", *source.bounds)
        target.crs = "EPSG:4326"
        target.transform = Affine((east - west) / 80, 0, west, 0, (south - north) / 80, north)
    one, other = (read_view(image) for image in read_catalog(data).training[0].images)
    found = _same_ground(other, one, one.ground(10, 4), (5, 6))
    assert np.array_equal(found, other.rgb[:, 8:18, 20:32])
    assert _same_ground(one, other, other.ground(20, 8), (10, 12)).shape == (3, 5, 6)


def test_colours_of_a_mask() -> None:
    """Building white, background black, invalid grey, whatever the mask says there."""
    picture = mask_picture(np.uint8([[0, 1, 1]]), np.uint8([[1, 1, 0]]))
    assert picture.tolist() == [[[0, 255, 128]]] * 3


@pytest.mark.parametrize(("longest", "length"), [(999, 500), (1000, 1000), (4.99, 2), (0.15, 0.1), (237, 200)])
def test_length_of_a_scale_bar(longest: float, length: float) -> None:
    """1, 2 or 5 times a power of ten, never longer than there is room for."""
    assert round_length(longest) == pytest.approx(length)


def test_a_map_of_many_clusters(make_data: Callable[..., Path], tmp_path: Path) -> None:
    """Thirty pairs of neighbours: five folds of whole clusters, more letters than the alphabet has, a short list."""
    (template,) = surveyed(make_data(scenes=1, months=1)).images
    images, scenes = [], []
    for number in range(60):
        pair, east = divmod(number, 2)
        image = Image(f"s{number:02}", "x", "2020-01", Path("x.tif"))
        images.append(replace(template, image=image, lon=10.0 * pair + 0.1 * east - 150, lat=2.0 * pair - 30))
        scenes.append(Scene(image.scene, Path("x"), (image,)))
    found = Surveyed(Catalog(tmp_path, tuple(scenes), ()), images, 255)
    assert [len(names) for names in found.clusters] == [2] * 30
    assert sorted(map(len, found.folds)) == [12] * 5
    draw_map(found, tmp_path / "map.png")
    assert Picture.open(tmp_path / "map.png").height < 1200


def test_command(sample: tuple[Path, SampleReport], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its last line says what went in and what came out."""
    assert main(["explore", str(sample[0]), "--out", str(tmp_path / "out"), "--tile-size", "64", "--seed", "3"]) == 0
    said = capsys.readouterr().out
    assert (
        "numbers.json and 7 pictures of 6 images of 3 scenes to train on (0 unlabelled) and 2 of 1 to predict" in said
    )
    assert said.count("\n") == 1


def test_bad_input(make_data: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One sentence each, that names the file or the number, and no picture of half a data set."""
    data, out = make_data(scenes=1, months=1), tmp_path / "out"
    with pytest.raises(ConfigError, match="tile_size = 5"):
        explore(data, out, tile_size=5)
    with pytest.raises(ConfigError, match="workers = 0"):
        explore(data, out, workers=0)
    with pytest.raises(DataMissing, match="does not exist"):
        explore(tmp_path / "none", out)
    with pytest.raises(ResultsConflict, match="lies in the data set"):
        explore(data, data / "train" / "out")
    (tmp_path / "file").write_text("")
    with pytest.raises(FolderUnwritable, match="it is no folder"):
        explore(data, tmp_path / "file")
    image = next(data.glob("train/*/images_masked/*"))
    image.write_bytes(image.read_bytes()[:100])
    with pytest.raises(ImageUnreadable, match="cannot be read as a GeoTIFF"):
        explore(data, out)
    assert main(["explore", str(data), "--out", str(out)]) == 1
    assert str(image) in capsys.readouterr().err
    assert list(out.iterdir()) == []


def test_the_real_fragments(mini: Path, tmp_path: Path) -> None:
    """Three images with 2,775, 365 and 396 footprints, one to predict, 0.39 % of one image unusable."""
    found = explore(mini, tmp_path / "out").numbers
    assert found["scenes"] == {"training": 2, "final": 1}
    assert found["images"]["labelled"] == 3 and found["images"]["final"] == 1
    scenes = {scene["scene"]: scene["images"] for scene in found["per_scene"]}
    assert [image["footprints"] for image in scenes["L15-0683E-1006N_2732_4164_13"]] == [365, 396]
    (image,) = scenes["L15-1615E-1205N_6460_3370_13"]
    assert image["footprints"] == 2775 and image["unusable_share"] == pytest.approx(0.0039, abs=5e-5)
    assert scenes["L15-0331E-1257N_1327_3160_13"][0]["labelled"] is False
    assert found["tiles"]["count"] == 4 * 4 + 2 * 2 * 2
    assert len(found["folds"]) == 2
