from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState, create_trial

from sn7.errors import ResultsConflict, StudyInvalid
from sweep.search import NOTEBOOK, earlier_trials, ended_trials, next_trial, open_optuna, set_waiting
from sweep.study import Study
from sweep.studyfile import load_study


@pytest.fixture
def study(write_study: Callable[..., Path]) -> Study:
    """Return a small study."""
    return load_study(write_study())


def _next(opened: optuna.Study, study: Study, **more: Any) -> optuna.Trial:
    trial = next_trial(opened, study, **more)
    assert trial is not None
    return trial


def test_the_notebook_recipe_is_the_first_trial(study: Study, tmp_path: Path) -> None:
    """Its own values come first; the second is drawn."""
    opened = open_optuna(study, tmp_path)
    first, second = _next(opened, study), _next(opened, study)
    assert (first.number, first.params) == (0, {"lr_max": 3e-4, "building_weight": 0.75})
    assert first.user_attrs == {NOTEBOOK: True}
    assert second.number == 1 and second.params["lr_max"] != 3e-4 and second.user_attrs == {}


def test_the_start_is_the_second_trial(study: Study) -> None:
    """Fields that it does not name have the notebook recipe's value; the third trial is drawn."""
    study = replace(study, start={"lr_max": 2e-3})
    opened = open_optuna(study, None)
    drawn = [_next(opened, study).params for _ in range(3)]
    assert drawn[1] == {"lr_max": 2e-3, "building_weight": 0.75}
    assert drawn[0] != drawn[2] != drawn[1]


def test_the_seed_decides_what_is_drawn(study: Study) -> None:
    """Two studies in memory draw the same configurations, all different."""
    drawn = []
    for _ in range(2):
        opened = open_optuna(study, None)
        drawn.append([_next(opened, study).params for _ in range(4)])
    assert drawn[0] == drawn[1]
    assert len({values["lr_max"] for values in drawn[0]}) == 4


def test_a_reopened_study_draws_what_it_would_have_drawn(study: Study, tmp_path: Path) -> None:
    """What comes next depends on what is known, not on how often the driver was started."""
    at_once = open_optuna(study, tmp_path / "a")
    whole = [_next(at_once, study).params for _ in range(4)]
    parts = [_next(open_optuna(study, tmp_path / "b"), study).params for _ in range(4)]
    assert parts == whole


def test_a_trial_that_waits_comes_first_as_itself(study: Study, tmp_path: Path) -> None:
    """A trial that was cut off keeps its number, values and reports, and no other takes its place."""
    opened = open_optuna(study, tmp_path)
    _next(opened, study)
    cut_off = _next(opened, study)
    cut_off.report(0.3, 1)
    set_waiting(opened, opened.trials[1])
    assert [trial.state for trial in opened.trials] == [TrialState.RUNNING, TrialState.WAITING]
    again = _next(open_optuna(study, tmp_path), study)
    assert (again.number, again.params) == (1, cut_off.params)
    assert open_optuna(study, tmp_path).trials[1].intermediate_values == {1: 0.3}
    assert len(opened.trials) == 2


def test_no_configuration_is_tried_twice(study: Study, tmp_path: Path) -> None:
    """A space of four: four trials, all different, then none."""
    small = replace(
        study,
        search={"batch_size": {"choice": [4, 12]}, "images_per_scene": {"choice": [1, 2]}},
        train={key: value for key, value in study.train.items() if key != "batch_size"},
        trials=4,
    )
    opened = open_optuna(small, tmp_path)
    tried = []
    while trial := next_trial(opened, small):
        tried.append(tuple(sorted(trial.params.items())))
        opened.tell(trial, 0.5)
    assert len(tried) == len(set(tried)) == 4


def test_a_space_that_is_searched_to_its_end_by_tpe(study: Study) -> None:
    """TPE alone would name its favourite again and again: 24 of 24 are found, whatever their values say."""
    small = replace(
        study,
        search={"batch_size": {"int": [4, 15]}, "images_per_scene": {"choice": [1, 2]}},
        train={key: value for key, value in study.train.items() if key != "batch_size"},
        trials=24,
    )
    opened = open_optuna(small, None)
    for count in range(24):
        trial = _next(opened, small)
        opened.tell(trial, 1.0 if trial.params["batch_size"] == 12 else count / 100)
    assert len({tuple(sorted(trial.params.items())) for trial in opened.trials}) == 24
    assert next_trial(opened, small) is None


