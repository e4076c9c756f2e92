"""Selection among configurations on out-of-fold probs that are made up, so that the answer is known."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from stages import Here

from sn7.folds import Split
from sn7.prepared import MASK, Prepared
from sweep.selection import Selection, select

SPLITS = [Split(f"fold{i}", tuple(f"scene{j}" for j in range(3) if j != i), (f"scene{i}",)) for i in range(3)]


def _write(results: Path, trial: int, prepared: Prepared, right_on: tuple[str, ...]) -> None:
    """Write probs that are perfect on some scenes and upside down on the others."""
    for image in prepared.images:
        mask = prepared.pixels(image)[MASK] == 1
        path = results / "oof" / f"{trial:04d}" / image.array
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, np.where(mask == (image.scene in right_on), 0.9, 0.1).astype(np.float16))


def test_each_fold_is_judged_by_what_the_others_choose(make_prepared: Callable[..., Prepared], tmp_path: Path) -> None:
    """Trial 4 is right on scenes 0 and 1, trial 9 on scene 2 alone: without fold 2, 4 is chosen, and it fails there."""
    prepared = make_prepared(scenes=3)
    _write(tmp_path, 4, prepared, ("scene0", "scene1"))
    _write(tmp_path, 9, prepared, ("scene2",))
    stage = Here()
    selection = select([4, 9], SPLITS, tmp_path, prepared, stage)
    assert selection.nested[2] == {4: 1.0}
    assert stage.ran == [("folds read", 3, False)] and stage.beats == [0] * 4
    assert all(sum(weights.values()) == pytest.approx(1) for weights in (selection.weights, *selection.nested))


def test_a_share_of_the_pixels_is_enough(
    make_prepared: Callable[..., Prepared], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of folds that are large some pixels are drawn, the same ones each time, and the better configuration wins."""
    prepared = make_prepared(scenes=3)
    _write(tmp_path, 0, prepared, ("scene0", "scene1", "scene2"))
    _write(tmp_path, 1, prepared, ())
    monkeypatch.setattr("sweep.selection.PIXELS", 200)
    first, second = (select([0, 1], SPLITS, tmp_path, prepared, Here()) for _ in range(2))
    assert first == second
    assert first.weights == {0: 1.0} and first.nested == ({0: 1.0},) * 3


def test_one_alone_needs_no_choice(make_prepared: Callable[..., Prepared], tmp_path: Path) -> None:
    """Nothing is read, not even whether there are probs."""
    stage = Here()
    assert select([7], SPLITS, tmp_path, make_prepared(scenes=3), stage) == Selection({7: 1.0}, ({7: 1.0},) * 3)
    assert not stage.ran
