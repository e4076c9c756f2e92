import dataclasses
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from rasterio.features import rasterize

from sn7.errors import ConfigError, ResultsConflict
from sn7.sample import SampleReport, make_sample
from sn7.sample.place import Place, place_of

PIXEL = 4.777314267823516
WORLD = 20037508.342789244


@dataclasses.dataclass(frozen=True)
class Sample:
    """The sample that most tests look at."""

    root: Path
    report: SampleReport

    def images(self, folder: str = "images_masked", split: str = "train") -> list[Path]:
        """Return the GeoTIFFs of all scenes."""
        return sorted((self.root / split).glob(f"*/{folder}/*.tif"))


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    """Three scenes and one test scene, three months, 128 px."""
    root = tmp_path_factory.mktemp("sample") / "data"
    return Sample(root, make_sample(root, scenes=3, months=3, size=128, seed=3))


def labels(image: Path, folder: str) -> Path:
    """Return an image's footprints in one of the label folders."""
    return image.parents[1] / folder / f"{image.stem}_Buildings.geojson"


def read(path: Path) -> Any:
    """Return a parsed GeoJSON."""
    return json.loads(path.read_text())


def digests(root: Path) -> dict[str, str]:
    """Return a hash of every file below a folder, by relative path."""
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_layout(sample: Sample) -> None:
    """Every scene has the folders and file names of the real data set, and test scenes show no labels."""
    scenes = sorted(path.name for path in (sample.root / "train").iterdir())
    assert len(scenes) == 3
    assert all(re.fullmatch(r"L15-\d{4}E-\d{4}N_\d+_\d+_13", scene) for scene in scenes)
    for scene in scenes:
        names = [f"global_monthly_2018_{month:02d}_mosaic_{scene}" for month in (1, 2, 3)]
        folder = sample.root / "train" / scene
        for images in ("images", "images_masked"):
            assert sorted(path.name for path in (folder / images).iterdir()) == [f"{n}.tif" for n in names]
        for kind in ("labels_match", "labels_match_pix"):
            found = sorted(path.name for path in (folder / kind).iterdir())
            assert found == [f"{n}_Buildings.geojson" for n in names]
        found = sorted(path.name for path in (folder / "labels").iterdir())
        assert found == [f"{n}_{kind}.geojson" for n in names for kind in ("Buildings", "UDM")]
    (test,) = (sample.root / "test_public").iterdir()
    assert [path.name for path in test.iterdir()] == ["images_masked"]
    (truth,) = (sample.root / "test_truth").iterdir()
    assert truth.name == test.name
    assert len(list((truth / "labels_match").iterdir())) == len(list((test / "images_masked").iterdir())) == 3


def test_report_counts_what_was_written(sample: Sample) -> None:
    """The report's numbers can be counted in the files."""
    images = sample.images() + sample.images(split="test_public")
    assert (sample.report.scenes, sample.report.test_scenes, sample.report.images) == (3, 1, len(images))
    files = [*sample.root.glob("train/*/labels_match/*"), *sample.root.glob("test_truth/*/labels_match/*")]
    features = {file: read(file)["features"] for file in files}
    assert sample.report.footprints == sum(len(each) for each in features.values())
    ids = {(file.parts[-3], feature["properties"]["Id"]) for file in files for feature in features[file]}
    assert sample.report.buildings == len(ids)
    with_udm = [path for path in images if (rasterio.open(path).read(4) == 0).any()]
    assert sample.report.images_with_udm == len(with_udm)


def test_georeference_is_the_tile_of_the_name(sample: Sample) -> None:
    """An image's grid starts at the corner of the XYZ tile in its name, in pixels of 4.777 m."""
    for path in sample.images() + sample.images("UDM_masks") + sample.images(split="test_public"):
        column, row = map(int, re.search(r"_(\d+)_(\d+)_13", path.name).groups())  # type: ignore[union-attr]
        with rasterio.open(path) as image:
            assert image.crs.to_epsg() == 3857
            assert (image.height, image.width) == (128, 128)
            wanted = (PIXEL, 0, column * 1024 * PIXEL - WORLD, 0, -PIXEL, WORLD - row * 1024 * PIXEL)
            assert image.transform[:6] == pytest.approx(wanted, rel=1e-12)


def test_scene_name_of_a_real_place() -> None:
    """The naming rule gives the name that SpaceNet gave to the same tile."""
    place = dataclasses.replace(place_of("train", 0), x=1327, y=3160)
    assert place.scene == "L15-0331E-1257N_1327_3160_13"
    assert place.transform.c == pytest.approx(-13545864.404585794, abs=0.01)
    assert place.transform.f == pytest.approx(4578883.742395196, abs=0.01)


