"""Test-time augmentation: the mean of what a predictor says of an image and of its 7 mirrored and turned copies."""

import torch
from torch import Tensor

from sn7.windows import Predictor

__all__ = ["COPIES", "Symmetries"]

TURNS = 4
COPIES = 2 * TURNS
"""An image, its mirror image, and both turned."""
HEIGHT_AND_WIDTH = (-2, -1)


class Symmetries:
    """A predictor of the same name, threshold, window, scale, outputs and rules, eight times as slow."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor
        self.name, self.threshold, self.window = predictor.name, predictor.threshold, predictor.window
        self.tags = {**predictor.tags, "SYMMETRIES": str(2 * TURNS)}
        self.channels, self.scale, self.rules = predictor.channels, predictor.scale, predictor.rules

    def outputs(self, batch: Tensor) -> Tensor:
        """Return the mean over the 8 symmetries, float32 (n, channels, scale · h, scale · w); see Predictor."""
        total: Tensor | None = None
        for mirrored in (False, True):
            for turns in range(TURNS):
                turned = torch.rot90(batch.flip(-1) if mirrored else batch, turns, HEIGHT_AND_WIDTH)
                back = torch.rot90(self.predictor.outputs(turned.contiguous()), -turns, HEIGHT_AND_WIDTH)
                back = back.flip(-1) if mirrored else back
                total = back.clone() if total is None else total.add_(back)
        assert total is not None
        return total.div_(COPIES)