def test_the_last_of_many_is_found(study: Study) -> None:
    """A space of 600 with one configuration left: what draws miss is counted through."""
    large = replace(
        study,
        search={"batch_size": {"int": [1, 300]}, "images_per_scene": {"choice": [1, 2]}},
        train={key: value for key, value in study.train.items() if key != "batch_size"},
        trials=600,
    )
    opened = open_optuna(large, None)
    opened.tell(_next(opened, large), 0.5)
    everything = list(large.space.configurations())
    assert len(everything) == large.space.size == 600
    missing = {"batch_size": 217, "images_per_scene": 2}
    for values in everything:
        if values not in (missing, opened.trials[0].params):
            opened.add_trial(create_trial(params=values, distributions=large.space.distributions(values), value=0.1))
    assert _next(opened, large).params == missing
    assert next_trial(opened, large) is None


def test_neighbouring_seeds_draw_different_starts(study: Study) -> None:
    """Seed 1's first draws are not seed 0's second."""
    drawn = []
    for seed in (0, 1):
        opened = open_optuna(replace(study, seed=seed), None)
        drawn.append([_next(opened, replace(study, seed=seed)).params["lr_max"] for _ in range(4)][1:])
    assert not set(drawn[0]) & set(drawn[1])


def test_only_what_has_ended_counts(study: Study, tmp_path: Path) -> None:
    """COMPLETE, PRUNED and FAILED; not RUNNING, not what waits."""
    opened = open_optuna(study, tmp_path)
    complete, pruned, failed, waits = (_next(opened, study) for _ in range(4))
    opened.tell(complete, 0.5)
    pruned.report(0.2, 1)
    opened.tell(pruned, state=TrialState.PRUNED)
    opened.tell(failed, state=TrialState.FAIL)
    set_waiting(opened, opened.trials[waits.number])
    assert [trial.number for trial in ended_trials(opened)] == [0, 1, 2]


def test_an_earlier_study_informs_the_search(study: Study, tmp_path: Path) -> None:
    """Its trials lead TPE to where they were good, count for nothing here, and those of no use are named."""
    before = replace(study, trials=40, name="before")
    opened = open_optuna(before, tmp_path / "before")
    for _ in range(30):
        trial = _next(opened, before)
        opened.tell(trial, 1.0 - abs(trial.params["building_weight"] - 0.6))
    opened.tell(_next(opened, before), state=TrialState.FAIL)
    later = replace(study, warm_start=str(tmp_path / "before"))
    taken, left_out = earlier_trials(later, tmp_path / "later")
    assert len(taken) == 30
    assert left_out == ["trial 30 of before: it is FAILED"]
    (tmp_path / "before/optuna.db").unlink()
    again, _ = earlier_trials(later, tmp_path / "later")
    assert [(t.params, t.value) for t in again] == [(t.params, t.value) for t in taken], "kept with the study"

    fresh = open_optuna(later, tmp_path / "later")
    drawn = [_next(fresh, later, earlier=taken).params["building_weight"] for _ in range(9)][1:]
    assert len(fresh.trials) == 9
    near = sum(abs(weight - 0.6) < 0.1 for weight in drawn)
    assert near >= 6, f"TPE knows 30 trials, yet drew {drawn}"


def test_an_earlier_study_that_is_no_use_is_refused(study: Study, tmp_path: Path) -> None:
    """No database; trials of another space."""
    with pytest.raises(StudyInvalid, match=r"holds no optuna\.db; wanted the results folder"):
        earlier_trials(replace(study, warm_start=str(tmp_path / "nothing")), None)
    opened = open_optuna(study, tmp_path)
    opened.tell(_next(opened, study), 0.5)
    other = replace(study, search={"weight_decay": {"uniform": [0.0, 0.1]}}, warm_start=str(tmp_path))
    with pytest.raises(StudyInvalid, match="has no trial to learn from"):
        earlier_trials(other, None)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"of": "before", "trials": [1], "left_out": []}'])
def test_what_was_kept_of_an_earlier_study_is_damaged(study: Study, tmp_path: Path, text: str) -> None:
    """It is named, with what to do."""
    (tmp_path / "earlier.json").write_text(text)
    with pytest.raises(ResultsConflict, match=r"earlier\.json cannot be read \(.+\); remove it, and before is read"):
        earlier_trials(replace(study, warm_start="before"), tmp_path)


def test_a_damaged_database_is_named(study: Study, tmp_path: Path) -> None:
    """One sentence with its path."""
    (tmp_path / "optuna.db").write_bytes(b"not a database" * 100)
    with pytest.raises(ResultsConflict, match=r"optuna\.db cannot be opened") as caught:
        open_optuna(study, tmp_path)
    assert "\n" not in str(caught.value)
