from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState
from ray.tune.search import Searcher

from sn7.errors import ResultsConflict
from sweep.leaderboard import leaderboard
from sweep.search import NOTEBOOK, StudySearch, end_interrupted, ended_trials, open_optuna, record_error
from sweep.study import Study, load_study


@pytest.fixture
def study(write_study: Callable[..., Path]) -> Study:
    """Return a small study."""
    return load_study(write_study())


def _result(step: int, objective: float, **more: Any) -> dict[str, Any]:
    return {"training_iteration": step, "objective": objective, "dice": objective, "epochs_trained": step, **more}


def test_the_notebook_recipe_is_the_first_trial(study: Study, tmp_path: Path) -> None:
    """Its own values come first; the second is drawn."""
    search = StudySearch(open_optuna(study, tmp_path), study, 2, None)
    assert search.suggest("a") == {"lr_max": 3e-4, "building_weight": 0.75, "trial": 0}
    second = search.suggest("b")
    assert isinstance(second, dict) and second["trial"] == 1 and second["lr_max"] != 3e-4


def test_the_seed_decides_what_is_drawn(study: Study) -> None:
    """Two studies in memory draw the same configurations."""
    drawn = []
    for _ in range(2):
        search = StudySearch(open_optuna(study, None), study, 2, None)
        drawn.append([search.suggest(name) for name in "abc"])
    assert drawn[0] == drawn[1]


def test_endings_are_told_apart(study: Study, tmp_path: Path) -> None:
    """To the end: COMPLETE. Stopped: PRUNED, with the result that Tune hands over only then. Raised: FAIL."""
    opened = open_optuna(study, tmp_path)
    search = StudySearch(opened, study, 3, None)
    for name in "abcd":
        search.suggest(name)
    for step, objective in ((1, 0.4), (2, 0.6), (3, 0.6)):
        search.on_trial_result("a", _result(step, objective))
    search.on_trial_complete("a", _result(3, 0.6, best_epoch=2))
    search.on_trial_result("b", _result(1, 0.2))
    search.on_trial_complete("b", _result(2, 0.3))
    search.on_trial_complete("c", _result(1, 0.1))
    search.on_trial_complete("d", error=True)
    trials = opened.get_trials()
    states = [TrialState.COMPLETE, TrialState.PRUNED, TrialState.PRUNED, TrialState.FAIL]
    assert [trial.state for trial in trials] == states
    assert [trial.value for trial in trials] == [0.6, 0.3, 0.1, None]
    assert trials[0].intermediate_values == {1: 0.4, 2: 0.6, 3: 0.6}
    assert trials[0].user_attrs == {NOTEBOOK: True, "dice": 0.6, "best_epoch": 2, "epochs_trained": 3}
    assert trials[1].intermediate_values == {1: 0.2, 2: 0.3}
    assert [trial.number for trial in ended_trials(opened)] == [0, 1, 2, 3]


def test_the_deadline_cuts_off_without_a_verdict(study: Study, tmp_path: Path) -> None:
    """A trial that is stopped by the deadline does not count, and its configuration comes again."""
    opened = open_optuna(study, tmp_path)
    search = StudySearch(opened, study, 3, None)
    first = search.suggest("a")
    search.suggest("b")
    search.deadline = 0.0
    search.on_trial_complete("a", _result(1, 0.1))
    search.on_trial_complete("b", _result(3, 0.5))
    assert [trial.state for trial in opened.get_trials()] == [TrialState.RUNNING, TrialState.COMPLETE]
    assert end_interrupted(opened) == [0]
    assert [trial.number for trial in ended_trials(opened)] == [1]
    again = StudySearch(opened, study, 3, None).suggest("c")
    assert isinstance(again, dict) and isinstance(first, dict)
    assert again == {**first, "trial": 2}


def test_after_the_deadline_nothing_is_suggested(study: Study, tmp_path: Path) -> None:
    """The study ends in order."""
    opened = open_optuna(study, tmp_path)
    assert StudySearch(opened, study, 2, deadline=0.0).suggest("a") == Searcher.FINISHED
    assert not ended_trials(opened)


def test_a_trial_that_was_cut_off_starts_again_as_another(study: Study, tmp_path: Path) -> None:
    """A killed driver leaves RUNNING trials: they do not count, and their configurations come first."""
    search = StudySearch(open_optuna(study, tmp_path), study, 2, None)
    first, second = search.suggest("a"), search.suggest("b")
    reopened = open_optuna(study, tmp_path)
    assert end_interrupted(reopened) == [0, 1]
    assert end_interrupted(reopened) == []
    assert not ended_trials(reopened)
    again = StudySearch(reopened, study, 2, None)
    for number, (name, before) in enumerate((("c", first), ("d", second)), 2):
        values = again.suggest(name)
        assert isinstance(values, dict) and isinstance(before, dict)
        assert values == {**before, "trial": number}
    assert [trial.number for trial in reopened.trials if trial.user_attrs.get(NOTEBOOK)] == [0, 2]


def test_a_resumed_study_does_not_draw_the_same_again(study: Study, tmp_path: Path) -> None:
    """The sampler's seed moves on with the trials."""
    search = StudySearch(open_optuna(study, tmp_path), study, 2, None)
    before = [search.suggest(name) for name in "abc"]
    for name in "abc":
        search.on_trial_complete(name, error=True)
    after = StudySearch(open_optuna(study, tmp_path), study, 2, None).suggest("d")
    assert isinstance(after, dict)
    assert after["lr_max"] not in [values["lr_max"] for values in before if isinstance(values, dict)]


def test_a_damaged_database_is_named(study: Study, tmp_path: Path) -> None:
    """One sentence with its path."""
    (tmp_path / "optuna.db").write_bytes(b"not a database" * 100)
    with pytest.raises(ResultsConflict, match=r"optuna\.db cannot be opened") as caught:
        open_optuna(study, tmp_path)
    assert "\n" not in str(caught.value)


def test_the_reason_of_a_failure_is_kept_after_the_trial_has_ended(study: Study, tmp_path: Path) -> None:
    """Tune tells the search first and shows the traceback later; the leaderboard has its last line."""
    opened = open_optuna(study, tmp_path)
    search = StudySearch(opened, study, 2, None)
    search.suggest("a")
    search.on_trial_complete("a", error=True)
    record_error(opened, 0, "Traceback (most recent call last):\n  ...\nValueError: no memory\n\n")
    (row,) = leaderboard(opened)
    assert (row["trial"], row["state"], row["error"]) == (0, "FAILED", "ValueError: no memory")
