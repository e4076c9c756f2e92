"""The nested search on counts that are made up, so that what each fold should get is known."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
import pytest

from sn7.errors import ResultsConflict
from sweep.found import Params
from sweep.journal import Journal, Run, read_lines
from sweep.nested import Search, search_nested
from sweep.records import Records

BEST = (0.2, 0.8, 0.8)
"""The value of x at which each fold scores 1."""


def _search(calls: list[tuple[float, int]], trials: int = 12, **about: Any) -> Search[float]:
    def evaluate(params: Params, fold: int) -> float:
        calls.append((params["x"], fold))
        return 1 - abs(params["x"] - BEST[fold])

    def suggest(trial: optuna.trial.BaseTrial, held_out: int | None) -> Params:
        return {"x": trial.suggest_float("x", 0, 1, step=0.1)}

    def score(counts: Sequence[float]) -> tuple[float, ...]:
        return (sum(counts) / len(counts),)

    return Search("made-up", suggest, evaluate, score, ("mean",), lambda held_out: {"x": 0.5}, trials, 0, about)


def test_a_fold_is_scored_with_what_the_others_found(tmp_path: Path) -> None:
    """Fold 0 alone wants 0.2: the others find 0.8, at which it scores 0.4; what is used suits most folds."""
    tuned = search_nested(_search([]), 3, tmp_path)
    assert tuned.found[0].params == {"x": pytest.approx(0.8)}
    assert tuned.by_fold[0] == (pytest.approx(0.4),)
    assert tuned.params == {"x": pytest.approx(0.8)}
    assert tuned.optimistic == (pytest.approx((0.4 + 1 + 1) / 3),)
    assert tuned.baseline == (pytest.approx(0.7),)
    assert tuned.to_json(["mean"])["before_optimistic"] == {"mean": pytest.approx(0.7)}
    assert tuned.nested[0] <= tuned.optimistic[0]
    assert all(found.trials[0][0] == {"x": 0.5} for found in tuned.found), "each begins with the baseline"
    now = 1000 * time.time()
    assert all(now - 60_000 < found.span[0] <= found.span[1] <= now for found in tuned.found)


def test_nothing_is_evaluated_twice_and_a_search_goes_on(tmp_path: Path) -> None:
    """A second start with the same arguments evaluates the chosen ones alone; with other data all is new."""
    calls: list[tuple[float, int]] = []
    first = search_nested(_search(calls), 3, tmp_path)
    assert len(calls) == len(set(calls))
    again: list[tuple[float, int]] = []
    assert search_nested(_search(again), 3, tmp_path) == first
    assert len(again) <= 6
    other: list[tuple[float, int]] = []
    search_nested(_search(other, data="other"), 3, tmp_path)
    assert len(other) == len(calls)


def test_a_search_that_goes_on_tries_what_is_new(tmp_path: Path) -> None:
    """Cut off half way it draws what it would have drawn, and all searches begin with the same draws."""
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
    whole = search_nested(_search([]), 3, tmp_path / "whole")
    search_nested(_search([], trials=6), 3, tmp_path / "cut")
    gone_on = search_nested(_search([]), 3, tmp_path / "cut")
    assert [found.trials for found in gone_on.found] == [found.trials for found in whole.found]
    firsts = [[params["x"] for params, _ in found.trials[:10]] for found in whole.found]
    assert firsts[0] == firsts[1] == firsts[2] == firsts[3]


def test_a_journal_that_is_torn(tmp_path: Path) -> None:
    """What was tried before the torn line is not tried again; damage within is told with the file's name."""
    search_nested(_search([], trials=6), 3, tmp_path)
    log = tmp_path / "tuning.log"
    whole = log.read_bytes()
    log.write_bytes(whole + b'{"op_code":4,"worker_')
    calls: list[tuple[float, int]] = []
    search_nested(_search(calls, trials=6), 3, tmp_path)
    assert len(calls) <= 6 and log.read_bytes().startswith(whole)
    log.write_bytes(whole[:100] + whole[150:])
    with pytest.raises(ResultsConflict, match=r"tuning\.log cannot be read .* remove it"):
        search_nested(_search([], trials=6), 3, tmp_path)


def test_an_error_and_a_stop_end_it(tmp_path: Path) -> None:
    """What an evaluation raises comes out, as does Ctrl-C; what was tried until then is kept."""

    def broken(params: Params, fold: int) -> float:
        if fold == 0:  # which the first search does not see
            raise OSError("gone")
        return 0.5

    search = _search([])
    with pytest.raises(OSError, match="gone"):
        search_nested(Search(**{**vars(search), "evaluate": broken}), 3, tmp_path)
    beats = iter([None, KeyboardInterrupt])

    def beat() -> None:
        if error := next(beats):
            raise error

    def slow(params: Params, fold: int) -> float:
        time.sleep(0.1)
        return 0.5

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        search_nested(Search(**{**vars(search), "evaluate": slow, "trials": 1000}), 3, tmp_path, beat)
    assert time.monotonic() - started < 5


def test_its_runs_in_mlflow(tmp_path: Path) -> None:
    """Below the study's run, each with a name and tags that no other has, closed."""
    records = Records(Journal(tmp_path / "tiny", "tiny", "0123"))
    records.search("made-up", 1, (1000, 3000), {"x": 0.8}, {"mean": 0.5}, "x\n0.8\n")
    records.search("made-up", None, (2000, 4000), {"x": 0.8}, {"mean": 0.6}, "x\n0.8\n")
    of_fold, of_all = Run("made-up", part=1), Run("made-up")
    assert (of_fold.label, of_all.label) == ("made-up without fold 1", "made-up on all folds")
    assert of_fold.tags == {"sn7.kind": "made-up", "sn7.held_out": "1"}
    assert of_all.tags == {"sn7.kind": "made-up", "sn7.held_out": "none"}
    assert of_fold.parent == of_all.parent == Run("study")
    assert not records.journal.open
    lines = [line.record for line in read_lines(records.journal.path)][1:]
    assert [line["op"] for line in lines] == ["log", "status", "log", "text", "log", "status"] * 2
    assert lines[2]["tags"] == {"best.x": "0.8"} and lines[4]["metrics"] == {"mean": 0.5}
    assert (lines[0]["time"], lines[5]["time"]) == (1000, 3000), "as long as it took, however late it is told"


def test_what_a_search_finds_no_more_is_blank(tmp_path: Path) -> None:
    """An earlier start found seeds, this one none: its tags do not mix the two."""
    Records(Journal(tmp_path / "tiny", "tiny", "0123")).search("made-up", None, (1, 2), {"x": 1, "seeds": 0.4}, {}, "")
    journal = Journal(tmp_path / "tiny", "tiny", "0123")
    Records(journal).search("made-up", None, (1, 2), {"x": 2}, {}, "")
    tags: dict[str, str] = {}
    for line in read_lines(journal.path):
        tags |= line.record.get("tags", {})
    assert tags == {"state": "COMPLETE", "best.x": "2", "best.seeds": ""}
