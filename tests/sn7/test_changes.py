import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import rasterio
import shapely
from affine import Affine
from PIL import Image

from sn7.changes.counts import growth, new_buildings
from sn7.changes.place import PLAIN, draw_growing_place, growing_window
from sn7.changes.read import SceneTracks
from sn7.cli import main

SCENE = "L15-0001E-0001N_100_3000_13"


@pytest.fixture
def tracks() -> SceneTracks:
    """Return three months of three squares of 10 × 10 px of 1 m: Id 1 always, 2 and 3 new in the second and third.

    Mean probs are 0.9, 0.8 and 0.5; of the second, it is as likely as not that it stands in the first month already.
    """
    months = pd.to_datetime(["2020-01-01", "2020-02-01", "2020-03-01"])
    buildings = gpd.GeoDataFrame(
        {
            "Id": [1, 2, 3],
            "first_month": months,
            "first_low": months,
            "first_high": months,
            "new": [False, True, True],
            "mean_prob": [0.9, 0.8, 0.5],
            "confidence": [0.9, 0.4, 0.5],
            "area_m2": [100.0, 100.0, 200.0],
        },
        geometry=[shapely.box(10, -20, 20, -10), shapely.box(60, -90, 70, -80), shapely.box(80, -90, 90, -80)],
        crs=3857,
    )
    standing = np.array([[True, True, True], [False, True, True], [False, False, True]])
    presence = np.array([[1.0, 1.0, 1.0], [0.5, 1.0, 1.0], [0.0, 0.0, 1.0]])
    shape, transform = (100, 100), Affine(1, 0, 0, 0, -1, 0)
    dates = ("2020-01", "2020-02", "2020-03")
    return SceneTracks(SCENE, dates, np.array([1.0, 0.5, 1.0]), buildings, standing, presence, shape, transform)


def test_growth_by_month(tracks: SceneTracks) -> None:
    """Counts and areas, and ± 1.96 √Σ p (1 - p) around them, of areas with their squares."""
    table = growth(tracks)
    assert table["buildings"].tolist() == [1, 2, 3]
    assert table["area_m2"].tolist() == [100, 200, 400]
    assert table["new_buildings"].tolist() == [0, 1, 1] and table["new_area_m2"].tolist() == [0, 100, 200]
    first = 1.96 * (0.9 * 0.1 + 0.4 * 0.6) ** 0.5  # the second, 0.8 × 0.5, is in doubt in the first month, too
    assert table["buildings_high"][0] == pytest.approx(1 + first, abs=0.05)
    assert table["buildings_low"][0] == 0
    last = 1.96 * (100**2 * (0.9 * 0.1 + 0.8 * 0.2) + 200**2 * 0.5 * 0.5) ** 0.5
    assert table["area_high"][2] - 400 == pytest.approx(last, abs=0.06)
    assert 400 - table["area_low"][2] == pytest.approx(last, abs=0.06)


def test_new_buildings_surest_first(tracks: SceneTracks) -> None:
    """Those that were there from the start are not among them."""
    found = new_buildings(tracks)
    assert found["Id"].tolist() == [3, 2] and found["confidence"].tolist() == [0.5, 0.4]
    assert found["scene"].tolist() == [SCENE, SCENE] and found.crs == 3857


def test_the_growing_place(tracks: SceneTracks) -> None:
    """A window that holds both new buildings, inside of the image."""
    left, top, side = growing_window(tracks)
    assert side == 96 and 0 <= left <= 4 and 0 <= top <= 4
    tracks.buildings.loc[2, "geometry"] = shapely.box(0, -10, 4, -6)
    assert growing_window(tracks)[2] == 96


def test_a_building_of_two_parts(tracks: SceneTracks, tmp_path: Path) -> None:
    """Both parts are drawn, in the colour of what is new: orange where there was none with one part alone."""
    orange = []
    for number, parts in enumerate(([(60, -90)], [(60, -90), (60, -70)])):
        boxes = [shapely.box(x, y, x + 10, y + 10) for x, y in parts]
        tracks.buildings.loc[1, "geometry"] = shapely.MultiPolygon(boxes)
        draw_growing_place(tracks, {}, tmp_path / f"{number}.png")
        pixels = np.asarray(Image.open(tmp_path / f"{number}.png").convert("RGB")).astype(int)
        orange.append(int(((pixels[..., 0] - pixels[..., 2]) > 100).sum()))
    assert orange[1] > 1.2 * orange[0]


@pytest.fixture
def tracked(tmp_path: Path, grid: Callable[..., Affine]) -> Path:
    """Return what `sn7 track` makes of four months, in the last two of which there is a second building."""
    probs = np.full((4, 40, 40), 0.05, np.float32)
    probs[:, 4:10, 4:10] = 0.9
    probs[2:, 20:26, 20:26] = 0.8
    profile = {"driver": "GTiff", "count": 1, "height": 40, "width": 40, "dtype": "float32", "crs": "EPSG:3857"}
    folder = tmp_path / "predictions"
    folder.mkdir()
    for month in range(4):
        path = folder / f"global_monthly_2020_{month + 1:02}_mosaic_{SCENE}.tif"
        with rasterio.open(path, "w", **profile, transform=grid(100, 3000)) as file:
            file.write(probs[month], 1)
    assert main(["track", str(folder), str(tmp_path / "tracks")]) == 0
    return tmp_path / "tracks"


