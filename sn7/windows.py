"""Images of any size through a network: overlapping windows, blended without a seam. numpy and torch only.

Windows step over the image padded by reflection, so pixels at its border see as much context as any. Where
two windows overlap, one fades out as the other fades in; the weights of each pixel are divided by their sum.
"""

import math
from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

__all__ = ["Predictor", "predict_array", "predict_strips"]

Rows = Callable[[int, int], npt.NDArray[np.uint8]]
"""Called as read(first row, row after the last); returns uint8 (3, rows, width)."""


class Predictor(Protocol):
    """What turns RGB into probs; `sn7.ensemble.load_predictor` makes one."""

    @property
    def name(self) -> str:
        """What the model is called in files and records."""

    @property
    def threshold(self) -> float:
        """Probs from here on are building, 0 to 1."""

    @property
    def window(self) -> int:
        """Preferred side of a window in pixels, a multiple of 32."""

    def probs(self, batch: torch.Tensor) -> torch.Tensor:
        """Return float32 (n, h, w) from uint8 RGB (n, 3, h, w), both on the CPU; h and w multiples of 32."""


def predict_strips(
    read: Rows, height: int, width: int, predictor: Predictor, overlap: float = 0.125, batch_size: int = 4
) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
    """Yield (first row, probs float32 (rows, width)) from top to bottom, each row of the image once.

    `overlap` is the share of a window's side, 0 to 0.5, that neighbouring windows have in common at least;
    `batch_size` is the number of windows that go through the network at once. Held in memory are a few arrays
    of one window's height by the image's width, whatever its height.
    """
    fade = int(predictor.window * overlap)
    tops, tall = _layout(height, predictor.window, fade)
    lefts, wide = _layout(width, predictor.window, fade)
    columns = _reflect(np.arange(lefts[0], lefts[-1] + wide), width)
    row_shares, column_shares = _shares(tops, tall, fade), _shares(lefts, wide, fade)
    unfinished = np.zeros((tall, width), np.float32)  # its first row is row `top` of the image
    for index, top in enumerate(tops):
        rows = _reflect(np.arange(top, top + tall), height)
        band = read(int(rows.min()), int(rows.max()) + 1)[:, rows - rows.min()][:, :, columns]
        blended = _predict_band(band, lefts - lefts[0], column_shares, predictor, batch_size)
        unfinished += row_shares[index][:, None] * blended[:, -lefts[0] : width - lefts[0]]
        done = tall if index == len(tops) - 1 else int(tops[index + 1] - top)
        strip = unfinished[max(-top, 0) : min(done, height - top)]
        if len(strip):  # none where the next window starts before the image does
            yield max(int(top), 0), strip.clip(0, 1)  # rounding of the shares may lead out by 1e-7
        unfinished = np.concatenate([unfinished[done:], np.zeros((done, width), np.float32)])


def predict_array(
    rgb: npt.NDArray[np.uint8], predictor: Predictor, overlap: float = 0.125, batch_size: int = 4
) -> npt.NDArray[np.float32]:
    """Return probs float32 (h, w) of a whole image, uint8 RGB (3, h, w); see `predict_strips`."""
    _, height, width = rgb.shape
    strips = predict_strips(lambda first, last: rgb[:, first:last], height, width, predictor, overlap, batch_size)
    return np.concatenate([probs for _, probs in strips])


def _predict_band(
    band: npt.NDArray[np.uint8],
    lefts: npt.NDArray[np.int64],
    shares: list[npt.NDArray[np.float32]],
    predictor: Predictor,
    batch_size: int,
) -> npt.NDArray[np.float32]:
    """Return probs float32 (h, w) of one row of windows, uint8 (3, h, w), blended from left to right."""
    blended = np.zeros(band.shape[1:], np.float32)
    wide = len(shares[0])
    for first in range(0, len(lefts), batch_size):
        chosen = range(first, min(first + batch_size, len(lefts)))
        windows = np.stack([band[:, :, lefts[i] : lefts[i] + wide] for i in chosen])
        for i, probs in zip(chosen, predictor.probs(torch.from_numpy(windows)).numpy(), strict=True):
            blended[:, lefts[i] : lefts[i] + wide] += shares[i] * probs
    return blended


def _layout(length: int, window: int, fade: int) -> tuple[npt.NDArray[np.int64], int]:
    """Return where the windows along one axis start, evenly spread and the first ≤ 0, and how long each is.

    Half a fade is padded at either end. Of the fewest windows that cover the axis, the smallest size is taken, a
    multiple of 32: windows of the full size would overlap by more than they need to.
    """
    padded = length + 2 * (fade // 2)
    count = max(1, math.ceil((padded - fade) / (window - fade)))
    size = math.ceil((padded + (count - 1) * fade) / count / 32) * 32
    if count == 1:
        return np.array([(length - size) // 2]), size
    return np.linspace(-(fade // 2), length + fade // 2 - size, count).round().astype(np.int64), size


def _shares(starts: npt.NDArray[np.int64], size: int, fade: int) -> list[npt.NDArray[np.float32]]:
    """Return the share of each window in the pixels that it covers along one axis; they sum to 1 everywhere.

    Before the division by their sum, weights are 1 but for a raised cosine over `fade` pixels at either end.
    That limits the change between neighbouring pixels to π / (2 · fade) of the windows' disagreement.
    """
    distance = np.minimum(np.arange(size), np.arange(size)[::-1]) + 0.5
    weight = np.sin(np.pi / 2 * np.minimum(distance / max(fade, 1), 1)) ** 2
    total = np.zeros(starts[-1] - starts[0] + size)
    for start in starts - starts[0]:
        total[start : start + size] += weight
    return [(weight / total[start : start + size]).astype(np.float32) for start in starts - starts[0]]


def _reflect(index: npt.NDArray[np.int64], length: int) -> npt.NDArray[np.int64]:
    """Map positions outside 0 … length - 1 inside, as if by mirrors on the border pixels, however far out."""
    if length == 1:
        return np.zeros_like(index)
    folded = np.abs(index) % (2 * length - 2)
    return np.minimum(folded, 2 * length - 2 - folded)
