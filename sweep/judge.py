"""Rules from out-of-fold probs to footprints, judged image by image: footprints found and missed, or pixels.

Probs come from the images by one of these ways: "plain", as the fold model gave them; "tta", the mean over the eight
symmetries; "mean 3", "median 3", …, pooled over so many months, those around the image's own.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely
from affine import Affine
from rasterio.crs import CRS

from sn7.ensemble import PLAIN, TTA
from sn7.footprints import unpacked
from sn7.metrics import Counts
from sn7.polygons import to_polygons
from sn7.pooling import pool, window_of
from sn7.prepared import MASK, VALID, Prepared, PreparedImage, load_prepared
from sn7.regions import label_regions
from sn7.rules import PolygonRules
from sn7.score.matching import assign, overlaps, repair
from sweep.costs import pixels_per_km2
from sweep.oof import PROBS, TTA_PROBS, Weights, mean_probs

__all__ = ["PLAIN", "TTA", "WAYS", "Judged", "count", "true_footprints"]

WAYS = (PLAIN, "mean 3", "median 3", "mean 7", "mean 25")
"""Ways from images to probs that need no further inference."""
MATCH_IOU = 0.25
MIN_TRUTH_PX = 4.0
"""Area, px², below which the challenge does not count a true footprint."""


@dataclass(frozen=True, eq=False)
class Judged:
    """An image that rules are judged on."""

    image: PreparedImage
    fold: int
    truth: npt.NDArray[np.object_]
    """True footprints in the image's CRS."""


def true_footprints(image: PreparedImage, prepared: Prepared) -> npt.NDArray[np.object_]:
    """Return the true footprints of an image in its CRS, those in invalid pixels and below 4 px² left out."""
    pixels, transform = prepared.pixels(image), Affine(*image.transform)
    shapes = repair(unpacked(prepared.footprints(image)))
    shapes = shapes[shapely.area(shapes) >= MIN_TRUTH_PX]
    places = shapely.get_coordinates(shapely.centroid(shapes)).astype(int)
    rows, columns = places[:, 1].clip(0, image.height - 1), places[:, 0].clip(0, image.width - 1)
    return np.asarray(_moved(shapes[pixels[VALID][rows, columns] == 1], transform))


def _moved(shapes: npt.NDArray[np.object_], transform: Affine) -> npt.NDArray[np.object_]:
    a, b, c, d, e, f = transform[:6]
    return np.asarray(shapely.transform(shapes, lambda xy: xy @ np.array([[a, d], [b, e]]) + (c, f)))


def count(judged: Judged, params: Mapping[str, Any], objective: str, results: Path, prepared: str | Path) -> Counts:
    """Return what an image's out-of-fold probs come to with these parameters.

    `objective` "f1" counts footprints, matched one to one where their IoU is above 0.25; "dice" counts valid pixels.
    """
    opened = load_prepared(prepared)
    weights = {int(trial): weight for trial, weight in params["weights"].items()}
    probs = _probs(judged.image, weights, params["probs"], results, opened)
    rules = PolygonRules(**params["rules"])
    transform, crs = Affine(*judged.image.transform), CRS.from_string(judged.image.crs)
    if objective == "dice":
        return _pixels(probs, rules, 1e6 / pixels_per_km2([judged.image]), opened.pixels(judged.image)[MASK] == 1)
    found = repair(to_polygons(probs, rules, transform, crs).geometry.to_numpy())
    matched = len(assign(overlaps(judged.truth, found, MATCH_IOU))[0])
    return Counts(matched, len(found) - matched, len(judged.truth) - matched)


def _pixels(
    probs: npt.NDArray[np.float32], rules: PolygonRules, pixel_m2: float, mask: npt.NDArray[np.bool_]
) -> Counts:
    """Return the counts of the pixels of regions that are large enough, over those with probs."""
    _, labels = label_regions(probs[None], rules)
    kept = np.bincount(labels.ravel()) * pixel_m2 >= rules.min_area_m2
    kept[0] = False
    found, valid = kept[labels], np.isfinite(probs)
    true = mask & valid
    tp = int((found & true).sum())
    return Counts(tp, int(found.sum()) - tp, int(true.sum()) - tp)


def _probs(
    image: PreparedImage, weights: Weights, way: str, results: Path, prepared: Prepared
) -> npt.NDArray[np.float32]:
    """Return an image's probs, NaN where invalid."""
    read = partial(_valid_probs, weights=weights, results=results, prepared=prepared)
    if way in (PLAIN, TTA):
        return read(image, folder=PROBS if way == PLAIN else TTA_PROBS)
    how, months = way.split()
    others = prepared.scene_images(image.scene)
    dates = [other.date for other in others]
    chosen = window_of(dates, others.index(image), int(months))
    return pool(np.stack([read(others[i], folder=PROBS) for i in chosen]), how)


def _valid_probs(
    image: PreparedImage, weights: Weights, results: Path, prepared: Prepared, folder: str
) -> npt.NDArray[np.float32]:
    probs = mean_probs(weights, results, image, folder)
    probs[prepared.pixels(image)[VALID] == 0] = np.nan
    return probs