def test_what_is_written(
    tracked: Path,
    tmp_path: Path,
    grid: Callable[..., Affine],
    write_image: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A layer of the new building, a table of four months, two pictures; with the images below or without."""
    data = tmp_path / "data"
    for month in range(1, 5):
        name = f"global_monthly_2020_{month:02}_mosaic_{SCENE}.tif"
        bands = np.full((4, 40, 40), 200 if month == 1 else 90, np.uint8)
        write_image(data / SCENE / "images" / name, bands, grid(100, 3000))
    capsys.readouterr()
    assert main(["changes", str(tracked), str(tmp_path / "out"), "--images", str(data)]) == 0
    said = capsys.readouterr().out
    assert f"{SCENE}: 1 building (0.0 ha) in 2020-01, 2 buildings (0.1 ha) in 2020-04" in said
    assert "1 new building of 1 scene in 4 months" in said and "plain ground" not in said
    layer = gpd.read_file(tmp_path / "out" / "changes.gpkg", layer="new_buildings")
    assert layer["Id"].tolist() == [2] and layer["first_month"].astype(str).tolist() == ["2020-03-01"]
    assert 0.7 < layer["confidence"][0] <= 0.8 and layer.crs == 3857
    assert layer["first_low"][0] <= layer["first_month"][0] <= layer["first_high"][0]
    table = pd.read_csv(tmp_path / "out" / "growth.csv")
    assert table["buildings"].tolist() == [1, 1, 2, 2]
    for name in ("growth.png", "place.png"):
        with Image.open(tmp_path / "out" / SCENE / name) as picture:
            assert picture.width > 600
    with_images = (tmp_path / "out" / SCENE / "place.png").read_bytes()
    assert main(["changes", str(tracked / SCENE), str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / SCENE / "place.png").read_bytes() != with_images
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [SCENE, "changes.gpkg", "growth.csv"]


@pytest.mark.parametrize("times", [1, 3])
def test_the_image_below_a_finer_grid(
    tracks: SceneTracks,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    write_image: Callable[..., Path],
    times: int,
) -> None:
    """The ground is that of the window, whatever the sides of the images' pixels; plain where the image ends."""
    transform, first = Affine(2, 0, 1000, 0, -2, 2000), [(10, 10), (200, 230), (220, 230)]
    boxes = [shapely.box(1000 + 2 * x, 1980 - 2 * y, 1020 + 2 * x, 2000 - 2 * y) for x, y in first]
    buildings = tracks.buildings.set_geometry(gpd.GeoSeries(boxes, crs=3857))
    tracks = replace(tracks, shape=(240, 240), transform=transform, buildings=buildings)
    ends, (left, top, side) = 234, growing_window(tracks)
    assert left > 96 and top + side > ends
    row, column = np.indices((ends, 240), np.uint8) // times  # what the image shows there
    whole = np.full((3, 240, 240), PLAIN, np.uint8)
    whole[:, :ends] = column, row, 0 * row
    image = write_image(tmp_path / "image.tif", whole[:, :ends:times, ::times], transform @ Affine.scale(times))
    shown: list[npt.NDArray[np.uint8]] = []
    monkeypatch.setattr("sn7.changes.place.show", lambda axes, ground, title: shown.append(ground))
    draw_growing_place(tracks, {"2020-01": image}, tmp_path / "place.png")
    assert len(shown) == 3 and np.array_equal(shown[0], whole[:, top : top + side, left : left + side])


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("missing", "does not exist; wanted a folder that `sn7 track` wrote"),
        ("empty", "holds no tracks; wanted a folder that `sn7 track` wrote"),
        ("package", "cannot be read as tracks"),
        ("about", "cannot be read as tracks"),
        ("../evil", "the scene '../evil' leads to another folder"),
        ("..", "the scene '..' leads to another folder"),
    ],
)
def test_bad_input(damage: str, said: str, tracked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 1, one sentence, nothing written."""
    if damage == "missing":
        shutil.rmtree(tracked)
    elif damage == "empty":
        shutil.rmtree(tracked / SCENE)
    elif damage == "package":
        (tracked / SCENE / f"{SCENE}.gpkg").unlink()
    elif damage.startswith(".."):
        about = tracked / SCENE / "track.json"
        about.write_text(about.read_text().replace(f'"{SCENE}"', f'"{damage}"'))
        (tracked / SCENE / f"{SCENE}.gpkg").rename(tracked / SCENE / f"{damage}.gpkg")
    else:
        (tracked / SCENE / "track.json").write_text("{}")
    capsys.readouterr()
    assert main(["changes", str(tracked), str(tmp_path / "out")]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1 and said in err
    assert not (tmp_path / "out").exists()
