"""How well scenes are predicted by models that did not see them: each with an interval, and as scenes.csv."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from sn7.evaluation import Interval, dice_interval
from sn7.metrics import Counts, ThresholdCurve, block_curves
from sn7.prepared import MASK, VALID, Prepared, PreparedImage

__all__ = ["SceneCurves", "read_scene"]

BLOCKS = 8
"""A scene is cut into so many blocks each way. What is drawn for its interval is blocks with all their months: pixels
beside each other, and months of the same buildings, are no further evidence."""


@dataclass(frozen=True)
class SceneCurves:
    """Threshold curves of one scene's out-of-fold probs."""

    scene: str
    images: tuple[tuple[PreparedImage, ThresholdCurve], ...]
    """Each labelled image with its curve."""
    blocks: tuple[ThresholdCurve, ...]
    """Of the same pixels, by place."""

    @cached_property
    def curve(self) -> ThresholdCurve:
        """The curve of the whole scene."""
        return sum(self.blocks, start=ThresholdCurve.empty())

    @property
    def ceiling(self) -> Counts:
        """What footprints at 4 × the resolution score: see PreparedImage.ceiling."""
        return sum((Counts(*image.ceiling) for image, _ in self.images), start=Counts())

    def interval(self, threshold: float, seed: int) -> Interval:
        """Return the 95 % interval of the scene's Dice at a threshold, over its blocks that have valid pixels."""
        known = [block for block in self.blocks if block.building.any() or block.background.any()]
        return dice_interval([block.counts(threshold) for block in known], seed)


def read_scene(
    scene: str, probs: Callable[[PreparedImage], npt.NDArray[np.float32]], prepared: Prepared
) -> SceneCurves:
    """Return the curves of a scene whose images' out-of-fold probs, float32 (height, width), `probs` returns.

    One image is in memory at a time.
    """
    images, total = [], [ThresholdCurve.empty()] * BLOCKS**2
    for image in prepared.scene_images(scene):
        pixels = prepared.pixels(image)
        blocks = block_curves(probs(image), pixels[MASK], pixels[VALID], BLOCKS)
        images.append((image, sum(blocks, start=ThresholdCurve.empty())))
        total = [before + block for before, block in zip(total, blocks, strict=True)]
    return SceneCurves(scene, tuple(images), tuple(total))
