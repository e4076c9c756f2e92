import tracemalloc
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import torch

from sn7.windows import predict_array, predict_strips


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
def test_strips_come_once_in_order_from_few_rows(height: int) -> None:
    """Strips tile the rows from top to bottom; no read is taller than a window."""
    rgb = random_rgb(height, 40)
    reads: list[tuple[int, int]] = []

    def read(first: int, last: int) -> npt.NDArray[np.uint8]:
        reads.append((first, last))
        return rgb[:, first:last]

    next_row = 0
    for row, (probs,) in predict_strips(read, height, 40, FakePredictor(64, red)):
        assert row == next_row and 0 < len(probs) <= 64
        np.testing.assert_allclose(probs, rgb[0, row : row + len(probs)] / 255, atol=1e-6)
        next_row += len(probs)
    assert next_row == height
    assert all(0 <= first < last <= height and last - first <= 64 for first, last in reads)


class Fine(FakePredictor):
    """Three outputs on a grid three times as fine: the red channel in all of them."""

    channels, scale = 3, 3

    def outputs(self, batch: torch.Tensor) -> torch.Tensor:
        """Return them, in memory of their own."""
        return super().outputs(batch).repeat_interleave(3, 2).repeat_interleave(3, 3).repeat(1, 3, 1, 1)


def test_memory_is_that_of_one_row_of_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a wide image on a fine grid, little more is held at any time than the outputs of a row of windows."""
    monkeypatch.setattr("sn7.windows.PIECE", 1 << 16)
    rgb = random_rgb(200, 3000)
    row = 3 * 4 * (3 * 64) * (3 * 3000)
    found = np.zeros(3 * 200, np.float32)  # the first column
    tracemalloc.start()
    try:
        for first, outputs in predict_strips(lambda a, b: rgb[:, a:b], 200, 3000, Fine(64, red)):
            assert outputs.shape[0] == 3 and outputs.shape[1] % 3 == 0 and outputs.shape[2] == 9000
            found[first : first + outputs.shape[1]] = outputs[2, :, 0]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    np.testing.assert_allclose(found, rgb[0, :, 0].repeat(3) / 255, atol=1e-6)
    assert row <= peak < 1.4 * row


def test_small_image_takes_a_small_window() -> None:
    """With 32 px around it, an image of 40 × 90 px takes one window of 128 × 160, not of 512 × 512."""
    shapes: list[tuple[int, ...]] = []

    def record(batch: torch.Tensor) -> torch.Tensor:
        shapes.append(tuple(batch.shape))
        return red(batch)

    predict_array(random_rgb(40, 90), FakePredictor(512, record))
    assert shapes == [(1, 3, 128, 160)]