def test_geography() -> None:
    """The first two scenes are neighbours, the others far apart; past the list no place comes twice."""
    places = [place_of("train", n) for n in range(12)] + [place_of("test", n) for n in range(4)]

    def kilometres(a: Place, b: Place) -> float:
        latitude = np.arctan(np.sinh(np.pi * (1 - 2 * (a.y + 0.5) / 8192)))
        return float(np.hypot(a.x - b.x, a.y - b.y) * 4.892 * np.cos(latitude))

    assert 4 < kilometres(places[0], places[1]) < 8
    apart = [kilometres(a, b) for n, a in enumerate(places) for b in places[max(n + 1, 2) :]]
    assert min(apart) > 500
    many = [place_of("train", n).scene for n in range(60)] + [place_of("test", n).scene for n in range(20)]
    assert len(set(many)) == 80


def test_images_look_as_the_real_ones(sample: Sample) -> None:
    """Images are uint8 RGBA; brightness and contrast are near those of SpaceNet 7."""
    pixels = []
    for path in sample.images():
        with rasterio.open(path) as image:
            assert image.dtypes == ("uint8",) * 4
            assert [colour.name for colour in image.colorinterp] == ["red", "green", "blue", "alpha"]
            bands = image.read()
            pixels.append(bands[:3, bands[3] > 0])
    values = np.concatenate(pixels, 1) / 255
    assert values.mean(1) == pytest.approx([0.469, 0.412, 0.303], abs=0.12)  # three scenes vary more than eight
    assert values.std(1) == pytest.approx([0.233, 0.187, 0.173], abs=0.09)


def test_unusable_pixels(sample: Sample) -> None:
    """Alpha 0, zeroed colours, UDM mask and UDM polygons mean the same pixels; raw images keep theirs."""
    masks = {path.stem.removesuffix("_UDM"): path for path in sample.images("UDM_masks")}
    assert masks
    for path in sample.images():
        bands = rasterio.open(path).read()
        raw = rasterio.open(path.parents[1] / "images" / path.name).read()
        unusable = bands[3] == 0
        assert set(np.unique(bands[3])) <= {0, 255}
        assert np.array_equal(unusable, (bands[:3] == 0).any(0))
        assert np.array_equal(unusable, (bands[:3] == 0).all(0))
        assert np.array_equal(raw[:3, ~unusable], bands[:3, ~unusable])
        assert (raw > 0).all()
        udm = rasterio.open(masks[path.stem]).read(1) if path.stem in masks else np.zeros((128, 128), np.uint8)
        assert set(np.unique(udm)) <= {0, 255}
        assert np.array_equal(udm == 255, unusable)
        polygons = geopandas.read_file(path.parents[1] / "labels" / f"{path.stem}_UDM.geojson")
        with rasterio.open(path) as image:
            drawn = mask_of(polygons.to_crs(3857).geometry, image.transform)
        assert np.array_equal(drawn, unusable)
        assert not unusable.any() or 0.02 < unusable.mean() < 0.4


def mask_of(geometries: Any, transform: Any) -> np.ndarray:
    """Return the building or UDM mask, bool (128, 128), of polygons in the CRS of `transform`."""
    if not len(geometries):
        return np.zeros((128, 128), bool)
    return rasterize(geometries, (128, 128), transform=transform, dtype="uint8") > 0


def test_three_label_folders_agree(sample: Sample) -> None:
    """Masks from metres, from pixels and from degrees are equal, pixel for pixel."""
    for path in sample.images():
        transform = rasterio.open(path).transform
        metres = geopandas.read_file(labels(path, "labels_match"))
        degrees = geopandas.read_file(labels(path, "labels"))
        pixels = read(labels(path, "labels_match_pix"))
        assert metres.crs.to_epsg() == 3857
        assert degrees.crs.to_authority() in {("OGC", "CRS84"), ("EPSG", "4326")}
        assert "crs" not in pixels
        from_pixels = mask_of([feature["geometry"] for feature in pixels["features"]], rasterio.Affine.identity())
        assert from_pixels.any()
        assert np.array_equal(from_pixels, mask_of(metres.geometry, transform))
        assert np.array_equal(from_pixels, mask_of(degrees.to_crs(3857).geometry, transform))
        ids = [feature["properties"]["Id"] for feature in pixels["features"]]
        assert ids == metres["Id"].tolist() == degrees["Id"].tolist()
        assert metres["area"].to_numpy() == pytest.approx(metres.area.to_numpy(), rel=1e-6)


def test_footprints_are_sound(sample: Sample) -> None:
    """Footprints are valid polygons that reach 2 px at most over the border and share walls, but no area."""
    touching = 0
    for path in sample.images():
        shapes = np.array(
            [shapely.geometry.shape(f["geometry"]) for f in read(labels(path, "labels_match_pix"))["features"]]
        )
        assert shapely.is_valid(shapes).all()
        assert (shapely.get_type_id(shapes) == shapely.GeometryType.POLYGON).all()
        left, top, right, bottom = shapely.total_bounds(shapes)
        assert left >= -2 and top >= -2 and right <= 130 and bottom <= 130
        assert (shapely.area(shapes) >= 2).all()
        first, second = shapely.STRtree(shapes).query(shapes, predicate="intersects")
        pairs = first < second
        common = shapely.intersection(shapes[first[pairs]], shapes[second[pairs]])
        assert (shapely.area(common) < 0.01).all()
        touching += int((shapely.length(common) > 1).sum())
    assert touching > 5


