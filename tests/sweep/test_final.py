"""How a final scene is predicted: in the way that the ensemble's rules were tuned for."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine

from sn7.catalog import read_scene
from sn7.rules import PolygonRules
from sweep.final import _predict_scene

NAME = "L15-0331E-1257N_1327_3160_13"


class Brightness:
    """An ensemble that takes bright pixels for buildings."""

    name, threshold, window, channels, scale = "brightness", 0.5, 64, 1, 1
    rules = PolygonRules()

    def __init__(self, way: str) -> None:
        self.way, self.calls = way, 0

    def outputs(self, batch: torch.Tensor) -> torch.Tensor:
        """Return the mean of the three channels, 0 to 1."""
        self.calls += 1
        return batch.float().mean(1, keepdim=True) / 255


def _write(folder: Path, month: str, value: int, size: int = 64) -> None:
    path = folder / "images_masked" / f"global_monthly_{month}_mosaic_{NAME}.tif"
    path.parent.mkdir(parents=True, exist_ok=True)
    grid = {"crs": "EPSG:3857", "transform": Affine(4.777, 0, -13545864.4, 0, -4.777, 4578883.74)}
    with rasterio.open(path, "w", driver="GTiff", count=3, height=size, width=size, dtype="uint8", **grid) as raster:
        raster.write(np.full((3, size, size), value, np.uint8))


def _mean_probs(out: Path) -> list[float]:
    found = []
    for path in sorted((out / NAME).glob("*.tif")):
        with rasterio.open(path) as raster:
            found.append(float(raster.read(1).mean()))
    return found


@pytest.mark.parametrize(
    ("way", "probs", "calls"), [("plain", [0.2, 0.8], 2), ("tta", [0.2, 0.8], 16), ("mean 3", [0.5, 0.5], 2)]
)
def test_it_is_predicted_as_it_was_tuned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str, probs: list[float], calls: int
) -> None:
    """A dark and a bright month: each as it is, by all eight symmetries, or both as their mean."""
    _write(tmp_path / NAME, "2018_01", 51)
    _write(tmp_path / NAME, "2018_02", 204)
    ensemble = Brightness(way)
    monkeypatch.setattr("sweep.final.load_predictor", lambda folder: ensemble)
    report = _predict_scene(tmp_path, read_scene(tmp_path / NAME), tmp_path / "out")
    assert (report.images, len(report.written), report.skipped) == (2, 2, ())
    assert _mean_probs(tmp_path / "out") == pytest.approx(probs, abs=1e-3)
    assert ensemble.calls == calls


def test_months_that_cannot_be_pooled_are_predicted_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of them is damaged: the other one is predicted, and both facts are told."""
    _write(tmp_path / NAME, "2018_01", 204)
    _write(tmp_path / NAME, "2018_02", 204)
    next((tmp_path / NAME).rglob("*2018_02*")).write_bytes(b"no image")
    monkeypatch.setattr("sweep.final.load_predictor", lambda folder: Brightness("mean 3"))
    report = _predict_scene(tmp_path, read_scene(tmp_path / NAME), tmp_path / "out")
    assert len(report.written) == 1 and len(report.skipped) == 2
    assert "is not pooled over its months" in report.skipped[1]
