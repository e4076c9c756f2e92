"""Pixel metrics: predicted probs or masks beside the mask of the true footprints."""

from dataclasses import replace

import numpy as np
from affine import Affine

from sn7.errors import ImageUnreadable
from sn7.footprints import read_footprints
from sn7.masks import rasterize_mask, valid_mask
from sn7.metrics import Counts
from sn7.rasters import RasterProbs, read_image, read_probs, read_udm
from sn7.score.inputs import MonthFiles, scene_grid

__all__ = ["DEFAULT_THRESHOLD", "pixel_counts"]

DEFAULT_THRESHOLD = 0.5
"""Of probs whose file does not say their model's."""


def pixel_counts(scene: str, truth: MonthFiles, found: MonthFiles, threshold: float | None = None) -> Counts | None:
    """Return the counts of an image's building pixels over valid ones; None where it is unlabelled.

    Predictions of a grid that is whole times as fine as the image's are averaged to that.
    Pixels are valid where the prediction has a value and, if the truth has the image, alpha and UDM let them be.
    `threshold` stands in for that of the file. Raises ImageUnreadable, LabelsUnreadable.
    """
    assert truth.footprints is not None
    assert found.raster is not None
    footprints = read_footprints(truth.footprints, truth.kind)
    if not len(footprints):
        return None
    prediction = read_probs(found.raster, masks=True)
    shape = prediction.probs.shape
    image = read_image(truth.image) if truth.image else None
    times = _times_as_fine(shape, image.shape if image else scene_grid(scene, found).shape)
    if image and not times:
        raise ImageUnreadable(
            f"{found.raster} is {shape[0]} × {shape[1]} px (height × width); wanted {image.shape[0]} × "
            f"{image.shape[1]}, as {truth.image} is, or a whole multiple of that: predict that image."
        )
    if times > 1:
        prediction = _averaged(prediction, times)
        shape = prediction.probs.shape
    mask = rasterize_mask(footprints, shape, prediction.transform, prediction.crs) == 1
    valid = np.isfinite(prediction.probs)
    if image:
        valid &= valid_mask(shape, image.alpha, read_udm(truth.udm, shape) if truth.udm else None) == 1
    level = next(level for level in (threshold, prediction.threshold, DEFAULT_THRESHOLD) if level is not None)
    building = (prediction.probs >= level) & valid
    mask &= valid
    tp = int(np.count_nonzero(building & mask))
    return Counts(tp, int(np.count_nonzero(building)) - tp, int(np.count_nonzero(mask)) - tp)


def _times_as_fine(shape: tuple[int, ...], image: tuple[int, int]) -> int:
    """Return how many times as fine as an image of a shape the grid of another is; 0 where that is no whole number."""
    times = shape[0] // image[0]
    return times if shape == (times * image[0], times * image[1]) else 0


def _averaged(prediction: RasterProbs, times: int) -> RasterProbs:
    """Return probs on a grid that many times as coarse, NaN where any of those averaged is invalid."""
    height, width = prediction.probs.shape
    parts = prediction.probs.reshape(height // times, times, width // times, times)
    return replace(
        prediction, probs=parts.mean(axis=(1, 3)), transform=prediction.transform @ Affine.scale(times), separation=None
    )
