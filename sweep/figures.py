"""What the ensemble predicts best, middling and worst, out of fold: crops of images, for report and figures/."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from sn7.metrics import Counts
from sn7.panels import TilePicture
from sn7.prepared import MASK, RGB, VALID, Prepared, PreparedImage
from sn7.tilesheet import choose_tiles
from sweep.oof import Weights
from sweep.scoring import FoldScore, OutOfFold

__all__ = ["out_of_fold_pictures"]

CROP = 256
"""Side of the crops, px: a building is a few pixels wide."""
Probs = Callable[[Weights, PreparedImage], npt.NDArray[np.float32]]
"""Returns an image's out-of-fold probs, float32 (height, width), in the mean with these weights."""


def out_of_fold_pictures(scored: OutOfFold, probs: Probs, prepared: Prepared) -> list[TilePicture]:
    """Return crops of the scenes with the highest Dice, around the median, and the lowest, two of each at most.

    Of a scene its most built-up image, and of that the crop with the most building pixels. Scenes without a building
    are left out: Dice says nothing there. Weights and threshold are, like Dice, those fitted on the other folds.
    """
    shown = [
        (max(scene.images, key=lambda known: known[0].building_share)[0], fold, counts)
        for fold in scored.folds
        for scene in fold.scenes
        if scene.images
        for counts in [scene.curve.counts(fold.threshold)]
    ]
    chosen = choose_tiles([counts for *_, counts in shown])
    return [_picture(kind, *shown[index], probs, prepared) for kind, those in chosen.items() for index in those]


def _picture(
    kind: str, image: PreparedImage, fold: FoldScore, counts: Counts, probs: Probs, prepared: Prepared
) -> TilePicture:
    pixels = prepared.pixels(image)
    rows, cols = _densest(pixels[MASK] * pixels[VALID])
    valid = pixels[VALID, rows, cols] > 0
    crop = np.where(valid, probs(fold.weights, image)[rows, cols], np.float32(np.nan))
    title = f"{kind}: {image.scene}, Dice {counts.dice:.3f}; a crop of {image.date}"
    return TilePicture(title, pixels[RGB, rows, cols], pixels[MASK, rows, cols] * valid, crop, fold.threshold)


def _densest(mask: npt.NDArray[np.uint8]) -> tuple[slice, slice]:
    """Return the crop with the most building pixels, on a grid of half crops that ends at the image's own end."""
    last = [max(0, length - CROP) for length in mask.shape]
    starts = [[*range(0, end, CROP // 2), end] for end in last]
    corners = [(row, col) for row in starts[0] for col in starts[1]]
    row, col = max(corners, key=lambda at: int(mask[at[0] : at[0] + CROP, at[1] : at[1] + CROP].sum()))
    return slice(row, row + CROP), slice(col, col + CROP)
