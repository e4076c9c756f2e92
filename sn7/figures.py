"""Pictures for people: polygons over their image, image beside mask and probs, curves of trials."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import shapely
from affine import Affine
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image, ImageDraw

from sn7.files import atomic_file
from sn7.panels import save_picture, triptych

__all__ = ["learning_curves", "preview", "triptych"]

Curves = Mapping[str, Sequence[tuple[int, float]]]
"""(epoch, value) of each trial, by the trial's name."""

_OUTLINE = (255, 235, 0)  # yellow stands out from vegetation, soil and roofs, also for the colour-blind


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
    save_picture(picture, path)


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
