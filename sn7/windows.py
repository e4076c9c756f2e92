"""Images of any size through a network: overlapping windows, blended without a seam. numpy and torch only.

Windows step over the image padded by reflection, so pixels at its border see as much context as any. Where
two windows overlap, one fades out as the other fades in; the weights of each pixel are divided by their sum.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from sn7.rules import PolygonRules

__all__ = ["Predictor", "predict_array", "predict_strips"]

Outputs = npt.NDArray[np.float32]
Rows = Callable[[int, int], npt.NDArray[np.uint8]]
"""Called as read(first row, row after the last); returns uint8 (3, rows, width)."""
PIECE = 1 << 20
"""Pixels of outputs that are handed on at a time, about: more are no faster, and each step after takes its copy."""


class Predictor(Protocol):
    """What turns RGB into probs; `sn7.ensemble.load_predictor` makes one."""

    @property
    def name(self) -> str:
        """What the model is called in files and records."""

    @property
    def tags(self) -> Mapping[str, str]:
        """What files that are made with it say of it."""

    @property
    def threshold(self) -> float:
        """Probs from here on are building, 0 to 1."""

    @property
    def rules(self) -> PolygonRules:
        """How its probs become polygons."""

    @property
    def window(self) -> int:
        """Preferred side of a window in pixels, a multiple of 32."""

    @property
    def channels(self) -> int:
        """1, probs alone, or 3, probs, boundary and contact."""

    @property
    def scale(self) -> int:
        """How many times as fine as the image's the grid of the outputs is."""

    def outputs(self, batch: torch.Tensor) -> torch.Tensor:
        """Return float32 (n, channels, scale · h, scale · w), 0 to 1, from uint8 RGB (n, 3, h, w), both on the CPU.

        h and w are multiples of 32.
        """


def predict_strips(
    read: Rows, height: int, width: int, predictor: Predictor, overlap: float = 0.125, batch_size: int = 4
) -> Iterator[tuple[int, Outputs]]:
    """Yield (first row, outputs (channels, rows, scale · width)) from top to bottom, each row of their grid once.

    `overlap` is the share of a window's side, 0 to 0.5, that neighbouring windows have in common at least;
    `batch_size` is the number of windows that go through the network at once, of one row of windows or of several.
    Held in memory are the outputs of one row of windows, whatever the image's height.
    """
    fade, scale = int(predictor.window * overlap), predictor.scale
    tops, tall = _layout(height, predictor.window, fade)
    lefts, wide = _layout(width, predictor.window, fade)
    columns = _reflect(np.arange(lefts[0], lefts[-1] + wide), width)

    def band(top: int) -> npt.NDArray[np.uint8]:
        rows = _reflect(np.arange(top, top + tall), height)
        return read(int(rows.min()), int(rows.max()) + 1)[:, rows - rows.min()][:, :, columns]

    row_shares = _shares(scale * tops, scale * tall, scale * fade)
    column_shares = _shares(scale * lefts, scale * wide, scale * fade)
    windows = _windows(map(band, tops.tolist()), lefts - lefts[0], wide, predictor, batch_size)
    inner = slice(-scale * lefts[0], scale * (width - lefts[0]))
    rows = max(PIECE // (scale * width) // scale, 1) * scale
    unfinished = np.zeros((predictor.channels, scale * tall, scale * len(columns)), np.float32)
    for index, top in enumerate(scale * tops):  # the row, of the outputs' grid, that `unfinished` begins with
        for left, share in zip(scale * (lefts - lefts[0]), column_shares, strict=True):
            unfinished[:, :, left : left + scale * wide] += row_shares[index][:, None] * share * next(windows)
        done = scale * (tall if index == len(tops) - 1 else int(tops[index + 1] - tops[index]))
        first = max(-int(top), 0)
        finished = unfinished[:, first : min(done, scale * height - top), inner]
        for row in range(0, finished.shape[1], rows):  # none where the next window starts before the image does
            yield int(top) + first + row, finished[:, row : row + rows].clip(0, 1)  # rounding may lead out by 1e-7
        unfinished[:, : scale * tall - done] = unfinished[:, done:]
        unfinished[:, scale * tall - done :] = 0


def predict_array(
    rgb: npt.NDArray[np.uint8], predictor: Predictor, overlap: float = 0.125, batch_size: int = 4
) -> npt.NDArray[np.float32]:
    """Return probs float32 (scale · h, scale · w) of a whole image, uint8 RGB (3, h, w); see `predict_strips`."""
    _, height, width = rgb.shape
    strips = predict_strips(lambda first, last: rgb[:, first:last], height, width, predictor, overlap, batch_size)
    return np.concatenate([outputs[0] for _, outputs in strips])


def _windows(
    bands: Iterator[npt.NDArray[np.uint8]],
    lefts: npt.NDArray[np.int64],
    wide: int,
    predictor: Predictor,
    batch_size: int,
) -> Iterator[Outputs]:
    """Yield the outputs (channels, h, w) of the windows of rows of them, uint8 (3, h, w), each from left to right."""
    windows = (band[:, :, left : left + wide] for band in bands for left in lefts)
    while batch := list(islice(windows, batch_size)):
        yield from predictor.outputs(torch.from_numpy(np.stack(batch))).numpy()


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
