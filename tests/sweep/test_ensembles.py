"""What a study keeps of its ensemble, for what is tuned on it later."""

from pathlib import Path

import pytest

from sn7.errors import StudyInvalid
from sn7.files import write_json
from sn7.metrics import Counts
from sweep.costs import Cost
from sweep.ensembles import SUMMARY, Candidate, folds_json, read_chosen
from sweep.scoring import FoldScore, OutOfFold
from sweep.selection import Selection


def test_choices_are_kept_fold_by_fold(tmp_path: Path) -> None:
    """Weights and thresholds of all folds, and those that each fold has not seen."""
    selection = Selection({3: 0.75, 12: 0.25}, ({3: 1.0}, {12: 1.0}))
    folds = tuple(FoldScore(fold, 0.3 + 0.1 * fold, (), selection.nested[fold]) for fold in (0, 1))
    chosen = Candidate("ensemble", selection, OutOfFold(0.5, folds, Counts()), Cost(2, 1, 0.1, None))
    about = {**chosen.to_json(), "threshold": 0.5, "folds": folds_json(chosen)}
    write_json(tmp_path / SUMMARY, {"ensemble": about})
    assert read_chosen(tmp_path) == (selection, chosen.thresholds) == (selection, {None: 0.5, 0: 0.3, 1: 0.4})


def test_a_study_that_does_not_say(tmp_path: Path) -> None:
    """One that is not complete, and one of a version that kept the ensemble alone."""
    with pytest.raises(StudyInvalid, match=r"no complete study; .* go on with --resume"):
        read_chosen(tmp_path)
    write_json(tmp_path / SUMMARY, {"ensemble": {"weights": {"3": 1.0}, "threshold": 0.5}})
    with pytest.raises(StudyInvalid, match="remove it and go on with --resume"):
        read_chosen(tmp_path)
