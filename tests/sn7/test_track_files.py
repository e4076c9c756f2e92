import json
from collections.abc import Callable
from pathlib import Path

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pyogrio
import pytest
import rasterio
import shapely
from affine import Affine

from sn7.challenge import read_csv
from sn7.cli import main
from sn7.errors import MonthsInvalid
from sn7.tracking.read import find_scenes, read_months

SCENE = "L15-0001E-0001N_100_3000_13"
Grid = Callable[..., Affine]


def name(month: int, scene: str = SCENE) -> str:
    """Return an image's name without its ending."""
    return f"global_monthly_2020_{month:02}_mosaic_{scene}"


def write_probs(path: Path, probs: npt.NDArray[np.float32], transform: Affine, crs: str = "EPSG:3857") -> Path:
    """Write them as `sn7 predict` does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = probs.shape
    profile = {"driver": "GTiff", "count": 1, "height": height, "width": width, "dtype": probs.dtype}
    nodata = None if probs.dtype == np.uint8 else np.nan
    with rasterio.open(path, "w", **profile, crs=crs, transform=transform, nodata=nodata) as file:
        file.write(probs, 1)
        file.update_tags(THRESHOLD=0.45)
    return path


@pytest.fixture
def scene(tmp_path: Path, grid: Grid) -> Path:
    """Return a folder of five months: a building always, invalid in the third; a new one from the second on; a ghost.

    The first covers columns and rows 2 to 6, the new one columns 10 to 14, the ghost rows 10 to 14 of the last month.
    """
    probs = np.full((5, 16, 20), 0.1, np.float32)
    probs[:, 2:6, 2:6] = 0.9
    probs[2, :, :8] = np.nan
    probs[1:, 2:6, 10:14] = 0.8
    probs[4, 10:14, 10:14] = 0.9
    for month in range(5):
        write_probs(tmp_path / "predictions" / SCENE / f"{name(month + 1)}.tif", probs[month], grid(100, 3000))
    return tmp_path / "predictions" / SCENE


def test_what_is_written(scene: Path, tmp_path: Path, grid: Grid, capsys: pytest.CaptureFixture[str]) -> None:
    """GeoJSON a month with the same Id, a GeoPackage in the CRS of the probs, the rules, the challenge's CSV."""
    out = tmp_path / "out"
    assert main(["track", str(scene), str(out)]) == 0
    said = capsys.readouterr().out
    assert f"{SCENE}: 5 months (8.0% invalid), 2 buildings, 1 of them new, 9 footprints, 1 of them bridged" in said
    assert "threshold 0.45" in said and "5 months of 1 scene tracked, 2 buildings in 9 footprints" in said
    third = gpd.read_file(out / SCENE / f"{name(3)}.geojson")
    assert third.crs == 4326 and third["Id"].tolist() == [1, 2]
    assert third["seen"].astype(bool).tolist() == [False, True] and np.isnan(third["mean_prob"][0])
    assert third["first_month"].tolist() == ["2020-01", "2020-02"]
    assert gpd.read_file(out / SCENE / f"{name(1)}.geojson")["Id"].tolist() == [1]
    buildings = gpd.read_file(out / SCENE / f"{SCENE}.gpkg", layer="buildings")
    assert buildings.crs == 3857
    assert buildings["first_month"].astype(str).tolist() == ["2020-01-01", "2020-02-01"]
    assert buildings["last_month"].astype(str).tolist() == ["2020-05-01", "2020-05-01"]
    assert buildings[["new", "gone", "months_seen", "months_bridged"]].astype(int).to_numpy().tolist() == [
        [0, 0, 4, 1],
        [1, 0, 4, 0],
    ]
    transform = grid(100, 3000)
    x, y = transform @ (10, 2)
    assert buildings.geometry[1].bounds == pytest.approx((x, y - 4 * transform.a, x + 4 * transform.a, y))
    months = pyogrio.read_dataframe(out / SCENE / f"{SCENE}.gpkg", layer="months")
    assert len(months) == 10 and months["standing"].astype(bool).tolist() == [True] * 5 + [False] + [True] * 4
    about = json.loads((out / SCENE / "track.json").read_text())
    assert [month["valid_share"] for month in about["months"]] == [1, 1, 0.6, 1, 1]
    assert about["rules"]["threshold"] == pytest.approx(0.45)
    tracks = read_csv(out / "tracks.csv")[SCENE]
    assert tracks.months == ("2020-01", "2020-02", "2020-03", "2020-04", "2020-05")
    assert tracks.ids.tolist() == [1, 1, 2, 1, 2, 1, 2, 1, 2]
    assert tracks.geometry[0].bounds == pytest.approx((2, 2, 6, 6), abs=0.1)
    assert sorted(path.name for path in out.iterdir()) == [SCENE, "tracks.csv"]


