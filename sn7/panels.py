"""Image, target, prediction and probability side by side: of validation tiles of a model, or of crops of images.

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

__all__ = ["COLUMNS", "MISTAKES", "TilePicture", "save_picture", "tile_panels", "tile_sheet"]

COLUMNS = ("image", "target", "prediction", "probability")
MISTAKES = {"extra": (230, 159, 0), "missed": (0, 158, 222)}
"""Colours of what is predicted and no building, and of buildings that are not predicted."""
_INVALID = (128, 128, 128)
_WIDTH, _GAP, _TITLE = 900, 9, 30
"""Width of a row of panels, distance between two, height of a line of text above them, in pixels."""
_PROBS = (colormaps["inferno"](np.linspace(0, 1, 256))[:, :3] * 255).round().astype(np.uint8)


@dataclass(frozen=True)
class TilePicture:
    """What a sheet shows of a tile: RGB uint8 (3, h, w), mask uint8 {0, 1} (h, w), probs float32 (h, w)."""

    title: str
    rgb: npt.NDArray[np.uint8]
    mask: npt.NDArray[np.uint8]
    probs: npt.NDArray[np.float32]
    """NaN if invalid."""
    threshold: float = 0.5


def tile_sheet(tiles: Sequence[TilePicture], path: Path) -> None:
    """Write tiles, one at least, one below the other, each as image, target, prediction and probability, as PNG.

    Atomically; 900 px wide, with the columns' names and the colours' meaning at the top.
    """
    rows = [_row(tile) for tile in tiles]
    sheet = Image.new("RGB", (_WIDTH, _TITLE + sum(row.height + _GAP for row in rows) - _GAP), "white")
    _head(sheet)
    top = _TITLE
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height + _GAP
    save_picture(sheet, path)


def tile_panels(tile: TilePicture) -> dict[str, npt.NDArray[np.uint8]]:
    """Return the columns of a tile's row by name, each a picture uint8 (h, w, 3).

    The prediction is probs >= threshold: white where there is a building, and in the colours of MISTAKES where not.
    """
    invalid = np.isnan(tile.probs)[..., None]
    built, predicted = tile.mask > 0, tile.probs >= tile.threshold
    outcome = _grey(built & predicted)
    for wrong, colour in zip((predicted & ~built, built & ~predicted), MISTAKES.values(), strict=True):
        outcome[wrong] = colour
    panels = {
        "image": tile.rgb.transpose(1, 2, 0),
        "target": _grey(tile.mask),
        "prediction": np.where(invalid, _INVALID, outcome),
        "probability": np.where(invalid, _INVALID, _heat(tile.probs)),
    }
    return {name: panel.astype(np.uint8) for name, panel in panels.items()}


def _head(sheet: Image.Image) -> None:
    """Name the columns above them, and explain the colours of prediction and probability."""
    for number, name in enumerate(COLUMNS):
        _write(sheet, name, _left(number))
    right = _left(2) + 86
    for word, colour in MISTAKES.items():
        ImageDraw.Draw(sheet).rectangle((right, _TITLE // 2 - 5, right + 10, _TITLE // 2 + 5), colour)
        _write(sheet, word, right + 14, 13)
        right += 66
    _colour_bar(sheet)


def _row(tile: TilePicture) -> Image.Image:
    """Return the panels of a tile side by side, below its title."""
    panels = list(tile_panels(tile).values())
    side = _left(1) - _GAP
    height = round(side * panels[0].shape[0] / panels[0].shape[1])
    picture = Image.new("RGB", (_WIDTH, height + _TITLE), "white")
    for number, pixels in enumerate(panels):
        picture.paste(_resize(pixels, side, height), (_left(number), _TITLE))
    _write(picture, tile.title, 0)
    return picture


def _left(column: int) -> int:
    """Return where a column begins."""
    return column * (_WIDTH + _GAP) // len(COLUMNS)


def _grey(mask: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Return a mask as white on black."""
    return np.repeat(mask[..., None].astype(np.uint8) * 255, 3, axis=2)


def _heat(probs: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Return probs in colours."""
    return _PROBS[(np.nan_to_num(probs, nan=0.0) * 255).round().astype(np.uint8)]


def _resize(pixels: npt.NDArray[np.uint8], width: int, height: int) -> Image.Image:
    """Return (h, w, 3) in another size, its pixels still squares: repeated first, then averaged."""
    repeat = math.ceil(2 * width / pixels.shape[1])
    enlarged = pixels.repeat(repeat, axis=0).repeat(repeat, axis=1)
    return Image.fromarray(enlarged).resize((width, height), Image.Resampling.BOX)


def save_picture(picture: Image.Image, path: Path) -> None:
    """Write a picture as PNG, atomically."""
    with atomic_file(path) as temporary:
        picture.save(temporary, format="PNG", compress_level=2)  # 3 x faster than the default, 15 % larger


def _write(picture: Image.Image, text: str, left: int, size: int = 16) -> None:
    ImageDraw.Draw(picture).text((left, _TITLE // 2), text, "black", ImageFont.load_default(size), anchor="lm")


def _colour_bar(picture: Image.Image) -> None:
    """Explain the colours of probs at the right end of the first line."""
    bar = Image.fromarray(np.ascontiguousarray(_PROBS[None])).resize((64, 12))
    picture.paste(bar, (picture.width - 84, _TITLE // 2 - 6))
    _write(picture, "0", picture.width - 98)
    _write(picture, "1", picture.width - 12)
