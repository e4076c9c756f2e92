"""Pixel metrics: predicted probs or masks beside the mask of the true footprints."""

import numpy as np

from sn7.errors import ImageUnreadable
from sn7.footprints import read_footprints
from sn7.masks import rasterize_mask, valid_mask
from sn7.metrics import Counts
from sn7.rasters import read_image, read_probs, read_udm
from sn7.score.inputs import MonthFiles

__all__ = ["DEFAULT_THRESHOLD", "pixel_counts"]

DEFAULT_THRESHOLD = 0.5
"""Of probs whose file does not say their model's."""


def pixel_counts(truth: MonthFiles, found: MonthFiles, threshold: float | None = None) -> Counts | None:
    """Return the counts of an image's building pixels over valid ones; None where it is unlabelled.

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
    mask = rasterize_mask(footprints, shape, prediction.transform, prediction.crs) == 1
    valid = np.isfinite(prediction.probs)
    if truth.image:
        image = read_image(truth.image)
        if image.shape != shape:
            raise ImageUnreadable(
                f"{found.raster} is {shape[0]} × {shape[1]} px (height × width); wanted {image.shape[0]} × "
                f"{image.shape[1]}, as {truth.image} is: predict that image."
            )
        valid &= valid_mask(image.shape, image.alpha, read_udm(truth.udm, image.shape) if truth.udm else None) == 1
    level = next(level for level in (threshold, prediction.threshold, DEFAULT_THRESHOLD) if level is not None)
    building = (prediction.probs >= level) & valid
    mask &= valid
    tp = int(np.count_nonzero(building & mask))
    return Counts(tp, int(np.count_nonzero(building)) - tp, int(np.count_nonzero(mask)) - tp)
