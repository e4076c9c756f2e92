from pathlib import Path

import pytest

from sn7.folds import Split
from sn7.train import EpochMetrics
from sweep.board import Board, duration
from sweep.trial import Objective, split_folder

SPLITS = (Split("fold0", ("a",), ("b",)), Split("fold1", ("b",), ("a",)))


def _epoch(epoch: int, dice: float) -> EpochMetrics:
    return EpochMetrics(epoch, 1.0, 1.0, dice, dice / 2, dice, dice, 1e-3, 1.0, 1.0)


def test_the_objective_is_the_best_epoch_averaged_over_the_folds() -> None:
    """Fold 0 peaks at 0.6 and falls; fold 1 reaches 0.4: 0.5 at the end, and never the last epoch's value."""
    objective = Objective(SPLITS)
    reports = [
        objective.add(0, _epoch(1, 0.6)),
        objective.add(0, _epoch(2, 0.3)),
        objective.add(1, _epoch(1, 0.2)),
        objective.add(1, _epoch(2, 0.4)),
    ]
    assert [report["objective"] for report in reports] == pytest.approx([0.6, 0.6, 0.4, 0.5])
    assert [report["split"] for report in reports] == ["fold0", "fold0", "fold1", "fold1"]
    assert reports[-1]["dice_std"] == pytest.approx(0.1)
    assert reports[-1]["iou"] == pytest.approx(0.25)
    assert reports[-1]["epochs_trained"] == 4


def test_a_training_has_a_folder_of_its_own() -> None:
    """Trial number and split; a colon is no part of a folder's name everywhere."""
    assert split_folder(Path("r"), 7, "random:0") == Path("r/trials/0007/random-0")


def test_the_board_counts_and_estimates() -> None:
    """Endings, running epochs, the best so far; saved epochs shorten what is left."""
    board = Board(trials=3, epochs=12)
    board.catch_up(0, "COMPLETE", 0.7, 4)
    board.start(1)
    board.epoch(1, "epoch 1/4", 0.5)
    assert "trials 1/3 finished · #1 epoch 1/4 · best Dice 0.700 (#0)" in board.line()
    assert board.line().endswith("left")
    board.end(1, "PRUNED", epochs_saved=3)
    assert "trials 2/3 finished · 1 pruned · best" in board.line()
    assert board.epochs == 5


@pytest.mark.parametrize(("seconds", "said"), [(42, "42 s"), (600, "10 min"), (9000, "2.5 h")])
def test_durations(seconds: float, said: str) -> None:
    """In the unit that people would use."""
    assert duration(seconds) == said
