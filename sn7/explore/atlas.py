"""Pictures of a data set's ground: sample scenes, a scene through its months, footprints, tiles beside their masks.

What is shown follows from the survey; the few images that are, at most a dozen a picture, are read again for it.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from sn7.explore.ground import FONT, INVALID, mask_picture, new_sheet, save, scale_bar, short_name, show
from sn7.explore.numbers import Surveyed
from sn7.explore.survey import ImageNumbers, TileNumbers
from sn7.explore.view import View, crop, read_view

__all__ = ["draw_footprints", "draw_months", "draw_scenes", "draw_tiles"]

SCENES, MONTHS, TILES = 12, 12, 8
"""Shown at most."""
GREY = f"{INVALID / 255}"
MASK_KEY = {"building": "white", "background": "black", "unusable": GREY}
_OUTLINE = "#ffeb00"  # yellow stands out from vegetation, soil and roofs, also for the colour-blind


def draw_scenes(found: Surveyed, path: Path) -> None:
    """Write up to a dozen scenes, evenly spread over their names, each in the month with most usable pixels."""
    names = list(found.scenes)
    shown = [min(found.scenes[names[i]], key=lambda image: image.unusable_share) for i in _spread(len(names), SCENES)]
    figure, axes = new_sheet(len(shown), 4, f"Sample scenes ({len(shown)} of {len(names)})", head=0.4)
    for panel, image in zip(axes, shown, strict=True):
        view = read_view(image.image)
        about = f"{image.footprints:,} footprints" if image.labelled else _without_labels(found, image)
        show(panel, view.rgb, f"{short_name(image.image.scene)}\n{image.image.date} · {about}")
        scale_bar(panel, view.ground_m)
    save(figure, path)


def draw_months(found: Surveyed, path: Path) -> None:
    """Write the same ground in up to a dozen months of the scene with most, where most was built meanwhile."""
    images = max(found.scenes.values(), key=lambda group: (len(_labelled(group)), len(group), _growth(group)[0]))
    _, row, col = _growth(images)
    reference = read_view((_labelled(images) or images)[-1].image)
    corner = reference.ground(col, row)
    shape = min(found.tile_size, reference.shape[0]), min(found.tile_size, reference.shape[1])
    shown = [images[i] for i in _spread(len(images), MONTHS)]
    title = f"{short_name(images[0].image.scene)} through its months ({len(shown)} of {len(images)})"
    figure, axes = new_sheet(len(shown), 4, title, head=0.4)
    for panel, image in zip(axes, shown, strict=True):
        view = read_view(image.image)
        rgb = _same_ground(view, reference, corner, shape)
        about = f"scene: {image.footprints:,} footprints" if image.labelled else _without_labels(found, image)
        unusable = f" · {image.unusable_share:.0%} unusable" * (image.unusable_share >= 0.005)
        show(panel, rgb, f"{image.image.date}{unusable}\n{about}")
        scale_bar(panel, view.ground_m)
    _add_key(figure, {"beyond the image": GREY})
    save(figure, path)


def draw_footprints(found: Surveyed, path: Path) -> None:
    """Write an image of about the median building share, and of its fullest tile the mask and the outlines."""
    seen = [image for image in found.labelled if image.valid]
    ranked = sorted(seen, key=lambda image: image.building / image.valid)
    image = ranked[len(ranked) // 2]
    tile = max(image.tiles, key=lambda tile: tile.building)
    view = read_view(image.image)
    title = f"{short_name(image.image.scene)}, {image.image.date}: {image.footprints:,} footprints"
    figure, (whole, close, mask, outlines) = new_sheet(4, 2, title, head=0.2)
    show(whole, view.rgb, f"whole image, {_size(view.shape)}")
    pixels, labels = _cut(view, tile, found.tile_size)
    corner = tile.col - 0.5, tile.row - 0.5
    whole.add_patch(Rectangle(corner, labels.shape[2], labels.shape[1], fill=False, color=_OUTLINE, linewidth=2))
    show(close, pixels, f"the framed tile, {_size(labels.shape[1:])}")
    show(mask, labels, f"its mask, {_built(tile)}")
    show(outlines, pixels, "its footprints")
    _draw_outlines(outlines, view, tile)
    for panel in (whole, close, outlines):
        scale_bar(panel, view.ground_m)
    _add_key(figure, MASK_KEY)
    save(figure, path)


def draw_tiles(found: Surveyed, path: Path, seed: int) -> None:
    """Write up to eight tiles that `seed` draws from all with a valid pixel, each beside its mask."""
    tiles = found.tiles
    chosen = np.random.default_rng(seed).permutation(len(tiles))[:TILES]
    title = f"Random tiles beside their masks ({len(chosen)} of {len(tiles):,}, seed {seed})"
    figure, axes = new_sheet(2 * len(chosen), 4, title, head=0.4)
    for number, index in enumerate(chosen):
        image, tile = tiles[index]
        view = read_view(image.image)
        pixels, labels = _cut(view, tile, found.tile_size)
        show(axes[2 * number], pixels, f"{short_name(image.image.scene)}\n{image.image.date}")
        scale_bar(axes[2 * number], view.ground_m)
        show(axes[2 * number + 1], labels, f"row {tile.row}, column {tile.col}\n{_built(tile)}")
    _add_key(figure, MASK_KEY)
    save(figure, path)


def _spread(count: int, most: int) -> list[int]:
    """Return at most `most` of the indices below `count`, evenly spread, with the first and the last."""
    return sorted(set(np.linspace(0, count - 1, min(count, most)).round().astype(int).tolist()))


def _labelled(images: Sequence[ImageNumbers]) -> list[ImageNumbers]:
    return [image for image in images if image.labelled]


def _growth(images: Sequence[ImageNumbers]) -> tuple[int, int, int]:
    """Return how many building pixels a tile gained at most from the first to the last image, its row and column.

    Only labelled images count; the tiles of one image, or of two of different sizes, gain all that they have.
    """
    labelled = _labelled(images)
    if not labelled:
        return 0, 0, 0
    first, last = labelled[0], labelled[-1]
    same = first is not last and first.shape == last.shape
    before = {tile[:2]: tile.building for tile in first.tiles} if same else {}
    return max((tile.building - before.get(tile[:2], 0), tile.row, tile.col) for tile in last.tiles)


def _same_ground(
    view: View, reference: View, corner: tuple[float, float], shape: tuple[int, int]
) -> npt.NDArray[np.uint8]:
    """Return what an image shows of another's `shape` (height, width) pixels from `corner`, in its units, on."""
    places = view.pixel(*corner, reference.crs)
    scale = reference.ground_m / view.ground_m
    height, width = (max(1, round(scale * length)) for length in shape)
    if not np.isfinite(places).all():
        return np.full((3, height, width), INVALID, np.uint8)
    left, top = (round(place) for place in places)
    return crop(view.rgb, top, left, (height, width), outside=INVALID)


