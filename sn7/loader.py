"""Prepared arrays + split + configuration → batches on the device.

Tiles are cut out of the memory maps batch by batch, cross to the device as uint8, and are scaled and augmented
there, whole batches at a time.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from fastai.torch_core import TensorImage, TensorMask
from fastai.vision.augment import Brightness, Contrast, Dihedral, Rotate, Saturation, setup_aug_tfms
from fasttransform import Pipeline
from torch import Tensor

from sn7.config import TrainConfig
from sn7.errors import SplitInvalid
from sn7.folds import Split
from sn7.losses import IGNORE
from sn7.prepared import MASK, RGB, VALID, Prepared, PreparedImage
from sn7.unet import normalize

__all__ = [
    "Tile",
    "TileLoader",
    "augmentation",
    "loaders",
    "round_up",
    "tile_starts",
    "training_tiles",
    "validation_tiles",
]

Augmentation = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


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


def _grid(image: PreparedImage, size: int, overlap: int, slack: int, once: bool) -> Iterator[Tile]:
    rows = tile_starts(image.height, size, overlap, slack)
    cols = tile_starts(image.width, size, overlap, slack)
    for row, row_end in zip(rows, [0, *(start + size for start in rows)], strict=False):
        for col, col_end in zip(cols, [0, *(start + size for start in cols)], strict=False):
            yield Tile(image, row, col, size, row_end if once else row, col_end if once else col)


def training_tiles(prepared: Prepared, scenes: Iterable[str], config: TrainConfig) -> list[Tile]:
    """Return the training tiles of the scenes: all with a valid pixel, or with a building if `undersample`.

    A remainder narrower than a sixty-fourth of a tile is dropped, as the notebook drops 4 of 1,024 px at 255 px
    a tile. Raises SplitInvalid where nothing is left.
    """
    tiles = []
    for image in _images(prepared, scenes, config.images_per_scene):
        array = prepared.pixels(image)
        wanted = (array[MASK] & array[VALID]) if config.undersample else array[VALID]
        for tile in _grid(image, config.tile_size, config.tile_overlap, config.tile_size // 64 + 1, once=False):
            if wanted[tile.row : tile.row + tile.size, tile.col : tile.col + tile.size].any():
                tiles.append(tile)
    if not tiles:
        raise SplitInvalid(
            f"no training tile {'with a building' if config.undersample else 'with a valid pixel'} in "
            f"{', '.join(scenes)}; wanted at least one: choose other scenes or set undersample = false."
        )
    return tiles


def validation_tiles(prepared: Prepared, scenes: Iterable[str], config: TrainConfig) -> list[Tile]:
    """Return tiles that cover every pixel of the validation images once, all of one size.

    Their side is tile_size rounded up to a multiple of 32 (255 → 256: 1,024 px are 4 × 4 tiles).
    """
    size = round_up(config.tile_size)
    images = _images(prepared, scenes, config.validation_images)
    return [tile for image in images for tile in _grid(image, size, 0, 0, once=True)]


def _images(prepared: Prepared, scenes: Iterable[str], count: int) -> list[PreparedImage]:
    return [image for scene in scenes for image in prepared.scene_images(scene, count)]


def cut(array: npt.NDArray[np.uint8], tile: Tile) -> npt.NDArray[np.uint8]:
    """Return a tile of a prepared array, uint8 (5, size, size); what the tile does not own is invalid."""
    out = np.zeros((array.shape[0], tile.size, tile.size), np.uint8)
    part = array[:, tile.row : tile.row + tile.size, tile.col : tile.col + tile.size]
    out[:, : part.shape[1], : part.shape[2]] = part
    out[VALID, : tile.new_row - tile.row] = 0
    out[VALID, :, : tile.new_col - tile.col] = 0
    return out


class TileLoader:
    """Batches of tiles: float (N, 3, size, size) normalised, channels last; target int64 (N, size, size).

    A fresh order each pass where `shuffle`; the last, smaller batch is dropped there, unless it is the only one,
    because batch normalisation over one or two tiles harms the weights.
    """

    def __init__(
        self,
        prepared: Prepared,
        tiles: list[Tile],
        batch_size: int,
        device: torch.device,
        augment: Augmentation | None = None,
        shuffle: bool = False,
        seed: int = 0,
    ) -> None:
        self.tiles, self.batch_size, self.device = tiles, batch_size, device
        self.augment, self.shuffle = augment, shuffle
        self.order = np.random.default_rng(seed)
        self.arrays = {tile.image.array: prepared.pixels(tile.image) for tile in tiles}

    def __len__(self) -> int:
        if self.shuffle:
            return max(1, len(self.tiles) // self.batch_size)
        return -(-len(self.tiles) // self.batch_size)

    def to(self, device: torch.device) -> "TileLoader":
        """Send later batches to `device` (fastai calls this)."""
        self.device = device
        return self

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        order = self.order.permutation(len(self.tiles)) if self.shuffle else np.arange(len(self.tiles))
        for i in range(len(self)):
            yield self._batch([self.tiles[k] for k in order[i * self.batch_size : (i + 1) * self.batch_size]])

    def _batch(self, tiles: list[Tile]) -> tuple[Tensor, Tensor]:
        stack = torch.from_numpy(np.stack([cut(self.arrays[tile.image.array], tile) for tile in tiles]))
        if self.device.type == "cuda":
            stack = stack.pin_memory()
        stack = stack.to(self.device, non_blocking=True)
        rgb = stack[:, RGB].float() / 255
        target = torch.where(stack[:, VALID] > 0, stack[:, MASK].long(), IGNORE)
        if self.augment:
            rgb, target = self.augment(rgb, target)
        return normalize(rgb).contiguous(memory_format=torch.channels_last), target


def augmentation(config: TrainConfig) -> Augmentation | None:
    """Return the batch-wise augmentation of a configuration, or None where all of it is switched off.

    It takes RGB float (N, 3, H, W) in [0, 1] and the target, and returns both. Geometry is drawn per tile and
    applied in one resampling: bilinear for the image, nearest for the target, reflected at the border.
    """
    transforms = []
    if config.dihedral > 0:
        transforms.append(Dihedral(p=config.dihedral))
    if config.rotate > 0:
        transforms.append(Rotate(max_deg=180, p=config.rotate))
    for kind, strength in (
        (Brightness, config.brightness),
        (Contrast, config.contrast),
        (Saturation, config.saturation),
    ):
        if strength > 0:
            transforms.append(kind(max_lighting=strength))
    if not transforms:
        return None
    pipeline = Pipeline(setup_aug_tfms(transforms), split_idx=0)

    def augment(rgb: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        image, mask = pipeline((TensorImage(rgb), TensorMask(target)))
        return image.as_subclass(Tensor), mask.as_subclass(Tensor).long()

    return augment


def loaders(
    config: TrainConfig, prepared: Prepared, split: Split, device: torch.device
) -> tuple[TileLoader, TileLoader]:
    """Return the training and the validation loader of a split.

    Raises SplitInvalid where either has no tile.
    """
    training = training_tiles(prepared, split.training, config)
    validation = validation_tiles(prepared, split.validation, config)
    if not validation:
        raise SplitInvalid(f"split {split.name} has no labelled image in its validation scenes; choose other scenes.")
    batch = config.batch_size
    return (
        TileLoader(prepared, training, batch, device, augmentation(config), shuffle=True, seed=config.seed),
        TileLoader(prepared, validation, batch, device),
    )
