"""The pictures of a study, in results/<study>/figures."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sn7.figures import learning_curves, triptych
from sn7.folds import Split
from sn7.prepared import MASK, RGB, VALID, Prepared
from sweep.leaderboard import Row
from sweep.oof import Weights, labelled_images, mean_probs
from sweep.trial import split_folder

__all__ = ["draw_curves", "draw_folds"]

CROP = 300
"""Side of the crops that are shown beside each other, px."""
Curves = dict[str, list[tuple[int, float]]]


def draw_curves(rows: Sequence[Row], split: str, results: Path) -> Path:
    """Draw loss and Dice of all trials on their first split; the best one's and the notebook recipe's stand out."""
    loss: Curves = {}
    dice: Curves = {}
    highlight = set()
    for row in rows:
        history = _history(split_folder(results, row["trial"], split) / "history.csv")
        if history:
            name = f"trial {row['trial']}" + (" (notebook recipe)" if row["recipe"] else "")
            loss[name] = [(int(epoch["epoch"]), float(epoch["valid_loss"])) for epoch in history]
            dice[name] = [(int(epoch["epoch"]), float(epoch["dice"])) for epoch in history]
            if row["recipe"] or row["rank"] == 1:
                highlight.add(name)
    path = results / "figures" / "learning_curves.png"
    learning_curves(loss, dice, path, highlight)
    return path


def _history(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def draw_folds(weights: Weights, splits: Sequence[Split], prepared: Prepared, results: Path) -> list[Path]:
    """Draw image, mask and the ensemble's out-of-fold probs of the most built-up image of each fold."""
    paths = []
    for split in splits:
        image = max(labelled_images(prepared, split), key=lambda image: image.building_share)
        pixels = prepared.pixels(image)
        probs = mean_probs(weights, results, image)
        probs[pixels[VALID] == 0] = np.nan
        rows, cols = _densest(pixels[MASK])
        path = results / "figures" / f"out_of_fold_{split.name}.png"
        triptych(pixels[RGB, rows, cols], pixels[MASK, rows, cols], probs[rows, cols], path)
        paths.append(path)
    return paths


def _densest(mask: npt.NDArray[np.uint8]) -> tuple[slice, slice]:
    """Return the crop with the most building pixels, on a grid of half crops."""
    starts = [range(0, max(1, length - CROP + 1), CROP // 2) for length in mask.shape]
    corners = [(row, col) for row in starts[0] for col in starts[1]]
    row, col = max(corners, key=lambda at: int(mask[at[0] : at[0] + CROP, at[1] : at[1] + CROP].sum()))
    return slice(row, row + CROP), slice(col, col + CROP)
