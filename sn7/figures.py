"""Pictures for people: polygons over their image, image beside mask and probs, curves of trials."""

import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import shapely
from affine import Affine
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image, ImageDraw, ImageFont

from sn7.files import atomic_file

__all__ = ["learning_curves", "preview", "triptych"]

Curves = Mapping[str, Sequence[tuple[int, float]]]
"""(epoch, value) of each trial, by the trial's name."""

_OUTLINE = (255, 235, 0)  # yellow stands out from vegetation, soil and roofs, also for the colour-blind
_INVALID = (128, 128, 128)
_PANEL, _GAP, _TITLE = 294, 9, 30
"""Side, distance and height of the title of a panel, in pixels: three make a picture of about 900."""
_PROBS = (colormaps["inferno"](np.linspace(0, 1, 256))[:, :3] * 255).round().astype(np.uint8)


def preview(rgb: npt.NDArray[np.uint8], polygons: gpd.GeoDataFrame, transform: Affine, path: Path) -> None:
    """Write the image, uint8 RGB (3, h, w), with the outlines of its polygons, as PNG, atomically.

    `transform` is the image's; the polygons are in the same CRS. Small images are enlarged 2 to 4 times, so
    that an outline is thinner than the pixels along which it runs.
    """
    height, width = rgb.shape[1:]
    scale = min(max(round(2048 / max(height, width)), 1), 4)
    picture = Image.fromarray(np.ascontiguousarray(rgb.transpose(1, 2, 0)))
    picture = picture.resize((width * scale, height * scale), Image.Resampling.NEAREST)
    draw = ImageDraw.Draw(picture)
    for ring in shapely.get_rings(polygons.geometry.affine_transform((~transform).to_shapely()).array):
        corners = np.minimum(shapely.get_coordinates(ring) * scale, (picture.width - 1, picture.height - 1))
        draw.line(corners.ravel().tolist(), fill=_OUTLINE, width=1)
    _save(picture, path)


def triptych(
    rgb: npt.NDArray[np.uint8], mask: npt.NDArray[np.uint8], probs: npt.NDArray[np.float32], path: Path
) -> None:
    """Write image, mask and prediction side by side, about 900 px wide, as PNG, atomically.

    RGB is uint8 (3, h, w), mask uint8 {0, 1} (h, w), probs float32 (h, w), NaN (grey) if invalid.
    A building is a few pixels wide, and a panel 294: give a crop of about that size or less.
    """
    share = np.nan_to_num(probs, nan=0.0) * 255
    prediction = np.where(np.isnan(probs)[..., None], _INVALID, _PROBS[share.round().astype(np.uint8)])
    panels = {
        "image": rgb.transpose(1, 2, 0),
        "mask": np.repeat(mask[..., None] * 255, 3, axis=2),
        "prediction (probs)": prediction,
    }
    height = round(_PANEL * mask.shape[0] / mask.shape[1])
    picture = Image.new("RGB", (3 * _PANEL + 2 * _GAP, height + _TITLE), "white")
    for number, (title, pixels) in enumerate(panels.items()):
        left = number * (_PANEL + _GAP)
        picture.paste(_resize(pixels.astype(np.uint8), _PANEL, height), (left, _TITLE))
        _write(picture, title, left)
    _colour_bar(picture, picture.width)
    _save(picture, path)


def learning_curves(loss: Curves, dice: Curves, path: Path, highlight: Collection[str] = ()) -> None:
    """Write validation loss and Dice over the epochs of trials, atomically.

    The ending of `path` says the format. Trials in `highlight`, such as the notebook recipe, are drawn in
    colour and named, all others in grey.
    """
    figure = Figure(figsize=(9, 3.6), dpi=100, layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw_curves(left, loss, highlight, "Validation loss", "weighted cross-entropy (nats)")
    _draw_curves(right, dice, highlight, "Validation Dice", "Dice of the building class (0 to 1)")
    right.set_ylim(0, 1)
    with atomic_file(path) as temporary:
        figure.savefig(temporary)


def _draw_curves(axes: Axes, curves: Curves, highlight: Collection[str], title: str, unit: str) -> None:
    others = [trial for trial in curves if trial not in highlight]
    for index, trial in enumerate(others):
        label = f"other trials ({len(others)})" if index == 0 else None
        axes.plot(*_columns(curves[trial]), color="0.75", linewidth=0.8, label=label)
    for trial in curves:
        if trial in highlight:
            axes.plot(*_columns(curves[trial]), linewidth=2.2, label=trial)
    axes.set(title=title, xlabel="epoch", ylabel=unit)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    if curves:
        axes.legend(frameon=False)


def _columns(points: Sequence[tuple[int, float]]) -> tuple[list[int], list[float]]:
    return [epoch for epoch, _ in points], [value for _, value in points]


def _resize(pixels: npt.NDArray[np.uint8], width: int, height: int) -> Image.Image:
    """Return (h, w, 3) in another size, its pixels still squares: repeated first, then averaged."""
    repeat = math.ceil(2 * width / pixels.shape[1])
    enlarged = pixels.repeat(repeat, axis=0).repeat(repeat, axis=1)
    return Image.fromarray(enlarged).resize((width, height), Image.Resampling.BOX)


def _save(picture: Image.Image, path: Path) -> None:
    with atomic_file(path) as temporary:
        picture.save(temporary, format="PNG", compress_level=2)  # 3 x faster than the default, 15 % larger


def _write(picture: Image.Image, text: str, left: int) -> None:
    ImageDraw.Draw(picture).text((left, _TITLE // 2), text, "black", ImageFont.load_default(16), anchor="lm")


def _colour_bar(picture: Image.Image, right: int) -> None:
    """Explain the colours of probs in the title line, up to column `right`."""
    bar = Image.fromarray(np.ascontiguousarray(_PROBS[None])).resize((64, 12))
    picture.paste(bar, (right - 84, _TITLE // 2 - 6))
    _write(picture, "0", right - 98)
    _write(picture, "1", right - 12)