def _cut(view: View, tile: TileNumbers, size: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Return a tile's image and its mask, both uint8 RGB (3, h, w), smaller than `size` where the image is."""
    window = slice(tile.row, tile.row + size), slice(tile.col, tile.col + size)
    return view.rgb[:, *window], mask_picture(view.mask[window], view.valid[window])


def _draw_outlines(axes: Axes, view: View, tile: TileNumbers) -> None:
    # imshow puts the middle of the first pixel at 0; its corner is at -0.5
    rings = [ring - (tile.col + 0.5, tile.row + 0.5) for ring in view.outlines()]
    axes.add_collection(LineCollection(rings, colors=_OUTLINE, linewidths=0.8), autolim=False)


def _without_labels(found: Surveyed, image: ImageNumbers) -> str:
    return "unlabelled" if image.image.scene in found.training else "to predict"


def _built(tile: TileNumbers) -> str:
    return f"{tile.share:.1%} building" if tile.building else "no building"


def _size(shape: Sequence[int]) -> str:
    return f"{shape[0]} × {shape[1]} px (height × width)"


def _add_key(figure: Figure, colours: dict[str, str]) -> None:
    """Say below all panels what colours mean."""
    patches = [Patch(facecolor=colour, edgecolor="0.4", label=name) for name, colour in colours.items()]
    figure.legend(handles=patches, loc="outside lower center", ncols=len(patches), fontsize=FONT, frameon=False)
