"""Images of any size through a network: overlapping windows, blended without a seam. numpy and torch only.

Windows step over the image padded by reflection, so pixels at its border see as much context as any. Where
two windows overlap, one fades out as the other fades in; the weights of each pixel are divided by their sum.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from sn7.rules import PolygonRules

__all__ = ["Predictor", "predict_array", "predict_patches"]

Outputs = npt.NDArray[np.float32]
Rows = Callable[[int, int], npt.NDArray[np.uint8]]
"""Called as read(first row, row after the last); returns uint8 (3, rows, width)."""


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


def predict_patches(
    read: Rows, height: int, width: int, predictor: Predictor, overlap: float = 0.125, batch_size: int = 4
) -> Iterator[tuple[int, int, Outputs]]:
    """Yield (first row, first column, outputs (channels, rows, columns)): patches that tile the grid of the outputs.

    They come in rows from top to bottom, each from left to right, and begin and end between pixels of the image.
    `overlap` is the share of a window's side, 0 to 0.5, that neighbouring windows have in common at least;
    `batch_size` is the number of windows that go through the network at once, of one row of windows or of several.
    Held in memory are a row of windows as the network sees it, and of its outputs what the next row overlaps.
    """
    fade, scale = int(predictor.window * overlap), predictor.scale
    tops, tall = _layout(height, predictor.window, fade)
    lefts, wide = _layout(width, predictor.window, fade)
    columns = _reflect(np.arange(lefts[0], lefts[-1] + wide), width)

    def band(top: int) -> npt.NDArray[np.uint8]:
        rows = _reflect(np.arange(top, top + tall), height)
        return read(int(rows.min()), int(rows.max()) + 1)[:, rows - rows.min()][:, :, columns]

    windows = _windows(map(band, tops.tolist()), lefts - lefts[0], wide, predictor, batch_size)
    rows = _spans(scale * tops, scale * tall, scale * fade, scale * height)
    across = _spans(scale * lefts, scale * wide, scale * fade, scale * width)
    yield from _blended(windows, rows, across, predictor.channels)


def predict_array(
    rgb: npt.NDArray[np.uint8], predictor: Predictor, overlap: float = 0.125, batch_size: int = 4
) -> npt.NDArray[np.float32]:
    """Return probs float32 (scale · h, scale · w) of a whole image, uint8 RGB (3, h, w); see `predict_patches`."""
    _, height, width = rgb.shape
    probs = np.empty((predictor.scale * height, predictor.scale * width), np.float32)
    patches = predict_patches(lambda first, last: rgb[:, first:last], height, width, predictor, overlap, batch_size)
    for row, column, outputs in patches:
        probs[row : row + outputs.shape[1], column : column + outputs.shape[2]] = outputs[0]
    return probs


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


@dataclass(frozen=True)
class _Span:
    """A window along one axis, in pixels of the outputs' grid."""

    start: int
    step: int
    """Pixels to the start of the next window, or to the end of the last one."""
    share: npt.NDArray[np.float32]
    """Of the window in each of its pixels."""
    inside: slice
    """Which pixels of the step lie inside the image; none where the next window starts before it does, too."""


def _spans(starts: npt.NDArray[np.int64], size: int, fade: int, length: int) -> list[_Span]:
    steps = np.diff(starts, append=starts[-1] + size).tolist()
    return [
        _Span(start, step, share, slice(max(-start, 0), max(min(step, length - start), 0)))
        for start, step, share in zip(starts.tolist(), steps, _shares(starts, size, fade), strict=True)
    ]


def _blended(
    windows: Iterator[Outputs], rows: list[_Span], columns: list[_Span], channels: int
) -> Iterator[tuple[int, int, Outputs]]:
    """Yield the patches of windows (channels, h, w), each of which is finished but for what the next ones add."""
    tall, width = len(rows[0].share), columns[-1].start + columns[-1].step - columns[0].start
    held = np.zeros((channels, tall - min(row.step for row in rows), width), np.float32)  # of the row of windows above
    for row in rows:
        before = np.zeros((channels, tall, 0), np.float32)
        for column in columns:
            window = row.share[:, None] * column.share * next(windows)
            window[:, :, : before.shape[2]] += before
            finished, before = window[:, :, : column.step], window[:, :, column.step :]
            left = column.start - columns[0].start
            above = held[:, :, left : left + column.step]
            finished[:, : above.shape[1]] += above
            above[:] = 0
            above[:, : tall - row.step] = finished[:, row.step :]
            patch = finished[:, row.inside, column.inside]
            if patch.size:
                yield max(row.start, 0), max(column.start, 0), patch.clip(0, 1)  # rounding may lead out by 1e-7


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
