"""A picture of validation tiles that a model does best, middling and worst on."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from sn7.loader import TileLoader
from sn7.metrics import Counts
from sn7.panels import TilePicture, tile_sheet
from sn7.precision import autocast
from sn7.prepared import MASK, RGB, VALID
from sn7.tiles import Tile, cut
from sn7.trainloop import native_probs

__all__ = ["choose_tiles", "draw_tiles"]

SHOWN = 2
"""Tiles of each kind, at most."""


def choose_tiles(counts: Sequence[Counts]) -> dict[str, list[int]]:
    """Return which tiles have the highest Dice, the best first, those around the median, and the lowest, worst last.

    At most SHOWN of each, none of them twice, and only tiles with a building: without one Dice says nothing.
    """
    built = [index for index, count in enumerate(counts) if count.tp + count.fn > 0]
    ranked = sorted(built, key=lambda index: counts[index].dice, reverse=True)
    shown = min(SHOWN, -(-len(ranked) // 3))
    worst = ranked[max(shown, len(ranked) - shown) :]
    between = ranked[shown : len(ranked) - len(worst)]
    middle = max(0, (len(between) - shown) // 2)
    return {"best": ranked[:shown], "median": between[middle : middle + shown], "worst": worst}


def draw_tiles(model: nn.Module, validation: TileLoader, counts: Tensor, path: Path) -> None:
    """Write the chosen validation tiles with the model's predictions as PNG, atomically.

    `counts` is int64 (tiles, 3): TP, FP and FN of each tile. Nothing is written where no tile has a building.
    """
    tiles = [Counts(*row) for row in counts.tolist()]
    model.eval()
    pictures = [
        _picture(model, validation, validation.tiles[index], f"{kind}: Dice {tiles[index].dice:.3f}")
        for kind, chosen in choose_tiles(tiles).items()
        for index in chosen
    ]
    if pictures:
        tile_sheet(pictures, path)


def _picture(model: nn.Module, validation: TileLoader, tile: Tile, title: str) -> TilePicture:
    part = cut(validation.arrays[tile.image.array], tile)
    probs = np.where(part[VALID] > 0, _probs(model, validation, tile), np.float32(np.nan))
    where = f"{tile.image.scene} {tile.image.date}, row {tile.row}, col {tile.col}"
    return TilePicture(f"{title}, {where}", part[RGB], part[MASK] * part[VALID], probs)


def _probs(model: nn.Module, validation: TileLoader, tile: Tile) -> npt.NDArray[np.float32]:
    """Return the probs of one tile, float32 (size, size): one at a time needs the least memory."""
    rgb, *_ = validation.batch([tile])
    with torch.no_grad(), autocast(validation.config.precision, validation.device):
        logits = model(rgb)
    probs: npt.NDArray[np.float32] = native_probs(logits, validation.config.upscale)[0].cpu().numpy()
    return probs
