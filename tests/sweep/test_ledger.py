"""What the driver remembers of the study's database agrees with what Optuna reads there."""

from collections.abc import Callable
from math import inf, isnan, nan
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from sweep.ledger import Ledger
from sweep.search import open_optuna
from sweep.study import Study
from sweep.studyfile import load_study


@pytest.fixture
def study(write_study: Callable[..., Path]) -> Study:
    """Return a small study."""
    return load_study(write_study())


def _next(ledger: Ledger, study: Study) -> optuna.Trial:
    trial = ledger.next(study, ())
    assert trial is not None
    return trial


def test_reports_are_what_optuna_would_have_written(study: Study, tmp_path: Path) -> None:
    """Optuna reads each value at its step, what is not finite too, in this process and from the file."""
    ledger = Ledger(open_optuna(study, tmp_path))
    trial = _next(ledger, study)
    values = {1: 0.25, 2: nan, 3: inf, 5: 1e-9}
    for step, value in values.items():
        ledger.report(trial, value, step)
    for opened in (ledger.opened, open_optuna(study, tmp_path)):
        read = dict(opened.trials[0].intermediate_values)
        assert isnan(read.pop(2))
        assert read == {1: 0.25, 3: inf, 5: 1e-9}


def test_a_step_is_written_once(study: Study, tmp_path: Path) -> None:
    """An epoch that comes again after a lost attempt, in this start or a later one, changes nothing."""
    ledger = Ledger(open_optuna(study, tmp_path))
    trial = _next(ledger, study)
    ledger.report(trial, 0.3, 1)
    ledger.report(trial, 0.9, 1)
    ledger.wait(trial)
    assert ledger.waiting
    again = Ledger(open_optuna(study, tmp_path))
    assert again.last_step(0) == 1
    trial = _next(again, study)
    again.report(trial, 0.9, 1)
    again.report(trial, 0.4, 2)
    assert again.opened.trials[0].intermediate_values == {1: 0.3, 2: 0.4}
    assert again.reached(1) == {0: 0.3} and again.reached(2) == {0: 0.4} and again.reached(3) == {}


def test_what_is_remembered_is_what_is_there(study: Study, tmp_path: Path) -> None:
    """After each change of a state: who runs, waits and has ended, and with what."""
    ledger = Ledger(open_optuna(study, tmp_path))
    assert ledger.waiting, "the notebook recipe"
    trials = [_next(ledger, study) for _ in range(4)]
    ledger.report(trials[2], 0.2, 1)
    told = [
        ledger.tell(trials[0], TrialState.COMPLETE, 0.5),
        ledger.tell(trials[1], TrialState.FAIL),
        ledger.tell(trials[2], TrialState.PRUNED),
    ]
    assert [(trial.state.name, trial.value) for trial in told] == [("COMPLETE", 0.5), ("FAIL", None), ("PRUNED", 0.2)]
    assert not ledger.waiting
    ledger.wait(trials[3])
    assert ledger.waiting and [trial.number for trial in ledger.ended] == [0, 1, 2]
    assert ledger.trials == open_optuna(study, tmp_path).trials


def test_the_database_is_read_after_changes_alone(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reports and questions between them read nothing: with many trials, a reading takes a tenth of a second."""
    ledger = Ledger(open_optuna(study, tmp_path))
    trial = _next(ledger, study)
    assert not ledger.waiting
    with monkeypatch.context() as patched:
        patched.delattr(optuna.Study, "get_trials")
        for step in range(1, 5):
            ledger.report(trial, step / 10, step)
            assert not ledger.waiting and not ledger.ended and ledger.reached(step) == {0: step / 10}
    ledger.tell(trial, TrialState.COMPLETE, 0.4)
    assert [trial.value for trial in ledger.ended] == [0.4]
