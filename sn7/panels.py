"""Image, mask and probs side by side: of one crop, or of validation tiles of a model.

Apart from `figures`, so that a training can draw them on a node that has no geospatial library.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from PIL import Image, ImageDraw, ImageFont

from sn7.files import atomic_file

__all__ = ["TilePicture", "save_picture", "tile_sheet", "triptych"]

_INVALID = (128, 128, 128)
_WIDTH, _GAP, _TITLE = 900, 9, 30
"""Width of a row of panels, distance between two, height of the title above them, in pixels."""
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
    picture = _panels([_colours(rgb), _grey(mask), _heat(probs)])
    for number, title in enumerate(("image", "mask", "prediction (probs)")):
        _write(picture, title, number * (_WIDTH + _GAP) // 3)
    _colour_bar(picture)
    save_picture(picture, path)


def tile_sheet(tiles: Sequence[TilePicture], path: Path) -> None:
    """Write tiles, one at least, one below the other, each as image, target, prediction and probs, as PNG.

    Atomically; 900 px wide. The prediction is probs >= 0.5.
    """
    rows = [_row(tile) for tile in tiles]
    sheet = Image.new("RGB", (_WIDTH, sum(row.height + _GAP for row in rows) - _GAP), "white")
    top = 0
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height + _GAP
    save_picture(sheet, path)


def _row(tile: TilePicture) -> Image.Image:
    predicted = np.where(np.isnan(tile.probs)[..., None], _INVALID, _grey(tile.probs >= 0.5))
    picture = _panels([_colours(tile.rgb), _grey(tile.mask), predicted, _heat(tile.probs)])
    _write(picture, tile.title, 0)
    _colour_bar(picture)
    return picture


def _panels(panels: Sequence[npt.NDArray[Any]]) -> Image.Image:
    """Return pictures (h, w, 3) of one shape side by side, below an empty line for a title."""
    side = (_WIDTH + _GAP) // len(panels) - _GAP
    height = round(side * panels[0].shape[0] / panels[0].shape[1])
    picture = Image.new("RGB", (_WIDTH, height + _TITLE), "white")
    for number, pixels in enumerate(panels):
        left = number * (_WIDTH + _GAP) // len(panels)
        picture.paste(_resize(pixels.astype(np.uint8), side, height), (left, _TITLE))
    return picture


def _colours(rgb: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
    return rgb.transpose(1, 2, 0)


def _grey(mask: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return a mask as white on black."""
    return np.repeat(mask[..., None].astype(np.uint8) * 255, 3, axis=2)


def _heat(probs: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
    """Return probs in colours, grey where they are NaN."""
    share = np.nan_to_num(probs, nan=0.0) * 255
    return np.where(np.isnan(probs)[..., None], _INVALID, _PROBS[share.round().astype(np.uint8)])


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
