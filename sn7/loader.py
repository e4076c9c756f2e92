"""Prepared arrays + split + configuration → batches on the device.

Tiles are cut out of the memory maps batch by batch, cross to the device as uint8, and are scaled and augmented
there, whole batches at a time.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sn7.augment import Augmentation, augmentation, enlarge
from sn7.config import TrainConfig
from sn7.errors import SplitInvalid
from sn7.files import allow_open_files
from sn7.folds import Split
from sn7.losses import IGNORE
from sn7.prepared import MASK, RGB, SEPARATION, VALID, Prepared, fine_window
from sn7.tiles import Tile, around_building, cut, training_tiles, validation_tiles
from sn7.unet import normalize

__all__ = ["TileLoader", "loaders", "network_input"]

Array = npt.NDArray[np.uint8]


class TileLoader:
    """Batches of tiles: RGB float (N, 3, H, W) normalised, channels last; target int64 (N, H, W) as `losses` has it.

    H = W = tile size × `upscale`. For training that is a batch, in a fresh order each pass and augmented; the last,
    smaller one is dropped, unless it is the only one, because batch normalisation over one or two tiles harms the
    weights. In validation a third part follows, the target on the image's own grid, at which metrics are counted.
    A batch of more than `micro_batch` tiles (`batch_size`, if none is given) comes in pieces of about the same size,
    one after the other.
    """

    n_inp = 1
    """Parts of a batch that the model takes (fastai asks for it)."""

    def __init__(
        self,
        prepared: Prepared,
        tiles: list[Tile],
        config: TrainConfig,
        device: torch.device,
        training: bool,
        micro_batch: int | None = None,
    ) -> None:
        self.tiles, self.config, self.device, self.training = tiles, config, device, training
        self.augment = augmentation(config) if training else None
        self.order = np.random.default_rng(config.seed)
        self.began: Any = self.order.bit_generator.state
        """State of `order` before this pass, or between two before the next one."""
        self.skipped = 0
        images = {tile.image.array: tile.image for tile in tiles}
        self.arrays = {path: prepared.pixels(image) for path, image in images.items()}
        self.fine = (
            {path: prepared.fine_labels(image, config.upscale) for path, image in images.items()}
            if config.upscale > 1
            else {}
        )
        self.scenes = sorted({image.scene for image in images.values()})
        self.batch_tiles = min(config.batch_size, len(tiles))
        """Tiles of a whole batch."""
        self.pass_tiles = len(tiles) // self.batch_tiles * self.batch_tiles if training else len(tiles)
        """Tiles of one pass."""
        self.pieces = _pieces(self.pass_tiles, self.batch_tiles, micro_batch or config.batch_size)

    def __len__(self) -> int:
        return len(self.pieces)

    def to(self, device: torch.device) -> "TileLoader":
        """Send later batches to `device` (fastai calls this)."""
        self.device = device
        return self

    def skip(self, tiles: int) -> float:
        """Begin the next pass behind so many tiles, which are whole batches; return their share of its pieces."""
        self.skipped = tiles
        return sum(int(piece[0]) < tiles for piece in self.pieces) / len(self)

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        skipped, self.skipped = self.skipped, 0
        self.began = self.order.bit_generator.state  # which a checkpoint may have set meanwhile
        order = self.order.permutation(len(self.tiles)) if self.training else np.arange(len(self.tiles))
        for piece in self.pieces:
            tiles = [self.tiles[k] for k in order[piece]]
            if self.training and self.config.tile_placement == "buildings":
                tiles = [around_building(self.arrays[tile.image.array], tile, self.order) for tile in tiles]
            if piece[0] >= skipped:
                yield self.batch(tiles)
        self.began = self.order.bit_generator.state

    def batch(self, tiles: list[Tile]) -> tuple[Tensor, ...]:
        """Return images and targets of the tiles, augmented in training, else with the targets on the native grid."""
        upscale, parts = self.config.upscale, [cut(self.arrays[tile.image.array], tile) for tile in tiles]
        labels = self._native_labels(parts) if upscale == 1 else self._fine_labels(tiles, parts)
        rgb, target = self._send(np.stack([part[RGB] for part in parts])), self._send(labels).long()
        rgb, target = network_input(rgb, target, self.augment, upscale)
        if self.training:
            return rgb, target
        return rgb, target, target if upscale == 1 else self._send(self._native_labels(parts)).long()

    def _native_labels(self, parts: list[Array]) -> Array:
        """Return the labels of tiles on the image's own grid, uint8 (N, h, w)."""
        return np.stack([self._labels(part[MASK:VALID], part[SEPARATION], part[VALID]) for part in parts])

    def _fine_labels(self, tiles: list[Tile], parts: list[Array]) -> Array:
        """Return the labels of tiles rasterised at `upscale`, uint8 (N, H, W)."""
        scale, labels = self.config.upscale, []
        for tile, part in zip(tiles, parts, strict=True):
            planes = fine_window(self.fine[tile.image.array], scale, tile.row, tile.col, tile.size)
            valid = part[VALID].repeat(scale, axis=0).repeat(scale, axis=1)
            labels.append(self._labels(planes[:1], planes[1:], valid))
        return np.stack(labels)

    def _labels(self, mask: Array, separation: Array, valid: Array) -> Array:
        """Return a tile's labels in one plane, uint8 (h, w): see sn7.losses for its bits."""
        labels = mask[0].copy()
        if self.config.separation_weight > 0:
            labels |= (separation[0] << 1) | (separation[1] << 2)
        labels[valid == 0] = IGNORE
        return labels

    def _send(self, array: Array) -> Tensor:
        tensor = torch.from_numpy(array)
        return (tensor.pin_memory() if self.device.type == "cuda" else tensor).to(self.device, non_blocking=True)


def network_input(rgb: Tensor, target: Tensor, augment: Augmentation | None, upscale: int) -> tuple[Tensor, Tensor]:
    """Return images, uint8 (N, 3, h, w), and int64 targets, `upscale` times as large, as the network takes them."""
    rgb = rgb.float() / 255
    rgb, target = augment(rgb, target) if augment else (enlarge(rgb, upscale), target)
    return normalize(rgb).contiguous(memory_format=torch.channels_last), target


def _pieces(tiles: int, batch: int, most: int) -> list[npt.NDArray[np.int64]]:
    """Return the places of a pass's tiles, piece by piece: at most `most`, and none across two batches."""
    batches = [np.arange(start, min(start + batch, tiles)) for start in range(0, tiles, batch)]
    return [piece for places in batches for piece in np.array_split(places, -(-len(places) // most))]


def loaders(
    config: TrainConfig, prepared: Prepared, split: Split, device: torch.device, micro_batch: int | None = None
) -> tuple[TileLoader, TileLoader]:
    """Return the training and the validation loader of a split, with at most `micro_batch` tiles in a piece.

    Raises SplitInvalid where either has no tile, PreparedInvalid where the set lacks the labels that `upscale` or
    `separation_weight` ask for.
    """
    allow_open_files()
    upscales = (config.upscale,) if config.upscale > 1 else ()
    prepared.require_labels(upscales, separation=config.separation_weight > 0)
    training = training_tiles(prepared, split.training, config)
    validation = validation_tiles(prepared, split.validation, config)
    if not validation:
        raise SplitInvalid(f"split {split.name} has no labelled image in its validation scenes; choose other scenes.")
    return (
        TileLoader(prepared, training, config, device, True, micro_batch),
        TileLoader(prepared, validation, config, device, False, micro_batch),
    )
