from pathlib import Path

import numpy as np
import shapely
from affine import Affine
from geopandas import GeoDataFrame
from PIL import Image

from sn7.figures import Preview
from sn7.metrics import Counts
from sn7.panels import MISTAKES, TilePicture, tile_panels, tile_sheet
from sn7.tilesheet import choose_tiles

GREY, YELLOW = (90, 90, 90), (255, 235, 0)


def read(path: Path) -> np.ndarray:
    """Return a picture as uint8 (h, w, 3)."""
    return np.asarray(Image.open(path).convert("RGB"))


def preview(rgb: np.ndarray, polygons: GeoDataFrame, transform: Affine, path: Path) -> None:
    """Write a preview of a whole image and one table of polygons."""
    picture = Preview(rgb, rgb.shape[1:], transform)
    picture.draw(polygons)
    picture.save(path)


def test_preview_outlines_polygons(tmp_path: Path) -> None:
    """A polygon of the pixels x 10 to 20, y 30 to 50 is drawn there, on the image enlarged four times."""
    transform = Affine(10, 0, 1000, 0, -10, 2000)
    corner = [(1100, 1700), (1200, 1700), (1200, 1500), (1100, 1500)]
    polygons = GeoDataFrame(geometry=[shapely.Polygon(corner)], crs=32631)
    preview(np.full((3, 60, 70), 90, np.uint8), polygons, transform, tmp_path / "x.png")
    picture = read(tmp_path / "x.png")
    assert picture.shape == (240, 280, 3)
    rows, columns = np.nonzero((picture == YELLOW).all(axis=2))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (120, 200, 40, 80)
    assert len(rows) == 2 * 41 + 2 * 79  # an outline, not an area
    assert tuple(picture[160, 60]) == GREY


def test_preview_draws_holes_and_image_border(tmp_path: Path) -> None:
    """Inner rings have outlines too, and one along the right and lower border of the image is inside it."""
    shape = shapely.Polygon([(0, 0), (20, 0), (20, -20), (0, -20)], [[(5, -5), (10, -5), (10, -10), (5, -10)]])
    polygons = GeoDataFrame(geometry=[shape], crs=3857)
    preview(np.full((3, 20, 20), 90, np.uint8), polygons, Affine(1, 0, 0, 0, -1, 0), tmp_path / "x.png")
    yellow = (read(tmp_path / "x.png") == YELLOW).all(axis=2)
    assert yellow[-1].all() and yellow[:, -1].all() and yellow[0].all() and yellow[:, 0].all()
    assert yellow[20, 20:41].all() and not yellow[30, 30]


def test_preview_of_a_large_image(tmp_path: Path) -> None:
    """Of an image of 8,000 × 400 px in a tenth of its size, outlines are drawn where they belong, a tenth as large."""
    polygons = GeoDataFrame(geometry=[shapely.box(1000, -300, 2000, -100)], crs=3857)
    picture = Preview(np.full((3, 40, 800), 90, np.uint8), (400, 8000), Affine(1, 0, 0, 0, -1, 0))
    picture.draw(polygons)
    picture.save(tmp_path / "x.png")
    yellow = (read(tmp_path / "x.png") == YELLOW).all(axis=2)
    rows, columns = np.nonzero(yellow)
    scale = yellow.shape[1] / 8000
    assert (columns.min(), columns.max()) == (1000 * scale, 2000 * scale)
    assert (rows.min(), rows.max()) == (100 * scale, 300 * scale)


def test_preview_without_polygons(tmp_path: Path) -> None:
    """No polygons leave the image, at 2 × for a full SpaceNet 7 image."""
    preview(
        np.full((3, 1023, 1024), 90, np.uint8),
        GeoDataFrame(geometry=[], crs=3857),
        Affine.identity(),
        tmp_path / "x.png",
    )
    picture = read(tmp_path / "x.png")
    assert picture.shape == (2046, 2048, 3) and (picture == GREY).all()
    assert [path.name for path in tmp_path.iterdir()] == ["x.png"]


def test_tile_sheet(tmp_path: Path) -> None:
    """Four columns with names; tiles one below the other, each a title above its panels; mistakes have colours."""

    def tile(brightness: int) -> TilePicture:
        mask, probs = np.zeros((32, 32), np.uint8), np.full((32, 32), 0.4, np.float32)
        mask[:16], probs[:, :16], probs[-1] = 1, 0.9, np.nan
        return TilePicture("a title", np.full((3, 32, 32), brightness, np.uint8), mask, probs)

    tile_sheet([tile(50), tile(100)], tmp_path / "x.png")
    picture = read(tmp_path / "x.png")
    side, row = 218, 218 + 30
    assert picture.shape == (30 + 2 * row + 9, 900, 3)
    names, first = picture[:30], picture[30 : 30 + row]
    assert all((names[:, left : left + 60] < 100).any() for left in (0, 227, 454, 681))
    assert (names == MISTAKES["extra"]).all(axis=2).sum() == (names == MISTAKES["missed"]).all(axis=2).sum() == 121
    assert (first[30:, :side] == 50).all() and (picture[row + 69 : 2 * row + 39, :side] == 100).all()
    assert (first[:30, :200] < 100).any()  # a title was written
    target, prediction, probs = (first[30:-8, left : left + side] for left in (227, 454, 681))
    assert (target[: side // 2] == 255).all() and (target[side // 2 :] == 0).all()
    half = side // 2
    assert (prediction[:half, :half] == 255).all() and (prediction[half:, half:] == 0).all()
    assert (prediction[half:, :half] == MISTAKES["extra"]).all()
    assert (prediction[:half, half:] == MISTAKES["missed"]).all()
    assert probs[:, :half].mean() > probs[:, half:].mean() > 10
    assert (first[-4:, 454 : 454 + side] == 128).all()  # invalid


def test_panels_at_another_threshold_and_shape() -> None:
    """Probs of 0.4 are a building at a threshold of 0.3; panels have the shape of the crop."""
    mask = np.ones((10, 20), np.uint8)
    tile = TilePicture("a title", np.zeros((3, 10, 20), np.uint8), mask, np.full((10, 20), 0.4, np.float32), 0.3)
    panels = tile_panels(tile)
    assert list(panels) == ["image", "target", "prediction", "probability"]
    assert {panel.shape for panel in panels.values()} == {(10, 20, 3)}
    assert (panels["prediction"] == 255).all()


def test_the_tiles_that_are_shown() -> None:
    """Best, around the median, worst: none twice, none without a building."""
    dice = [0.5, 0.9, 0.1, 0.7, 0.3, 0.8, 0.2]
    counts = [Counts(round(50 * value), 0, 100 - round(100 * value)) for value in dice]
    assert [round(count.dice, 6) for count in counts] == dice
    nothing = Counts(0, 7, 0)
    assert choose_tiles([*counts, nothing]) == {"best": [1, 5], "median": [3, 0], "worst": [6, 2]}
    assert choose_tiles([nothing, *counts[:3]]) == {"best": [2], "median": [1], "worst": [3]}
    assert choose_tiles([nothing, *counts[:2]]) == {"best": [2], "median": [], "worst": [1]}
    assert choose_tiles([nothing, counts[0]]) == {"best": [1], "median": [], "worst": []}
    assert choose_tiles([nothing]) == {"best": [], "median": [], "worst": []}
