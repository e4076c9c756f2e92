from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from stages import Here

from sn7.folds import Split
from sn7.prepared import MASK, Prepared
from sweep.leaderboard import write_folds
from sweep.oof import equal
from sweep.scoring import OutOfFold, Scorer
from sweep.selection import Selection

SPLITS = [Split("fold0", ("scene1",), ("scene0",)), Split("fold1", ("scene0",), ("scene1",))]


def _write_probs(results: Path, trial: int, prepared: Prepared, building: float, background: float) -> None:
    for image in prepared.images:
        mask = prepared.pixels(image)[MASK]
        path = results / "oof" / f"{trial:04d}" / image.array
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, np.where(mask == 1, building, background).astype(np.float16))


def _score(selection: Selection, splits: Sequence[Split], results: Path, prepared: Prepared) -> OutOfFold:
    return Scorer(results, prepared, Here()).score(selection, splits)


def test_perfect_probs_score_1_at_a_threshold_between(make_prepared: Callable[..., Prepared], tmp_path: Path) -> None:
    """Buildings at 0.3, background at 0.1: the fitted threshold finds them, 0.5 would not."""
    prepared = make_prepared(scenes=2)
    _write_probs(tmp_path, 7, prepared, 0.3, 0.1)
    scored = _score(Selection({7: 1.0}), SPLITS, tmp_path, prepared)
    assert 0.1 < scored.threshold <= 0.3
    assert scored.dice_by_fold == [1.0, 1.0]
    assert scored.counts.tp == sum(int((prepared.pixels(image)[MASK]).sum()) for image in prepared.images)
    assert scored.optimistic.dice == 1.0
    alone = _score(Selection({7: 1.0}), SPLITS[:1], tmp_path, prepared)
    assert alone.folds[0].threshold == 0.5
    assert alone.counts.dice == 0


def test_the_ensemble_averages_before_it_scores(make_prepared: Callable[..., Prepared], tmp_path: Path) -> None:
    """One trial is right, the other undecided: their mean is right."""
    prepared = make_prepared(scenes=2)
    _write_probs(tmp_path, 0, prepared, 0.9, 0.1)
    _write_probs(tmp_path, 1, prepared, 0.5, 0.5)
    scored = _score(Selection(equal([0, 1])), SPLITS, tmp_path, prepared)
    assert 0.3 < scored.threshold <= 0.7
    assert scored.counts.fp == scored.counts.fn == 0


def test_weights_are_those_of_the_other_folds(make_prepared: Callable[..., Prepared], tmp_path: Path) -> None:
    """Fold 0 was given the weights that suit fold 1: it is scored with them, where the ensemble itself is perfect."""
    prepared = make_prepared(scenes=2)
    _write_probs(tmp_path, 0, prepared, 0.9, 0.1)
    _write_probs(tmp_path, 1, prepared, 0.1, 0.9)
    selection = Selection({0: 1.0}, ({1: 1.0}, {0: 1.0}))
    scored = _score(selection, SPLITS, tmp_path, prepared)
    assert [fold.weights for fold in scored.folds] == [{1: 1.0}, {0: 1.0}]
    assert scored.dice_by_fold[0] < 0.5 and scored.dice_by_fold[1] == 1.0
    assert scored.optimistic.dice == 1.0 and scored.counts.dice < 1.0


def test_folds_csv(make_prepared: Callable[..., Prepared], tmp_path: Path) -> None:
    """A row for each model and fold, with the scenes and the threshold of the other folds."""
    prepared = make_prepared(scenes=2)
    _write_probs(tmp_path, 0, prepared, 0.9, 0.1)
    scored = _score(Selection({0: 1.0}), SPLITS, tmp_path, prepared)
    rows = write_folds([("ensemble", scored)], SPLITS, tmp_path / "f.csv")
    assert [(row["model"], row["fold"], row["scenes"], row["dice"]) for row in rows] == [
        ("ensemble", 0, "scene0", 1.0),
        ("ensemble", 1, "scene1", 1.0),
    ]
    assert rows[0]["threshold"] == pytest.approx(0.5, abs=0.01)
    assert (tmp_path / "f.csv").read_text().startswith("model,fold,scenes,threshold,dice,iou,precision,recall\n")


def test_nothing_is_read_twice(make_prepared: Callable[..., Prepared], tmp_path: Path) -> None:
    """Each fold is a task; a mean that is known costs none, and of another selection only what is new is read."""
    prepared = make_prepared(scenes=2)
    _write_probs(tmp_path, 0, prepared, 0.9, 0.1)
    _write_probs(tmp_path, 1, prepared, 0.1, 0.9)
    stage = Here()
    scorer = Scorer(tmp_path, prepared, stage)
    scorer.read([({0: 1.0}, SPLITS[0])])
    alone = scorer.score(Selection({0: 1.0}), SPLITS)
    assert scorer.score(Selection({0: 1.0}, ({0: 1.0}, {0: 1.0})), SPLITS) == alone
    assert [scene.scene for fold in alone.folds for scene in fold.scenes] == ["scene0", "scene1"]
    scorer.score(Selection({0: 0.5, 1: 0.5}, ({1: 1.0}, {0: 1.0})), SPLITS)
    assert [tasks for _, tasks, _ in stage.ran if tasks] == [1, 1, 4]