def test_predictions_are_not_replaced(scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nor any other folder; an empty one is, and tracks are, where they are made again."""
    out, before = tmp_path / "out", sorted(scene.iterdir())
    for given in (scene, scene.parent):
        assert main(["track", str(given), str(scene.parent)]) == 1
        assert f"{scene} exists and holds no tracks; wanted a new folder" in capsys.readouterr().err
    assert sorted(scene.iterdir()) == before
    (out / SCENE).mkdir(parents=True)
    assert [main(["track", str(scene), str(out)]) for _ in range(2)] == [0, 0]


def test_rules_are_set(scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command line goes before a file, and that before the model's threshold; a second run replaces the first."""
    out, file = tmp_path / "out", tmp_path / "rules.toml"
    file.write_text('[track]\nmethod = "match"\nmin_months = 4\n')
    for rules in (["--set", "threshold=0.85"], ["--config", str(file), "--set", "min_months=1"]):
        assert main(["track", str(scene), str(out), *rules]) == 0
    first, second = (line for line in capsys.readouterr().out.splitlines() if line.startswith(SCENE))
    assert "1 building," in first and "threshold 0.85" in first
    assert "3 buildings" in second and "threshold 0.45" in second
    assert len(gpd.read_file(out / SCENE / f"{SCENE}.gpkg", layer="buildings")) == 3


def test_polygons_alone(scene: Path, tmp_path: Path) -> None:
    """Tracks of the GeoJSONs that tracking wrote are the same buildings, at the place that the scene's name tells."""
    assert main(["track", str(scene), str(tmp_path / "out")]) == 0
    assert main(["track", str(tmp_path / "out"), str(tmp_path / "again")]) == 0
    once, twice = (
        gpd.read_file(tmp_path / place / SCENE / f"{SCENE}.gpkg", layer="buildings") for place in ("out", "again")
    )
    assert twice["first_month"].tolist() == once["first_month"].tolist()
    assert shapely.hausdorff_distance(twice.geometry.array, once.geometry.array).max() < 0.5  # a tenth of a pixel


def test_finer_probs(scene: Path, tmp_path: Path, grid: Grid, capsys: pytest.CaptureFixture[str]) -> None:
    """Probs at half the pixel size: the CSV is in pixels of the image all the same. A pooled map is no month."""
    transform = grid(100, 3000) @ Affine.scale(0.5)
    for path in scene.iterdir():
        with rasterio.open(path) as source:
            probs = source.read(1).repeat(2, axis=0).repeat(2, axis=1)
        write_probs(path, probs, transform)
    write_probs(scene / f"{SCENE}.tif", probs, transform)
    assert main(["track", str(scene), str(tmp_path / "out")]) == 0
    assert f"left out: {scene / SCENE}.tif" in capsys.readouterr().out
    tracks = read_csv(tmp_path / "out" / "tracks.csv")[SCENE]
    assert tracks.geometry[0].bounds == pytest.approx((2, 2, 6, 6), abs=0.1)
    buildings = gpd.read_file(tmp_path / "out" / SCENE / f"{SCENE}.gpkg", layer="buildings")
    x, y = transform @ (4, 4)
    side = 8 * transform.a
    assert buildings.geometry[0].bounds == pytest.approx((x, y - side, x + side, y), abs=0.1 * side)


def test_separation_bands(tmp_path: Path, grid: Grid) -> None:
    """They are read with the probs, of which the mean over the valid months is taken; a month without them is told."""
    bands = np.stack([np.full((8, 8), value, np.float32) for value in (0.9, 0.2, 0.4)])
    for month in (1, 2):
        path = tmp_path / f"{name(month)}.tif"
        bands[:, 0, :month] = np.nan
        profile = {"driver": "GTiff", "count": 3, "height": 8, "width": 8, "dtype": "float32", "crs": "EPSG:3857"}
        with rasterio.open(path, "w", **profile, transform=grid(100, 3000)) as file:
            file.write(bands)
            file.descriptions = ("probs", "boundary", "contact")
    found = read_months(*find_scenes(tmp_path)).months
    assert found.separation is not None
    assert np.allclose(found.separation[0], 0.2) and np.allclose(found.separation[1], 0.4)
    assert len(found.pixels) == 63  # one is never valid
    write_probs(path, bands[0], grid(100, 3000))
    with pytest.raises(MonthsInvalid, match=r"has the bands probs, but .* probs, boundary and contact"):
        read_months(*find_scenes(tmp_path))


def test_several_scenes(scene: Path, tmp_path: Path, grid: Grid) -> None:
    """The parent folder: one folder each, all in one CSV."""
    other = "L15-0002E-0001N_200_3000_13"
    for month in (1, 2):
        write_probs(
            scene.parent / other / f"{name(month, other)}.tif", np.full((8, 8), 0.9, np.float32), grid(200, 3000)
        )
    assert main(["track", str(scene.parent), str(tmp_path / "out")]) == 0
    assert {scene: len(set(tracks.ids)) for scene, tracks in read_csv(tmp_path / "out" / "tracks.csv").items()} == {
        SCENE: 2,
        other: 1,
    }


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("name", "has a name that does not tell its scene and month; wanted global_monthly_YYYY_MM_mosaic_<scene>.tif"),
        ("month", "has one month, 2020-01; wanted two months at least"),
        ("twice", "are of one month, 2020-01; wanted each month once"),
        ("scenes", "are of two scenes; wanted the months of one scene in a folder"),
        ("empty", "holds no predictions; wanted probs"),
        ("missing", "does not exist; give the folder of a scene"),
        ("grid", "has the geotransform"),
        ("crs", "has the CRS EPSG:32631, but"),
        ("size", "has the size 8 × 8 px (height × width), but"),
        ("bytes", "has a first band of uint8; wanted probs, float32"),
        ("percent", "has values from 0.1 to 90; wanted probs, 0 to 1"),
        ("torn", "cannot be read as a GeoTIFF"),
        ("rule", "min_months = 0 cannot be used"),
        ("file", "rules.toml: bridge is not a field of tracking; did you mean bridge_months?"),
    ],
)
def test_bad_input(
    damage: str, said: str, scene: Path, tmp_path: Path, grid: Grid, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit 1, one sentence on stderr, and nothing written."""
    transform, whole = grid(100, 3000), np.full((16, 20), 0.1, np.float32)
    second = scene / f"{name(2)}.tif"
    rules: list[str] = []
    if damage == "name":
        (scene / "may.tif").write_bytes(second.read_bytes())
    elif damage == "month":
        for month in range(2, 6):
            (scene / f"{name(month)}.tif").unlink()
    elif damage == "twice":
        for path in scene.iterdir():
            path.unlink()
        for ending in ("", "_Buildings"):
            (scene / f"{name(1)}{ending}.geojson").write_text('{"type": "FeatureCollection", "features": []}')
    elif damage == "scenes":
        write_probs(scene / f"{name(6, SCENE[:-2] + '14')}.tif", whole, transform)
    elif damage in ("empty", "missing"):
        for path in scene.iterdir():
            path.unlink()
        if damage == "missing":
            scene.rmdir()
    elif damage == "grid":
        write_probs(second, whole, grid(101, 3000))
    elif damage == "crs":
        write_probs(second, whole, transform, "EPSG:32631")
    elif damage == "size":
        write_probs(second, whole[:8, :8], transform)
    elif damage == "bytes":
        write_probs(second, whole.astype(np.uint8), transform)
    elif damage == "percent":
        write_probs(second, np.where(np.arange(20) > 9, 90 * whole * 10, whole).astype(np.float32), transform)
    elif damage == "torn":
        second.write_bytes(second.read_bytes()[:100])
    elif damage == "rule":
        rules = ["--set", "min_months=0"]
    else:
        (tmp_path / "rules.toml").write_text("bridge = 2")
        rules = ["--config", str(tmp_path / "rules.toml")]
    assert main(["track", str(scene), str(tmp_path / "out"), *rules]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1 and said in err
    assert not (tmp_path / "out").exists() or list((tmp_path / "out").iterdir()) == []


def test_polygons_of_a_scene_without_a_place(tmp_path: Path) -> None:
    """Nothing tells the grid of their pixels."""
    for month in (1, 2):
        path = tmp_path / f"{name(month, 'somewhere')}.geojson"
        path.write_text('{"type": "FeatureCollection", "features": []}')
    with pytest.raises(MonthsInvalid, match="does not end with its tile"):
        read_months(*find_scenes(tmp_path))


def test_months_that_are_pooled_already(scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Tracking pools by itself, so it says how to predict them."""
    with rasterio.open(sorted(scene.glob("*.tif"))[1], "r+") as file:
        file.update_tags(POOL="mean", POOL_MONTHS="3")
    assert main(["track", str(scene), str(tmp_path / "out")]) == 0
    assert f"warning: the probs of {SCENE} are pooled over months already" in capsys.readouterr().out
