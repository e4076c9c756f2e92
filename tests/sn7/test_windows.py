import tracemalloc
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import torch

from sn7.windows import predict_array, predict_patches


class FakePredictor:
    """A predictor whose probs are any function of the batch; it checks what it is given."""

    name = "fake"
    threshold, channels, scale = 0.5, 1, 1

    def __init__(self, window: int, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self.window = window
        self.function = function

    def outputs(self, batch: torch.Tensor) -> torch.Tensor:
        """Return what the function makes of the batch, in the shape that is asked for."""
        assert batch.dtype == torch.uint8 and batch.shape[1] == 3
        assert batch.shape[2] % 32 == 0 and batch.shape[3] % 32 == 0
        assert max(batch.shape[2:]) <= self.window
        return self.function(batch).expand(len(batch), *batch.shape[2:])[:, None]


def red(batch: torch.Tensor) -> torch.Tensor:
    """Return the red channel, 0 to 1."""
    return batch[:, 0].float() / 255


def random_rgb(height: int, width: int) -> npt.NDArray[np.uint8]:
    """Return noise, uint8 (3, h, w)."""
    return np.random.default_rng(0).integers(0, 256, (3, height, width), dtype=np.uint8)


@pytest.mark.parametrize("window", [32, 64, 256])
@pytest.mark.parametrize("size", [(1, 1), (1, 5), (3, 700), (31, 33), (255, 256), (257, 255), (1023, 1024)])
def test_stitch_of_cut_is_identity(size: tuple[int, int], window: int) -> None:
    """What depends on a pixel alone comes back at that pixel, for any size."""
    rgb = random_rgb(*size)
    probs = predict_array(rgb, FakePredictor(window, red))
    assert probs.shape == size and probs.dtype == np.float32
    np.testing.assert_allclose(probs, rgb[0] / 255, atol=1e-6)


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5])
@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_constant_stays_constant(overlap: float, batch_size: int) -> None:
    """The weights of every pixel sum to 1, whatever overlap and batch size."""
    predictor = FakePredictor(64, lambda batch: torch.full((1, 1, 1), 0.7))
    probs = predict_array(random_rgb(130, 200), predictor, overlap, batch_size)
    np.testing.assert_allclose(probs, np.float32(0.7), atol=1e-6)


@pytest.mark.parametrize("width", [97, 128, 150, 213, 300])
def test_no_seam(width: int) -> None:
    """Where windows disagree by 1, neighbouring pixels differ by at most π / (2 · fade)."""
    random = torch.Generator().manual_seed(0)
    predictor = FakePredictor(64, lambda batch: torch.randint(0, 2, (len(batch), 1, 1), generator=random).float())
    probs = predict_array(random_rgb(170, width), predictor, overlap=0.25)
    bound = np.pi / 2 / 16 + 1e-6
    assert probs.max() - probs.min() > 0.9  # windows do disagree
    assert np.abs(np.diff(probs, axis=0)).max() <= bound
    assert np.abs(np.diff(probs, axis=1)).max() <= bound


def test_border_pixels_see_their_mirror_image() -> None:
    """The network sees the image reflected beyond its border, never zeros."""
    seen: list[torch.Tensor] = []

    def record(batch: torch.Tensor) -> torch.Tensor:
        seen.append(batch)
        return red(batch)

    rgb = random_rgb(40, 50)
    predict_array(rgb, FakePredictor(32, record), overlap=0.25)
    first = seen[0][0].numpy()  # a fade is 8 px, half of it lies outside
    np.testing.assert_array_equal(first[:, 4:, 4:], rgb[:, :28, :28])
    np.testing.assert_array_equal(first[:, 4:, :4], rgb[:, :28, 4:0:-1])
    np.testing.assert_array_equal(first[:, :4, 4:], rgb[:, 4:0:-1, :28])


@pytest.mark.parametrize("height", [1, 49, 52, 500])
@pytest.mark.parametrize("width", [1, 40, 300])
def test_patches_come_once_in_order_from_few_rows(height: int, width: int) -> None:
    """Patches tile the image from top to bottom, and from left to right; no read is taller than a window."""
    rgb = random_rgb(height, width)
    reads: list[tuple[int, int]] = []

    def read(first: int, last: int) -> npt.NDArray[np.uint8]:
        reads.append((first, last))
        return rgb[:, first:last]

    times, places = np.zeros((height, width), int), []
    for row, column, (probs,) in predict_patches(read, height, width, FakePredictor(64, red)):
        place = np.s_[row : row + len(probs), column : column + probs.shape[1]]
        assert probs.size and max(probs.shape) <= 64
        np.testing.assert_allclose(probs, rgb[0][place] / 255, atol=1e-6)
        times[place] += 1
        places.append((row, column))
    assert (times == 1).all() and places == sorted(places)
    assert all(0 <= first < last <= height and last - first <= 64 for first, last in reads)


class Fine(FakePredictor):
    """Three outputs on a grid three times as fine: the red channel in all of them."""

    channels, scale = 3, 3

    def outputs(self, batch: torch.Tensor) -> torch.Tensor:
        """Return them, in memory of their own."""
        return super().outputs(batch).repeat_interleave(3, 2).repeat_interleave(3, 3).repeat(1, 3, 1, 1)


def test_memory_is_less_than_that_of_a_row_of_windows() -> None:
    """Of a wide image on a fine grid, held at any time is a fraction of the outputs of a row of windows."""
    rgb = random_rgb(200, 3000)
    row_of_windows = 3 * 4 * (3 * 64) * (3 * 3000)
    found = np.zeros((3 * 200, 3 * 3000), np.float32)
    tracemalloc.start()
    try:
        for row, column, (*_, red_again) in predict_patches(lambda a, b: rgb[:, a:b], 200, 3000, Fine(64, red)):
            found[row : row + red_again.shape[0], column : column + red_again.shape[1]] = red_again
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    np.testing.assert_allclose(found, rgb[0].repeat(3, 0).repeat(3, 1) / 255, atol=1e-6)
    assert peak < 0.5 * row_of_windows


def test_small_image_takes_a_small_window() -> None:
    """With 32 px around it, an image of 40 × 90 px takes one window of 128 × 160, not of 512 × 512."""
    shapes: list[tuple[int, ...]] = []

    def record(batch: torch.Tensor) -> torch.Tensor:
        shapes.append(tuple(batch.shape))
        return red(batch)

    predict_array(random_rgb(40, 90), FakePredictor(512, record))
    assert shapes == [(1, 3, 128, 160)]
