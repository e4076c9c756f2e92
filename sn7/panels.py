"""Image, mask and probs side by side: of one crop, or of a model's best and worst tiles.

Apart from `figures`, so that a training can draw them on a node that has no geospatial library.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from PIL import Image, ImageDraw, ImageFont

from sn7.files import atomic_file

__all__ = ["TilePicture", "save_picture", "tile_sheet", "triptych"]

_INVALID = (128, 128, 128)
_PANEL, _GAP, _TITLE = 294, 9, 30
"""Side, distance and height of the title of a panel, in pixels: three make a picture of about 900."""
_WIDTH = 3 * _PANEL + 2 * _GAP
_PROBS = (colormaps["inferno"](np.linspace(0, 1, 256))[:, :3] * 255).round().astype(np.uint8)


@dataclass(frozen=True)
class TilePicture:
    """What a sheet shows of a tile: RGB uint8 (3, h, w), mask uint8 {0, 1} (h, w), probs float32 (h, w)."""

    title: str
    rgb: npt.NDArray[np.uint8]
    mask: npt.NDArray[np.uint8]
    probs: npt.NDArray[np.float32]
    """NaN if invalid."""


def triptych(
    rgb: npt.NDArray[np.uint8], mask: npt.NDArray[np.uint8], probs: npt.NDArray[np.float32], path: Path
) -> None:
    """Write image, mask and prediction side by side, about 900 px wide, as PNG, atomically.

    RGB is uint8 (3, h, w), mask uint8 {0, 1} (h, w), probs float32 (h, w), NaN (grey) if invalid.
    A building is a few pixels wide, and a panel 294: give a crop of about that size or less.
    """
    picture = _panels(rgb, mask, probs)
    for number, title in enumerate(("image", "mask", "prediction (probs)")):
        _write(picture, title, number * (_PANEL + _GAP))
    _colour_bar(picture)
    save_picture(picture, path)


def tile_sheet(best: Sequence[TilePicture], worst: Sequence[TilePicture], path: Path) -> None:
    """Write tiles as rows of image, mask and prediction, the best on the left, the worst on the right, as PNG.

    Atomically; about 1,830 px wide where there are any of the worst, else 900. Needs one tile at least.
    """
    columns = [[_row(tile) for tile in tiles] for tiles in (best, worst) if tiles]
    height = max(sum(row.height + _GAP for row in column) for column in columns) - _GAP
    between = 3 * _GAP
    sheet = Image.new("RGB", (len(columns) * (_WIDTH + between) - between, height), "white")
    for number, column in enumerate(columns):
        top = 0
        for row in column:
            sheet.paste(row, (number * (_WIDTH + between), top))
            top += row.height + _GAP
    save_picture(sheet, path)


def _row(tile: TilePicture) -> Image.Image:
    picture = _panels(tile.rgb, tile.mask, tile.probs)
    _write(picture, tile.title, 0)
    _colour_bar(picture)
    return picture


def _panels(rgb: npt.NDArray[np.uint8], mask: npt.NDArray[np.uint8], probs: npt.NDArray[np.float32]) -> Image.Image:
    """Return the three panels below an empty line for a title."""
    share = np.nan_to_num(probs, nan=0.0) * 255
    prediction = np.where(np.isnan(probs)[..., None], _INVALID, _PROBS[share.round().astype(np.uint8)])
    height = round(_PANEL * mask.shape[0] / mask.shape[1])
    picture = Image.new("RGB", (_WIDTH, height + _TITLE), "white")
    for number, pixels in enumerate((rgb.transpose(1, 2, 0), np.repeat(mask[..., None] * 255, 3, axis=2), prediction)):
        picture.paste(_resize(pixels.astype(np.uint8), _PANEL, height), (number * (_PANEL + _GAP), _TITLE))
    return picture


def _resize(pixels: npt.NDArray[np.uint8], width: int, height: int) -> Image.Image:
    """Return (h, w, 3) in another size, its pixels still squares: repeated first, then averaged."""
    repeat = math.ceil(2 * width / pixels.shape[1])
    enlarged = pixels.repeat(repeat, axis=0).repeat(repeat, axis=1)
    return Image.fromarray(enlarged).resize((width, height), Image.Resampling.BOX)


def save_picture(picture: Image.Image, path: Path) -> None:
    """Write a picture as PNG, atomically."""
    with atomic_file(path) as temporary:
        picture.save(temporary, format="PNG", compress_level=2)  # 3 x faster than the default, 15 % larger


def _write(picture: Image.Image, text: str, left: int) -> None:
    ImageDraw.Draw(picture).text((left, _TITLE // 2), text, "black", ImageFont.load_default(16), anchor="lm")


def _colour_bar(picture: Image.Image) -> None:
    """Explain the colours of probs at the right end of the title line."""
    bar = Image.fromarray(np.ascontiguousarray(_PROBS[None])).resize((64, 12))
    picture.paste(bar, (picture.width - 84, _TITLE // 2 - 6))
    _write(picture, "0", picture.width - 98)
    _write(picture, "1", picture.width - 12)
