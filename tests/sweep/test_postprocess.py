"""Tuning on out-of-fold probs that are made up: squares that are found, specks that are not buildings."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import shapely
from affine import Affine
from scipy import ndimage
from stages import Here

from sn7.folds import Split
from sn7.prepared import MASK, Prepared, PreparedImage, footprints_name
from sweep.judge import TTA, TTA_PROBS, Judged, count, true_footprints
from sweep.oof import PROBS
from sweep.plan import Plan
from sweep.postprocess import choose_images, tune
from sweep.selection import Selection
from sweep.study import Postprocess
from sweep.studyfile import load_study

SPLITS = (Split("fold0", ("scene1",), ("scene0",)), Split("fold1", ("scene0",), ("scene1",)))
RULES = {"threshold": 0.5, "min_area_m2": 0.0}


def _write_probs(
    results: Path, prepared: Prepared, building: float = 0.9, specks: float = 0.0, folder: str = PROBS, trial: int = 0
) -> None:
    """Write probs of every image: its mask's, and specks of 2 × 1 px between the buildings."""
    for image in prepared.images:
        probs = np.where(prepared.pixels(image)[MASK] == 1, building, 0.05)
        probs[12::16, 1::16] = probs[12::16, 2::16] = np.maximum(probs[12::16, 1::16], specks)
        path = results / folder / f"{trial:04d}" / image.array
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, probs.astype(np.float16))


def _judged(prepared: Prepared, image: PreparedImage) -> Judged:
    return Judged(image, 0, true_footprints(image, prepared))


def _params(rules: dict[str, float], probs: str = "plain") -> dict[str, Any]:
    return {"weights": {"0": 1.0}, "probs": probs, "rules": rules}


@pytest.fixture
def prepared(make_prepared: Callable[..., Prepared]) -> Prepared:
    """Return two scenes of three months."""
    return make_prepared(scenes=2, months=3)


def test_footprints_are_counted(prepared: Prepared, tmp_path: Path) -> None:
    """All squares are found; specks are wrong until the least area drops them; a high threshold misses all."""
    _write_probs(tmp_path, prepared, specks=0.9)
    judged = _judged(prepared, prepared.images[0])
    squares = ndimage.label(prepared.pixels(judged.image)[MASK])[1]
    with_specks = count(judged, _params(RULES), "f1", tmp_path, prepared.folder)
    assert (with_specks.tp, with_specks.fn) == (squares, 0) and with_specks.fp > 0
    area = float(shapely.area(judged.truth).min()) / 2
    without = count(judged, _params({**RULES, "min_area_m2": area}), "f1", tmp_path, prepared.folder)
    assert (without.tp, without.fp, without.fn) == (squares, 0, 0)
    missed = count(judged, _params({**RULES, "threshold": 0.95}), "f1", tmp_path, prepared.folder)
    assert (missed.tp, missed.fn) == (0, squares)


def test_pixels_are_counted_where_they_are_valid(prepared: Prepared, tmp_path: Path) -> None:
    """As the mask has them; specks that are dropped are no pixels either."""
    _write_probs(tmp_path, prepared, specks=0.9)
    judged = _judged(prepared, prepared.images[0])
    counts = count(judged, _params({**RULES, "min_area_m2": 100.0}), "dice", tmp_path, prepared.folder)
    assert (counts.tp, counts.fp, counts.fn) == (int(prepared.pixels(judged.image)[MASK].sum()), 0, 0)


def test_ways_to_probs(prepared: Prepared, tmp_path: Path) -> None:
    """Squares move by a pixel a month: the mean of three loses their edges, the median keeps them."""
    _write_probs(tmp_path, prepared)
    _write_probs(tmp_path, prepared, folder=TTA_PROBS)
    judged = _judged(prepared, prepared.images[1])
    for way, found in (("plain", True), (TTA, True), ("mean 3", False), ("median 3", True), ("mean 7", False)):
        counts = count(judged, _params({**RULES, "threshold": 0.8}, way), "dice", tmp_path, prepared.folder)
        assert (counts.fn == 0) == found, way


def test_the_truth_is_that_of_the_labels(prepared: Prepared) -> None:
    """Two houses that touch are two; one below 4 px², and one where nothing is valid, do not count."""
    image = prepared.images[0]
    boxes = [(10, 10, 16, 16), (16, 10, 22, 16), (40, 40, 41, 42), (30, 0, 34, 2)]
    truth = shapely.to_wkb(shapely.geometrycollections([shapely.box(*box) for box in boxes]))
    np.save(prepared.folder / footprints_name(image.scene, image.image), np.frombuffer(truth, np.uint8))
    found = true_footprints(image, prepared)
    pixel = abs(Affine(*image.transform).determinant)
    assert shapely.area(found).tolist() == pytest.approx([36 * pixel, 36 * pixel])


