"""How a final scene is predicted: in the way that the ensemble's rules were tuned for."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import rasterio
from affine import Affine
from brightness import Brightness, mean_probs, write_month

from sn7.catalog import read_scene
from sn7.prepared import Prepared
from sn7.storage import local
from sweep.final import _predict_scene, _reached, final_scenes, why_none
from sweep.studyfile import load_study

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


@pytest.mark.parametrize("way", ["plain", "mean 3"])
def test_a_damaged_month_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """The other one is predicted, pooled or not."""
    write_month(tmp_path / NAME, "2018_01", 204)
    write_month(tmp_path / NAME, "2018_02", 204).write_bytes(b"no image")
    monkeypatch.setattr("sweep.final.load_predictor", lambda folder: Brightness(way))
    report = _predict_scene(tmp_path, read_scene(tmp_path / NAME), tmp_path / "out")
    assert (report.images, len(report.written), report.unreadable) == (2, 1, 1)
    assert len(report.skipped) == 1 and "2018_02" in report.skipped[0]


def test_months_that_cannot_be_pooled_are_predicted_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They lie in two places: each is predicted, and that is told, since no result of theirs is missing."""
    write_month(tmp_path / NAME, "2018_01", 51)
    with rasterio.open(write_month(tmp_path / NAME, "2018_02", 204), "r+") as moved:
        moved.transform = moved.transform @ Affine.translation(3, 0)
    monkeypatch.setattr("sweep.final.load_predictor", lambda folder: Brightness("mean 3"))
    report = _predict_scene(tmp_path, read_scene(tmp_path / NAME), tmp_path / "out")
    assert mean_probs(tmp_path / "out") == pytest.approx([0.2, 0.8], abs=1e-3)
    assert report.skipped == () and "is not pooled over its months" in report.warnings[0]


def test_a_machine_without_the_drivers_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a data set at a URL it fetches the final scenes for itself; a folder is looked for where the driver has it."""
    published = tmp_path / "published"
    write_month(published / "test_public" / NAME, "2018_01", 51)
    (published / "train").mkdir()
    (published / "train" / "large").write_text("not needed")
    url = f"file://{published}"
    monkeypatch.setenv("SN7_CACHE", str(tmp_path / "driver"))
    scene = read_scene(local(url) / "test_public" / NAME)
    assert _reached(scene, url) == scene
    shutil.rmtree(tmp_path / "driver")
    assert _reached(scene, str(published)) == scene
    monkeypatch.setenv("SN7_CACHE", str(tmp_path / "node"))
    here = _reached(scene, url)
    assert here.name == scene.name and [image.name for image in here.images] == [image.name for image in scene.images]
    assert here.images[0].path.is_relative_to(tmp_path / "node") and here.images[0].path.exists()
    assert not list((tmp_path / "node").rglob("large"))


def test_why_there_are_none(
    make_prepared: Callable[..., Prepared], write_study: Callable[..., Path], tmp_path: Path
) -> None:
    """A prepared set has no final scenes, a data set may lack them, and those there are may be of no use."""
    study = load_study(write_study())
    of_prepared = replace(study, data=str(make_prepared().folder))
    assert final_scenes(of_prepared) == () and "is a prepared one" in why_none(of_prepared, ())
    write_month(tmp_path / "data" / "test_public" / NAME, "2018_01", 51)
    scenes = final_scenes(replace(study, data=str(tmp_path / "data")))
    assert [scene.name for scene in scenes] == [NAME] and "could be used" in why_none(study, scenes)
    assert "no readable images below test_public" in why_none(replace(study, data=str(tmp_path / "data")), ())
