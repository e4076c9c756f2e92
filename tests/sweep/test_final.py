"""How a final scene is predicted: in the way that the ensemble's rules were tuned for."""

from pathlib import Path

import pytest
from brightness import Brightness, mean_probs, write_month

from sn7.catalog import read_scene
from sweep.final import _predict_scene

NAME = "L15-0331E-1257N_1327_3160_13"


@pytest.mark.parametrize(
    ("way", "probs", "calls"), [("plain", [0.2, 0.8], 2), ("tta", [0.2, 0.8], 16), ("mean 3", [0.5, 0.5], 2)]
)
def test_it_is_predicted_as_it_was_tuned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str, probs: list[float], calls: int
) -> None:
    """A dark and a bright month: each as it is, by all eight symmetries, or both as their mean."""
    write_month(tmp_path / NAME, "2018_01", 51)
    write_month(tmp_path / NAME, "2018_02", 204)
    ensemble = Brightness(way)
    monkeypatch.setattr("sweep.final.load_predictor", lambda folder: ensemble)
    report = _predict_scene(tmp_path, read_scene(tmp_path / NAME), tmp_path / "out")
    assert (report.images, len(report.written), report.skipped) == (2, 2, ())
    assert mean_probs(tmp_path / "out") == pytest.approx(probs, abs=1e-3)
    assert ensemble.calls == calls


def test_months_that_cannot_be_pooled_are_predicted_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of them is damaged: the other one is predicted, and both facts are told."""
    write_month(tmp_path / NAME, "2018_01", 204)
    write_month(tmp_path / NAME, "2018_02", 204)
    next((tmp_path / NAME).rglob("*2018_02*")).write_bytes(b"no image")
    monkeypatch.setattr("sweep.final.load_predictor", lambda folder: Brightness("mean 3"))
    report = _predict_scene(tmp_path, read_scene(tmp_path / NAME), tmp_path / "out")
    assert len(report.written) == 1 and len(report.skipped) == 2
    assert "is not pooled over its months" in report.skipped[1]
