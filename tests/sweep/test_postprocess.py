"""Tuning on out-of-fold probs that are made up: squares that are found, specks that are not buildings."""

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


def test_tuning_is_told_with_and_without_its_own_folds(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_study: Callable[..., Path]
) -> None:
    """Specks at 0.6 spoil what the baseline finds at 0.2; a search finds better, and says on which folds."""
    fake = SimpleNamespace(put=lambda one: one, remote=lambda **given: lambda f: SimpleNamespace(remote=f))
    monkeypatch.setattr("sweep.postprocess.ray", fake)
    monkeypatch.setattr("sweep.postprocess.result", lambda value: value)
    _write_probs(tmp_path, prepared, specks=0.6)
    study = replace(
        load_study(write_study()), data=str(prepared.folder), postprocess=Postprocess(trials=12, images_per_scene=1)
    )
    plan = Plan(study, prepared, SPLITS, SPLITS)
    assert [one.fold for one in choose_images(plan)] == [0, 1]
    selection = Selection({0: 1.0}, ({0: 1.0}, {0: 1.0}))
    found = tune(plan, [0], selection, {None: 0.2, 0: 0.2, 1: 0.2}, tmp_path)
    assert found.tuned.nested[0] == found.tuned.optimistic[0] == 1.0 > found.tuned.baseline[0]
    assert found.selection == selection
    assert found.advice["rules"]["threshold"] > 0.6 or found.advice["rules"]["min_area_m2"] > 30
    assert f"from {found.tuned.baseline[0]:.3f} to 1.000" in found.sentence
    assert found.helps
    worse = replace(found, tuned=replace(found.tuned, nested=(0.4,), baseline=(0.4,)))
    assert not worse.helps and worse.sentence.endswith("It is therefore not used.")
    rows = (tmp_path / "postprocess.csv").read_text().splitlines()
    assert len(rows) == 1 + 3 * 12 and "rules.threshold" in rows[0]
