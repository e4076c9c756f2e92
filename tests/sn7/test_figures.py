from pathlib import Path

import numpy as np
import shapely
from affine import Affine
from geopandas import GeoDataFrame
from PIL import Image

from sn7.figures import learning_curves, preview, triptych
from sn7.metrics import Counts
from sn7.panels import TilePicture, tile_sheet
from sn7.tilesheet import choose_tiles

GREY, YELLOW = (90, 90, 90), (255, 235, 0)


def read(path: Path) -> np.ndarray:
    """Return a picture as uint8 (h, w, 3)."""
    return np.asarray(Image.open(path).convert("RGB"))


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


def test_triptych_panels(tmp_path: Path) -> None:
    """Image, mask and probs stand side by side, 900 px wide, invalid pixels grey."""
    rgb = np.zeros((3, 98, 98), np.uint8)
    rgb[1] = 200
    mask = np.zeros((98, 98), np.uint8)
    mask[:49] = 1
    probs = np.zeros((98, 98), np.float32)
    probs[:49], probs[-1] = 1, np.nan
    triptych(rgb, mask, probs, tmp_path / "x.png")
    picture = read(tmp_path / "x.png")
    assert picture.shape == (324, 900, 3)
    below_title = picture[30:]
    assert (below_title[:, :294] == (0, 200, 0)).all()
    assert (below_title[:147, 303:597] == 255).all() and (below_title[147:, 303:597] == 0).all()
    assert below_title[:147, 606:].mean() > 200 and below_title[148:290, 606:].mean() < 10
    assert (below_title[-3:, 606:] == 128).all()
    assert (picture[:30, :294] < 100).any()  # a title was written


def test_triptych_of_another_shape(tmp_path: Path) -> None:
    """A crop of 100 × 200 px keeps its proportions; a full image is reduced."""
    for height, width in [(100, 200), (1023, 1024)]:
        empty = np.zeros((height, width), np.uint8)
        triptych(np.stack([empty] * 3), empty, empty.astype(np.float32), tmp_path / "x.png")
        assert read(tmp_path / "x.png").shape == (30 + round(294 * height / width), 900, 3)


def test_tile_sheet(tmp_path: Path) -> None:
    """Tiles stand one below the other, each a title above image, target, prediction and probs."""

    def tile(brightness: int) -> TilePicture:
        mask, probs = np.zeros((32, 32), np.uint8), np.full((32, 32), 0.4, np.float32)
        mask[:16], probs[:, :16], probs[-1] = 1, 0.9, np.nan
        return TilePicture("a title", np.full((3, 32, 32), brightness, np.uint8), mask, probs)

    tile_sheet([tile(50), tile(100)], tmp_path / "x.png")
    picture = read(tmp_path / "x.png")
    side, row = 218, 218 + 30
    assert picture.shape == (2 * row + 9, 900, 3)
    assert (picture[30:row, :side] == 50).all() and (picture[row + 39 : 2 * row + 9, :side] == 100).all()
    assert (picture[:30, :200] < 100).any()  # a title was written
    target, prediction, probs = (picture[30 : row - 8, left : left + side] for left in (227, 454, 681))
    assert (target[: side // 2] == 255).all() and (target[side // 2 :] == 0).all()
    assert (prediction[:, : side // 2] == 255).all() and (prediction[:, side // 2 :] == 0).all()
    assert probs[:, : side // 2].mean() > probs[:, side // 2 :].mean() > 10
    assert (picture[row - 4 : row, 454 : 454 + side] == 128).all()  # invalid


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


def test_learning_curves(tmp_path: Path) -> None:
    """The highlighted trial is drawn in colour, the others in grey; PNG and SVG follow from the name."""
    loss = {"notebook": [(1, 0.6), (2, 0.4)], "trial 1": [(1, 0.5), (2, 0.3)], "trial 2": [(1, 0.7)]}
    dice = {"notebook": [(1, 0.3), (2, 0.5)], "trial 1": [(1, 0.4), (2, 0.6)], "trial 2": [(1, 0.1)]}
    learning_curves(loss, dice, tmp_path / "curves.svg", {"notebook"})
    learning_curves(loss, dice, tmp_path / "curves.png", {"notebook"})
    learning_curves(loss, dice, tmp_path / "grey.png")
    assert "<svg" in (tmp_path / "curves.svg").read_text()
    coloured, grey = (read(tmp_path / name).astype(int) for name in ("curves.png", "grey.png"))
    assert coloured.shape[1] == 900
    assert np.ptp(coloured, axis=2).max() > 100 and np.ptp(grey, axis=2).max() == 0


def test_learning_curves_of_nothing(tmp_path: Path) -> None:
    """A study without a finished epoch still gives a picture."""
    learning_curves({}, {}, tmp_path / "curves.png")
    assert read(tmp_path / "curves.png").shape[1] == 900