def test_buildings_stay_and_appear(sample: Sample) -> None:
    """An Id has one outline for good and vanishes under clouds only; some Ids come after the first month."""
    new = 0
    for scene in sorted((sample.root / "train").iterdir()):
        earlier: dict[int, Any] = {}
        for month, path in enumerate(sorted((scene / "images_masked").iterdir())):
            features = read(labels(path, "labels_match_pix"))["features"]
            now = {feature["properties"]["Id"]: feature["geometry"]["coordinates"] for feature in features}
            assert len(now) == len(features)
            unusable = rasterio.open(path).read(4) == 0
            for gone in earlier.keys() - now.keys():
                x, y = np.clip(shapely.Polygon(earlier[gone][0]).centroid.coords[0], 0, 127)
                assert unusable[int(y), int(x)]
            assert all(now[number] == earlier[number] for number in now.keys() & earlier.keys())
            new += len(now.keys() - earlier.keys()) if month else 0
            earlier |= now
    assert new > 0


def test_images_show_the_buildings(sample: Sample) -> None:
    """Land under footprints is brighter on the average, but a threshold does not find the buildings."""
    brightness, building = [], []
    for path in sample.images():
        with rasterio.open(path) as image:
            bands, transform = image.read(), image.transform
        valid = bands[3] > 0
        brightness.append(bands[:3].mean(0)[valid])
        building.append(mask_of(geopandas.read_file(labels(path, "labels_match")).geometry, transform)[valid])
    light, truth = np.concatenate(brightness), np.concatenate(building)
    assert light[truth].mean() > light[~truth].mean() + 10
    dice = [2 * (truth & (light > t)).sum() / (truth.sum() + (light > t).sum()) for t in range(0, 255, 5)]
    assert 2 * truth.mean() / (1 + truth.mean()) < 0.35  # everything is a building
    assert max(dice) < 0.6


def test_building_share_varies(sample: Sample) -> None:
    """A few per cent of the pixels are buildings, and not equally many everywhere."""
    shares = []
    for path in sample.images():
        mask = mask_of(geopandas.read_file(labels(path, "labels_match")).geometry, rasterio.open(path).transform)
        shares.append(mask.mean())
    assert 0.02 < sample.report.building_share < 0.2
    assert max(shares) > 1.5 * min(shares) > 0


def test_same_arguments_same_bytes(sample: Sample, tmp_path: Path) -> None:
    """Two runs are identical; more scenes and months only add files; another seed changes the pixels."""
    make_sample(tmp_path / "again", scenes=1, months=2, size=128, seed=3)
    make_sample(tmp_path / "other", scenes=1, months=2, size=128, seed=4)
    large, small, other = (digests(root) for root in (sample.root, tmp_path / "again", tmp_path / "other"))
    assert small.items() < large.items()
    images = [name for name in small if name.endswith(".tif") and "UDM" not in name]
    assert images and all(small[name] != other[name] for name in images)


def test_one_short_scene_at_full_size(tmp_path: Path) -> None:
    """At 1024 px the first scene has 1023 rows, as some real ones have, and its labels stay on that grid."""
    assert (place_of("train", 0).grid(1024).height, place_of("train", 0).grid(1024).width) == (1023, 1024)
    others = [place_of("train", 1), place_of("test", 0)]
    assert all((p.grid(1024).height, p.grid(1024).width) == (1024, 1024) for p in others)
    assert place_of("train", 0).grid(320).height == 320


@pytest.mark.slow
def test_full_size(tmp_path: Path) -> None:
    """A full-size sample is written with the one short scene, in the real number of buildings."""
    report = make_sample(tmp_path / "data", scenes=1, months=1, size=1024)
    (path,) = (tmp_path / "data" / "train").glob("*/images_masked/*.tif")
    assert rasterio.open(path).shape == (1023, 1024)
    assert 2000 < report.footprints < 30_000


def test_refuses_a_folder_with_something_in_it(tmp_path: Path) -> None:
    """Nothing is overwritten, and nothing is left behind by the refusal; an empty folder will do."""
    (tmp_path / "out").mkdir()
    kept = tmp_path / "out" / "mine.txt"
    kept.write_text("mine")
    with pytest.raises(ResultsConflict, match=r"out.*empty"):
        make_sample(tmp_path / "out", scenes=1, months=1, size=64)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [kept]
    kept.unlink()
    make_sample(tmp_path / "out", scenes=1, months=1, size=64)
    assert (tmp_path / "out" / "train").is_dir()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("wrong", [{"scenes": 0}, {"months": 0}, {"size": 63}, {"size": 1025}, {"seed": -1}], ids=str)
def test_arguments_out_of_range(tmp_path: Path, wrong: dict[str, int]) -> None:
    """The error names the argument, the value found and the values wanted; nothing is written."""
    (name, value), *_ = wrong.items()
    with pytest.raises(ConfigError, match=rf"{name} = {value} .*wanted"):
        make_sample(tmp_path / "out", **wrong)
    assert not list(tmp_path.iterdir())
