"""Losses over valid pixels only.

A target is int64 (N, H, W) with 0 background, 1 building and IGNORE where a pixel is invalid; logits are
float (N, 2, H, W).
"""

import torch
from torch import Tensor, nn

__all__ = ["IGNORE", "WeightedCrossEntropy"]

IGNORE = 255
"""Target value of invalid pixels."""


class WeightedCrossEntropy(nn.Module):
    """Class-weighted cross-entropy, averaged with the weights over valid pixels.

    `building_weight` in (0, 1) weighs building pixels, background pixels get 1 - building_weight.
    """

    def __init__(self, building_weight: float) -> None:
        super().__init__()
        self.weight: Tensor
        self.register_buffer("weight", torch.tensor([1.0 - building_weight, building_weight]))

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the mean loss, float scalar; 0 (with zero gradient) where no pixel is valid."""
        total, weight = self.sums(logits, target)
        return total / weight.clamp(min=torch.finfo(weight.dtype).tiny)

    def sums(self, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return the summed loss and the summed weights: two float scalars that add up over batches."""
        total = nn.functional.cross_entropy(
            logits.float(), target, weight=self.weight, ignore_index=IGNORE, reduction="sum"
        )
        building = (target == 1).sum()
        background = (target == 0).sum()
        return total, background * self.weight[0] + building * self.weight[1]
