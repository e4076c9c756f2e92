"""Small multiples of the place that grows most: the same window of a scene in several months."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import shapely
from affine import Affine
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from scipy import ndimage

from sn7.changes.read import SceneTracks
from sn7.explore.ground import COLOURS, SMALL, new_sheet, save, scale_bar, short_name, show
from sn7.rasters import read_image

__all__ = ["PANELS", "draw_growing_place", "growing_window"]

PANELS = 8
SIDE = 96
"""Of the window, px: some 450 m on the grid of the images, in which a house is still to be seen."""
PLAIN = 245
"""Grey of the ground where there is no image."""
OLD, NEW = COLOURS[4], "#ff8c00"


def growing_window(tracks: SceneTracks) -> tuple[int, int, int]:
    """Return the first column, first row and side in px of the square that holds most new buildings."""
    height, width = tracks.shape
    side = min(SIDE, height, width)
    new = tracks.buildings[tracks.buildings["new"].astype(bool)]
    middle = shapely.get_coordinates(_in_pixels(tracks, shapely.centroid(new.geometry.array)))
    places = np.floor(middle).astype(int).clip(0, (width - 1, height - 1))
    counts = np.zeros(tracks.shape, np.float32)
    np.add.at(counts, (places[:, 1], places[:, 0]), 1)
    total = np.pad(counts.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    inside = total[side:, side:] - total[:-side, side:] - total[side:, :-side] + total[:-side, :-side]
    # Among windows that hold the same buildings, the one in their middle.
    best = ndimage.distance_transform_edt(np.pad(inside > inside.max() - 0.5, 1))[1:-1, 1:-1]
    row, column = np.unravel_index(int(best.argmax()), best.shape)
    return int(column), int(row), side


def draw_growing_place(tracks: SceneTracks, images: Mapping[str, Path], path: Path) -> None:
    """Write the growing place in up to eight months, as PNG, atomically.

    `images` are the scene's GeoTIFFs by month, of whatever pixels; plain ground is drawn where there is none.
    Raises ImageUnreadable where one cannot be read.
    """
    left, top, side = growing_window(tracks)
    chosen = np.unique(np.linspace(0, len(tracks.dates) - 1, PANELS).round().astype(int))
    figure, panels = new_sheet(len(chosen), 4, f"{short_name(tracks.scene)}: the place that grows most", 0.3)
    outlines = _in_pixels(tracks, tracks.buildings.geometry.array)
    near = shapely.intersects(outlines, shapely.box(left, top, left + side, top + side))
    parts, owner = shapely.get_parts(outlines[near], return_index=True)
    corners = [shapely.get_coordinates(ring) - (left, top) for ring in shapely.get_exterior_ring(parts)]
    standing, before = tracks.standing[near], -1
    for axes, month in zip(panels, chosen.tolist(), strict=True):
        ground = _ground(images.get(tracks.dates[month]), tracks.transform, (left, top, side))
        grown = f", +{int((standing[:, month] & ~standing[:, before]).sum())}" if before >= 0 else ""
        show(axes, ground, f"{tracks.dates[month]}: {int(standing[:, month].sum())} buildings{grown}")
        _draw(axes, corners, standing[owner], month, before)
        before = month
    scale_bar(panels[0], _ground_metres(tracks))
    figure.legend(
        handles=[
            Line2D([], [], color=OLD, label=f"since {tracks.dates[0]} or before"),
            Line2D([], [], color=NEW, label="new since then"),
            Patch(facecolor=NEW, alpha=0.55, label="new since the picture before"),
        ],
        loc="outside lower center",
        ncols=3,
        fontsize=SMALL,
        frameon=False,
    )
    save(figure, path)


def _draw(
    axes: Axes, corners: list[npt.NDArray[np.float64]], standing: npt.NDArray[np.bool_], month: int, before: int
) -> None:
    there, old = standing[:, month], standing[:, 0]
    fresh = there & ~standing[:, before] if before >= 0 else np.zeros_like(there)
    # pixel coordinates count from a pixel's corner, pictures from its middle
    for chosen, edge, face in (
        (there & old, OLD, "none"),
        (there & ~old & ~fresh, NEW, "none"),
        (fresh, NEW, (1.0, 0.55, 0.0, 0.55)),
    ):
        outlines = [corners[i] - 0.5 for i in np.flatnonzero(chosen)]
        shapes = PolyCollection(outlines, facecolors=face, edgecolors=edge, linewidths=1.1)
        axes.add_collection(shapes, autolim=False)


def _ground(image: Path | None, transform: Affine, window: tuple[int, int, int]) -> npt.NDArray[np.uint8]:
    """Return what an image shows in a window of another grid, whose `transform` is of the same CRS."""
    left, top, side = window
    ground = np.full((3, side, side), PLAIN, np.uint8)
    if image is None:
        return ground
    read, steps = read_image(image), np.arange(side) + 0.5
    # the pixel of the image in which the middle of each column and row lies
    columns, rows = np.floor((~read.transform @ transform) @ np.stack([left + steps, top + steps])).astype(int)
    height, width = read.shape
    across, down = (columns >= 0) & (columns < width), (rows >= 0) & (rows < height)
    ground[:, down[:, None] & across] = read.rgb[:, rows[down]][:, :, columns[across]].reshape(3, -1)
    return ground


def _in_pixels(tracks: SceneTracks, geometry: npt.NDArray[np.object_]) -> npt.NDArray[np.object_]:
    inverse = ~tracks.transform
    return np.asarray(
        shapely.transform(np.asarray(geometry, object), lambda xy: np.column_stack(inverse @ xy.T)), object
    )


def _ground_metres(tracks: SceneTracks) -> float:
    """Return the true length of a pixel's side: the mean of the buildings' true areas over those in pixels."""
    area: pd.Series = tracks.buildings["area_m2"]
    pixels = shapely.area(_in_pixels(tracks, tracks.buildings.geometry.array)).sum()
    return float((area.sum() / pixels) ** 0.5)
