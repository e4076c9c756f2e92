"""A picture of the validation tiles that a model does best and worst on."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from sn7.loader import TileLoader
from sn7.metrics import Counts
from sn7.panels import TilePicture, tile_sheet
from sn7.prepared import MASK, RGB, VALID
from sn7.tiles import Tile, cut
from sn7.trainloop import autocast

__all__ = ["best_and_worst", "draw_tiles"]

SHOWN = 3
"""Tiles of each kind, at most."""


def best_and_worst(counts: Sequence[Counts]) -> tuple[list[int], list[int]]:
    """Return which tiles have the highest Dice, the best first, and which the lowest, the worst first.

    At most SHOWN of each, none of them twice, and only tiles with a building: without one Dice says nothing.
    """
    built = [index for index, count in enumerate(counts) if count.tp + count.fn > 0]
    ranked = sorted(built, key=lambda index: counts[index].dice, reverse=True)
    best = ranked[: min(SHOWN, -(-len(ranked) // 2))]
    return best, ranked[len(best) :][::-1][:SHOWN]


def draw_tiles(model: nn.Module, validation: TileLoader, counts: Tensor, precision: str, path: Path) -> None:
    """Write the best and the worst validation tiles with the model's probs as PNG, atomically.

    `counts` is int64 (tiles, 3): TP, FP and FN of each tile. Nothing is written where no tile has a building.
    """
    tiles = [Counts(*row) for row in counts.tolist()]
    best, worst = best_and_worst(tiles)
    if not best:
        return
    model.eval()

    def pictures(kind: str, chosen: Sequence[int]) -> list[TilePicture]:
        drawn = []
        for place, index in enumerate(chosen, start=1):
            tile = validation.tiles[index]
            where = f"{tile.image.scene} {tile.image.date}, row {tile.row}, col {tile.col}"
            title = f"{kind} {place}: Dice {tiles[index].dice:.3f}, {where}"
            part = cut(validation.arrays[tile.image.array], tile)
            probs = np.where(part[VALID] > 0, _probs(model, validation, tile, precision), np.float32(np.nan))
            drawn.append(TilePicture(title, part[RGB], part[MASK] * part[VALID], probs))
        return drawn

    tile_sheet(pictures("best", best), pictures("worst", worst), path)


def _probs(model: nn.Module, validation: TileLoader, tile: Tile, precision: str) -> npt.NDArray[np.float32]:
    """Return the probs of one tile, float32 (size, size): one at a time needs the least memory."""
    rgb, _ = validation.batch([tile])
    with torch.no_grad(), autocast(precision, validation.device):
        logits = model(rgb)
    return logits.float().softmax(dim=1)[0, 1].cpu().numpy()
