"""Prepared arrays + split + configuration → batches on the device.

Tiles are cut out of the memory maps batch by batch, cross to the device as uint8, and are scaled and augmented
there, whole batches at a time.
"""

from collections.abc import Callable, Iterator

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
from sn7.prepared import MASK, RGB, VALID, Prepared
from sn7.tiles import Tile, cut, training_tiles, validation_tiles
from sn7.unet import normalize

__all__ = [
    "TileLoader",
    "augmentation",
    "loaders",
]

Augmentation = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class TileLoader:
    """Batches of tiles: float (N, 3, size, size) normalised, channels last; target int64 (N, size, size).

    A fresh order each pass where `shuffle`; the last, smaller batch is dropped there, unless it is the only one,
    because batch normalisation over one or two tiles harms the weights. A batch of more than `micro_batch` tiles
    (`batch_size`, if none is given) comes in pieces of about the same size, one after the other.
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
        micro_batch: int | None = None,
    ) -> None:
        self.tiles, self.batch_size, self.device = tiles, batch_size, device
        self.augment, self.shuffle = augment, shuffle
        self.order = np.random.default_rng(seed)
        self.arrays = {tile.image.array: prepared.pixels(tile.image) for tile in tiles}
        self.batch_tiles = min(batch_size, len(tiles))
        """Tiles of a whole batch."""
        self.pass_tiles = len(tiles) // self.batch_tiles * self.batch_tiles if shuffle else len(tiles)
        """Tiles of one pass."""
        self.pieces = _pieces(self.pass_tiles, self.batch_tiles, micro_batch or batch_size)

    def __len__(self) -> int:
        return len(self.pieces)

    def to(self, device: torch.device) -> "TileLoader":
        """Send later batches to `device` (fastai calls this)."""
        self.device = device
        return self

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        order = self.order.permutation(len(self.tiles)) if self.shuffle else np.arange(len(self.tiles))
        for piece in self.pieces:
            yield self.batch([self.tiles[k] for k in order[piece]])

    def batch(self, tiles: list[Tile]) -> tuple[Tensor, Tensor]:
        """Return images and targets of the tiles, augmented where the loader does that."""
        stack = torch.from_numpy(np.stack([cut(self.arrays[tile.image.array], tile) for tile in tiles]))
        if self.device.type == "cuda":
            stack = stack.pin_memory()
        stack = stack.to(self.device, non_blocking=True)
        rgb = stack[:, RGB].float() / 255
        target = torch.where(stack[:, VALID] > 0, stack[:, MASK].long(), IGNORE)
        if self.augment:
            rgb, target = self.augment(rgb, target)
        return normalize(rgb).contiguous(memory_format=torch.channels_last), target


def _pieces(tiles: int, batch: int, most: int) -> list[npt.NDArray[np.int64]]:
    """Return the places of a pass's tiles, piece by piece: at most `most`, and none across two batches."""
    batches = [np.arange(start, min(start + batch, tiles)) for start in range(0, tiles, batch)]
    return [piece for places in batches for piece in np.array_split(places, -(-len(places) // most))]


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
    config: TrainConfig, prepared: Prepared, split: Split, device: torch.device, micro_batch: int | None = None
) -> tuple[TileLoader, TileLoader]:
    """Return the training and the validation loader of a split, with at most `micro_batch` tiles in a piece.

    Raises SplitInvalid where either has no tile.
    """
    training = training_tiles(prepared, split.training, config)
    validation = validation_tiles(prepared, split.validation, config)
    if not validation:
        raise SplitInvalid(f"split {split.name} has no labelled image in its validation scenes; choose other scenes.")
    batch, micro = config.batch_size, micro_batch
    return (
        TileLoader(prepared, training, batch, device, augmentation(config), True, config.seed, micro),
        TileLoader(prepared, validation, batch, device, micro_batch=micro),
    )
