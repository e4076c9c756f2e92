"""Probs → labelled regions of pixels, one for each polygon: threshold, or seeds and a watershed between them."""

import math

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage.segmentation import watershed

from sn7.rules import PolygonRules

__all__ = ["label_regions", "reach", "seed_score"]

Labels = npt.NDArray[np.int32]

TRUNCATE = 3.0
"""Standard deviations at which the smoothing is cut off."""


def label_regions(outputs: npt.NDArray[np.float32], rules: PolygonRules) -> tuple[Labels, Labels]:
    """Return labels int32 (h, w) before and after parting: 0 no building, 1, 2, … each a 4-connected region.

    `outputs` is (1, h, w), probs, or (3, h, w), probs, boundary and contact; NaN where invalid. A region is a
    4-connected group of pixels with probs ≥ threshold. One with several seeds, groups of pixels whose seed score is
    at least `seed_level`, is parted between them along the valleys of the score; one with a single seed, or with none,
    stays whole.
    """
    building = outputs[0] >= rules.threshold  # False for NaN
    labels, count = ndimage.label(building, output=np.int32)
    if rules.seed_level == 0 or count == 0:
        return labels, labels
    score = np.where(building, seed_score(outputs, rules), 0)
    seeds, seed_count = ndimage.label(score >= rules.seed_level, output=np.int32)
    home = np.zeros(seed_count + 1, np.int32)
    home[seeds.ravel()] = labels.ravel()  # a seed's pixels all lie in one region
    several = np.bincount(home[1:], minlength=count + 1) > 1
    several[0] = False
    parting = several[labels]
    if not parting.any():
        return labels, labels
    parts = watershed(-score, np.where(parting, seeds, 0), mask=parting)
    return labels, _renumbered(np.where(parting, count + parts, labels))


def seed_score(outputs: npt.NDArray[np.float32], rules: PolygonRules) -> npt.NDArray[np.float32]:
    """Return how sure it is that a pixel lies inside of one building alone, float32 (h, w), NaN where invalid.

    That is probs, less the shares of boundary and contact where there are such outputs, smoothed.
    """
    score = outputs[0]
    if len(outputs) == 3:
        score = score * (1 - rules.boundary_share * outputs[1]) * (1 - rules.contact_share * outputs[2])
    if rules.seed_smoothing > 0:
        score = np.where(np.isnan(score), 0, score)
        score = ndimage.gaussian_filter(score, rules.seed_smoothing, truncate=TRUNCATE)
    return score


def reach(rules: PolygonRules) -> int:
    """Return within how many pixels of a region other pixels matter to its outline."""
    return 1 + math.ceil(TRUNCATE * rules.seed_smoothing)


def _renumbered(labels: Labels) -> Labels:
    """Return the same labels as 1, 2, … in the order of their first pixels, row by row."""
    places = np.flatnonzero(labels)
    used, first, compact = np.unique(labels.ravel()[places], return_index=True, return_inverse=True)
    number = np.empty(len(used), np.int32)
    number[first.argsort()] = np.arange(1, len(used) + 1)
    renumbered = np.zeros_like(labels)
    renumbered.ravel()[places] = number[compact]
    return renumbered
