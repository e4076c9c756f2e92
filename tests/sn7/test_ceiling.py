"""How much of the truth perfect outputs bring back as polygons: what is lost is the pixels' and the rules' fault."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
import shapely

from sn7.footprints import read_footprints
from sn7.masks import rasterize_mask, refined, to_pixels
from sn7.polygons import to_polygons
from sn7.rules import PolygonRules
from sn7.score.matching import assign, overlaps, repair
from sn7.separation import separation_channels

SCENE = "L15-1615E-1205N_6460_3370_13"
IMAGE = f"global_monthly_2017_07_mosaic_{SCENE}"
SMOOTHED = {"seed_level": 0.9, "seed_smoothing": 0.7}


@pytest.mark.parametrize(
    ("scale", "separation", "rules", "least"),
    [
        (1, False, {}, 0.946),  # a threshold alone: the 4-connected ceiling
        (1, False, SMOOTHED, 0.965),
        (1, True, {"seed_level": 0.4}, 0.998),
        pytest.param(3, False, {}, 0.992, marks=pytest.mark.slow),
        pytest.param(3, True, {"seed_level": 0.4}, 0.998, marks=pytest.mark.slow),
    ],
)
def test_perfect_outputs_come_back(
    mini: Path, scale: int, separation: bool, rules: dict[str, float], least: float
) -> None:
    """F1@0.25 of the real scene's own footprints, rasterised at 1 × and 3 ×, with and without boundary and contact."""
    scene = mini / "train" / SCENE
    footprints = read_footprints(scene / "labels_match_pix" / f"{IMAGE}_Buildings.geojson", "labels_match_pix")
    with rasterio.open(scene / "images_masked" / f"{IMAGE}.tif") as source:
        shape, transform, crs = source.shape, source.transform, source.crs
    fine = refined(to_pixels(footprints, shape, transform, crs), scale)
    outputs = rasterize_mask(fine, (scale * shape[0], scale * shape[1]), transform, crs).astype(np.float32)[None]
    if separation:
        outputs = np.concatenate([outputs, separation_channels(footprints, shape, transform, crs, scale)])
    grid = transform @ rasterio.Affine.scale(1 / scale)
    found = to_polygons(outputs.astype(np.float32), PolygonRules.from_dict(rules), grid, crs)
    polygons = found.geometry.affine_transform((~transform).to_shapely()).to_numpy()  # in pixels, as the truth is
    truth = repair(footprints.geometries)
    truth = truth[shapely.area(truth) >= 4]
    matched, _ = assign(overlaps(truth, polygons, 0.25))
    assert 2 * len(matched) / (len(truth) + len(found)) > least
