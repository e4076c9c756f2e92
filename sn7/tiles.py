"""Scenes + configuration → tiles: which images are trained on, and which crops of them.

Numbers and numpy alone: a plan, a picture or a measurement asks for tiles without loading torch.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sn7.config import TrainConfig
from sn7.errors import SplitInvalid
from sn7.prepared import MASK, VALID, Prepared, PreparedImage

__all__ = [
    "Sampling",
    "Tile",
    "around_building",
    "cut",
    "round_up",
    "sampling",
    "tile_starts",
    "training_images",
    "training_slack",
    "training_tiles",
    "validation_tiles",
]


@dataclass(frozen=True)
class Tile:
    """A square crop: pixels [row, row + size) × [col, col + size) of an image.

    Rows and columns before `new_row` and `new_col` belong to an earlier tile and count as invalid, so that
    validation counts each pixel once; parts outside the image are invalid too.
    """

    image: PreparedImage
    row: int
    col: int
    size: int
    new_row: int
    new_col: int


@dataclass(frozen=True)
class Sampling:
    """What a training sees of its scenes, and how much of them it does not."""

    images: int
    """Images that tiles are cut from."""
    labelled: int
    """Labelled images of the scenes, used or not."""
    tiles_left_out: int
    """Tiles of these images without a building, or with `undersample` off without a valid pixel."""


def round_up(size: int, multiple: int = 32) -> int:
    """Return the smallest multiple that is at least `size`: what an encoder of 5 halvings takes without padding."""
    return -(-size // multiple) * multiple


def tile_starts(length: int, size: int, overlap: int, slack: int) -> list[int]:
    """Return the first pixels of tiles along an axis of `length` px.

    Neighbours share `overlap` px; a remainder of at most `slack` px is dropped, a larger one gets a last tile
    that ends at the border. An axis shorter than a tile has one tile, from 0.
    """
    stride = size - overlap
    count = max(1, -(-(length - overlap - slack) // stride))
    return [max(0, min(i * stride, length - size)) for i in range(count)]


def training_slack(size: int) -> int:
    """Return the widest remainder, px, that training drops: at 255 px a tile the notebook drops 4 of 1,024."""
    return size // 64 + 1


def _grid(image: PreparedImage, size: int, overlap: int, slack: int, once: bool) -> Iterator[Tile]:
    rows = tile_starts(image.height, size, overlap, slack)
    cols = tile_starts(image.width, size, overlap, slack)
    for row, row_end in zip(rows, [0, *(start + size for start in rows)], strict=False):
        for col, col_end in zip(cols, [0, *(start + size for start in cols)], strict=False):
            yield Tile(image, row, col, size, row_end if once else row, col_end if once else col)


def training_images(prepared: Prepared, scenes: Iterable[str], config: TrainConfig) -> list[PreparedImage]:
    """Return the images that training tiles are cut from: `images_per_scene` by `image_selection`."""
    count = None if config.image_selection == "all" else config.images_per_scene
    spread = config.image_selection == "spread"
    return [image for scene in scenes for image in prepared.scene_images(scene, count, spread)]


def training_tiles(prepared: Prepared, scenes: Iterable[str], config: TrainConfig) -> list[Tile]:
    """Return the training tiles of the scenes: all with a valid pixel, or with a building if `undersample`.

    Raises SplitInvalid where nothing is left.
    """
    scenes, tiles = list(scenes), []
    for image in training_images(prepared, scenes, config):
        array = prepared.pixels(image)
        wanted = (array[MASK] & array[VALID]) if config.undersample else array[VALID]
        for tile in _training_grid(image, config):
            if wanted[tile.row : tile.row + tile.size, tile.col : tile.col + tile.size].any():
                tiles.append(tile)
    if not tiles:
        raise SplitInvalid(
            f"no training tile {'with a building' if config.undersample else 'with a valid pixel'} in "
            f"{', '.join(scenes)}; wanted at least one: choose other scenes or set undersample = false."
        )
    return tiles


def sampling(prepared: Prepared, scenes: Iterable[str], config: TrainConfig, tiles: int) -> Sampling:
    """Return what `tiles` training tiles of the scenes were taken from; reads no pixels."""
    scenes = list(scenes)
    images = training_images(prepared, scenes, config)
    labelled = sum(len(prepared.scene_images(scene)) for scene in scenes)
    every = sum(1 for image in images for _ in _training_grid(image, config))
    return Sampling(len(images), labelled, every - tiles)


def _training_grid(image: PreparedImage, config: TrainConfig) -> Iterator[Tile]:
    return _grid(image, config.tile_size, config.tile_overlap, training_slack(config.tile_size), once=False)


def validation_tiles(prepared: Prepared, scenes: Iterable[str], config: TrainConfig) -> list[Tile]:
    """Return tiles that cover every pixel of the validation images once, all of one size.

    Their side is tile_size rounded up to a multiple of 32 (255 → 256: 1,024 px are 4 × 4 tiles).
    """
    size = round_up(config.tile_size)
    images = [image for scene in scenes for image in prepared.scene_images(scene, config.validation_images)]
    return [tile for image in images for tile in _grid(image, size, 0, 0, once=True)]


def cut(array: npt.NDArray[np.uint8], tile: Tile) -> npt.NDArray[np.uint8]:
    """Return a tile of a prepared array, uint8 (channels, size, size); what the tile does not own is invalid."""
    out = np.zeros((array.shape[0], tile.size, tile.size), np.uint8)
    part = array[:, tile.row : tile.row + tile.size, tile.col : tile.col + tile.size]
    out[:, : part.shape[1], : part.shape[2]] = part
    out[VALID, : tile.new_row - tile.row] = 0
    out[VALID, :, : tile.new_col - tile.col] = 0
    return out


def around_building(array: npt.NDArray[np.uint8], tile: Tile, order: np.random.Generator) -> Tile:
    """Return a crop of the tile's size around one of its building pixels, drawn from `order`, inside the image.

    The pixel is the centre, but near the image's border. A tile without a building stays as it is.
    """
    part = cut(array, tile)
    places = np.flatnonzero(part[MASK] & part[VALID])
    if not len(places):
        return tile
    row, col = np.unravel_index(order.choice(places), part.shape[1:])
    top = tile.row + int(row) - tile.size // 2
    left = tile.col + int(col) - tile.size // 2
    height, width = array.shape[1:]
    top, left = max(0, min(top, height - tile.size)), max(0, min(left, width - tile.size))
    return Tile(tile.image, top, left, tile.size, top, left)
