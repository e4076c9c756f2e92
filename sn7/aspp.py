"""Atrous spatial pyramid pooling: one feature map, looked at with several fields of view at once."""

import torch
from fastai.layers import ConvLayer
from torch import Tensor, nn

__all__ = ["ASPP"]

DILATIONS = (2, 4, 6)
"""Steps between the taps of the 3 × 3 convolutions. DeepLab's 6, 12 and 18 are for maps of 33 × 33 px; those of
255 px tiles have 8 × 8, those of 512 px 16 × 16, where wider steps would see padding alone."""


class ASPP(nn.Module):
    """Float (N, C, H, W) → the same shape: each pixel with its surroundings, near, wide and of the whole map.

    A 1 × 1 convolution, one of 3 × 3 for each of DILATIONS and the mean over the map, of C / 4 channels each, are
    joined and projected back to C, so that what follows need not know.
    """

    def __init__(self, channels: int, activation: type[nn.Module]) -> None:
        super().__init__()
        width = channels // 4
        self.branches = nn.ModuleList([ConvLayer(channels, width, 1, act_cls=activation)])
        for dilation in DILATIONS:
            branch = ConvLayer(channels, width, 3, padding=dilation, dilation=dilation, act_cls=activation)
            self.branches.append(branch)
        # Without batch norm: of a single tile it would have one value a channel to normalise.
        whole = ConvLayer(channels, width, 1, norm_type=None, act_cls=activation)
        self.whole = nn.Sequential(nn.AdaptiveAvgPool2d(1), whole)
        self.project = ConvLayer(width * (len(self.branches) + 1), channels, 1, act_cls=activation)

    def forward(self, feature_map: Tensor) -> Tensor:
        """Return the map with its context."""
        whole = self.whole(feature_map).expand(-1, -1, *feature_map.shape[-2:])
        return self.project(torch.cat([*(branch(feature_map) for branch in self.branches), whole], dim=1))
