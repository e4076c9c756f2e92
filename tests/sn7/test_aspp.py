import pytest
import torch
from torch import nn

from sn7.aspp import ASPP, DILATIONS


@pytest.mark.parametrize("side", [4, 8, 16])
def test_the_shape_stays(side: int) -> None:
    """Channels and sizes are those that came in, for maps of tiles from 128 to 512 px."""
    assert ASPP(32, nn.ReLU)(torch.rand(2, 32, side, side)).shape == (2, 32, side, side)


def test_a_single_tile_trains() -> None:
    """Where memory allows one tile at a time, the mean over the map is all there is of a channel."""
    aspp = ASPP(16, nn.SiLU).train()
    aspp(torch.rand(1, 16, 8, 8)).mean().backward()
    assert all(parameter.grad is not None for parameter in aspp.parameters())


@pytest.mark.parametrize("whole", [False, True])
def test_each_pixel_sees_near_and_far(whole: bool) -> None:
    """The 1 × 1 convolution sees the pixel, those of 3 × 3 its neighbours at their dilation, the mean the whole map."""
    aspp = ASPP(8, nn.SiLU).eval()
    if not whole:
        nn.init.zeros_(aspp.project[0].weight[:, -2:])  # the two channels of the mean come last
    feature_map = torch.rand(1, 8, 16, 16, requires_grad=True)
    aspp(feature_map)[0, :, 8, 8].sum().backward()
    assert feature_map.grad is not None
    seen = feature_map.grad.abs().sum((0, 1)) > 0
    steps = [(8 + row * step, 8 + column * step) for step in DILATIONS for row in (-1, 0, 1) for column in (-1, 0, 1)]
    expected = torch.full((16, 16), whole)
    for row, column in steps:
        expected[row, column] = True
    assert torch.equal(seen, expected)