@pytest.fixture
def plan(prepared: Prepared, monkeypatch: pytest.MonkeyPatch, write_study: Callable[..., Path]) -> Plan:
    """Return a study that tunes twelve times on an image a scene, in this process."""
    fake = SimpleNamespace(put=lambda one: one, remote=lambda **given: lambda f: SimpleNamespace(remote=f))
    monkeypatch.setattr("sweep.postprocess.ray", fake)
    monkeypatch.setattr("sweep.postprocess.result", lambda value: value)
    study = replace(
        load_study(write_study()), data=str(prepared.folder), postprocess=Postprocess(trials=12, images_per_scene=1)
    )
    return Plan(study, prepared, SPLITS, SPLITS)


def test_tuning_is_told_with_and_without_its_own_folds(plan: Plan, prepared: Prepared, tmp_path: Path) -> None:
    """Specks at 0.6 spoil what the baseline finds at 0.2; a search finds better, and says on which folds."""
    _write_probs(tmp_path, prepared, specks=0.6)
    assert [one.fold for one in choose_images(plan)] == [0, 1]
    selection = Selection({0: 1.0}, ({0: 1.0}, {0: 1.0}))
    stage = Here()
    found = tune(plan, [0], selection, {None: 0.2, 0: 0.2, 1: 0.2}, tmp_path, stage)
    assert stage.beats and not any(stage.beats), "time passes, and no GPU is held"
    assert found.tuned.nested[0] == found.tuned.optimistic[0] == 1.0 > found.tuned.baseline[0]
    assert found.selection == selection
    assert found.advice["rules"]["threshold"] > 0.5 or found.advice["rules"]["min_area_m2"] > 30
    assert f"from {found.tuned.baseline[0]:.3f} to 1.000" in found.sentence
    assert found.helps
    rows = (tmp_path / "postprocess.csv").read_text().splitlines()
    assert len(rows) == 1 + 3 * 12 and "rules.threshold" in rows[0]


def test_a_search_draws_what_its_fold_has_not_seen(plan: Plan, prepared: Prepared, tmp_path: Path) -> None:
    """The search without a fold begins with the weights and the threshold fitted without it, and draws no others."""
    for trial in (0, 1):
        _write_probs(tmp_path, prepared, specks=0.6, trial=trial)
    selection = Selection({0: 0.75, 1: 0.25}, ({0: 0.6, 1: 0.4}, {0: 0.2, 1: 0.8}))
    found = tune(plan, [0, 1], selection, {None: 0.2, 0: 0.3, 1: 0.4}, tmp_path, Here())
    apart = {None: (selection.weights, 0.2), 0: (selection.nested[0], 0.3), 1: (selection.nested[1], 0.4)}
    for one in found.tuned.found:
        drawn = [{int(trial): weight for trial, weight in params["weights"].items()} for params, _ in one.trials]
        weights, threshold = apart[one.held_out]
        assert drawn[0] == weights and one.trials[0][0]["rules"]["threshold"] == threshold
        assert all(other in (weights, {0: 0.5, 1: 0.5}, {0: 1.0}) for other in drawn)
        assert drawn.count(weights) > 1, "not the baseline alone"


def test_test_time_augmentation_holds_what_a_trial_holds(
    plan: Plan, prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each fold is a task of its model, for the judged images that have no such probs yet; a second start has none."""

    def predict(trial: int, model: Path, images: list[PreparedImage], results: Path, place: str) -> None:
        assert model == tmp_path / f"trials/0000/{'fold0' if images[0].scene == 'scene0' else 'fold1'}/model"
        for image in images:
            path = results / TTA_PROBS / "0000" / image.array
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(results / PROBS / "0000" / image.array, path)

    monkeypatch.setattr("sweep.postprocess._predict_fold_tta", predict)
    _write_probs(tmp_path, prepared)
    study = replace(plan.study, postprocess=Postprocess(trials=2, images_per_scene=1, tta=True))
    for tasks in (2, 0):
        stage = Here()
        thresholds = {None: 0.5, 0: 0.5, 1: 0.5}
        tune(replace(plan, study=study), [0], Selection({0: 1.0}), thresholds, tmp_path, stage)
        assert [(number, as_trials) for _, number, as_trials in stage.ran] == [(tasks, True)]
