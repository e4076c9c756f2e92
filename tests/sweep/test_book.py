"""The life of trials without Ray: the book is told what Tune would tell it."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest

from sn7.folds import Split
from sn7.train import EpochMetrics
from sweep.board import Board
from sweep.book import Book
from sweep.budget import Budget
from sweep.endings import mend
from sweep.failures import Failure
from sweep.journal import Journal
from sweep.leaderboard import leaderboard
from sweep.records import Records
from sweep.search import open_optuna
from sweep.study import Study
from sweep.studyfile import load_study
from sweep.trial import Job, Objective
from sweep.trials import _Callback
from sweep.usage import Place
from sweep.versions import versions

SPLITS = (Split("fold0", ("a",), ("b",)), Split("fold1", ("b",), ("a",)))
HERE = Place("n1", "host", "default", "x86_64", versions())


class Desk:
    """A study in a folder, and the book of one start of it."""

    def __init__(self, study: Study, folder: Path, splits: tuple[Split, ...] = SPLITS[:1]) -> None:
        self.study, self.folder = study, folder
        self.job = Job(folder, folder / "prepared", study.base, splits)
        self.opened = open_optuna(study, folder)
        self.records = Records(Journal(folder, study.name, "identity"))
        self.cut_off = mend(self.opened, self.records, self.job)
        self.board = Board(study.trials, 100)
        self.budget = Budget(study, self.opened, 0)
        self.book = Book(
            study, self.job, self.opened, [], self.records, self.board, self.budget, {"commit": "c"}, nodes=self.nodes
        )
        self.objectives: dict[str, Objective] = {}

    def nodes(self) -> list[dict[str, Any]]:
        """Return one node, with room for 8 trials."""
        return [{"NodeID": "n1", "Alive": True, "Resources": {"CPU": 8.0}}]

    def start(self, name: str) -> int:
        """Ask for a trial and start it as attempt `name`; return its number."""
        values = self.book.next(name)
        assert values is not None
        self.book.started(name)
        self.objectives[name] = Objective()
        return int(values["trial"])

    def epoch(self, name: str, dice: float, split: int = 0, kept: bool = True) -> bool:
        """Report an epoch, with a checkpoint or without, as a worker does; return whether the attempt goes on."""
        objective = self.objectives[name]
        epoch = objective.step % self.study.base.epochs + 1
        metrics = EpochMetrics(epoch, 1.0, 1.0, dice, dice / 2, dice, dice, 1e-3, 50.0, 2.0, 100.0, 4)
        objective.add(split, metrics)
        about = {"split": split, "epoch": metrics, "system": (), "kept": kept}
        return self.book.result(name, {**objective.result(), **about})

    def states(self) -> dict[int, str]:
        """Return the state of each trial, which leaderboard and records must agree on."""
        rows = {row["trial"]: row["state"] for row in leaderboard(self.opened)}
        assert {number: self.records.state(number) for number in rows} == rows
        return rows


@pytest.fixture
def study(write_study: Callable[..., Path]) -> Study:
    """Return a study of 4 trials of 6 epochs that compares them after 2."""
    read = load_study(write_study({"epochs = 2": "epochs = 6"}))
    return replace(read, grace_epochs=2)


@pytest.fixture
def desk(study: Study, tmp_path: Path) -> Desk:
    """Return the first start of the study."""
    return Desk(study, tmp_path)


def _journal(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]


def test_a_trial_that_trains_to_its_end(desk: Desk) -> None:
    """COMPLETE everywhere; its value is the best epoch's Dice, not the last's."""
    number = desk.start("a")
    assert [desk.epoch("a", dice) for dice in (0.1, 0.2, 0.6, 0.4, 0.5, 0.3)] == [True] * 6
    desk.book.ended("a")
    trial = desk.opened.trials[number]
    assert (trial.state.name, trial.value, trial.user_attrs["best_epoch"]) == ("COMPLETE", 0.6, 3)
    assert trial.intermediate_values == {1: 0.1, 2: 0.2, 3: 0.6, 4: 0.6, 5: 0.6, 6: 0.6}
    assert desk.states() == {0: "COMPLETE"}
    params = next(line["params"] for line in _journal(desk.folder) if "params" in line)
    assert params["epochs"] == "6" and params["lr_max"] == "0.0003"


def test_a_trial_that_is_behind_at_a_rung_is_pruned(desk: Desk) -> None:
    """The last of three after 2 epochs; the recipe goes on whatever it has."""
    desk.start("a")
    desk.start("b")
    assert desk.epoch("b", 0.5) and desk.epoch("b", 0.5)
    assert desk.epoch("a", 0.1) and desk.epoch("a", 0.1), "the notebook recipe is never pruned"
    desk.start("c")
    assert desk.epoch("c", 0.05)
    assert not desk.epoch("c", 0.05)
    (desk.job.folder(2, 0) / "model").mkdir(parents=True)
    (desk.job.folder(2, 0) / "model" / "weights.safetensors").touch()
    (desk.job.folder(2, 0) / "checkpoint.pt").touch()
    desk.book.ended("c")
    assert desk.opened.trials[2].state.name == "PRUNED"
    assert desk.records.state(2) == "PRUNED"
    assert [path.name for path in desk.job.folder(2, 0).rglob("*") if path.is_file()] == []


def test_folds_are_compared_step_by_step(study: Study, tmp_path: Path) -> None:
    """Rungs at epochs 2 and 6 of two folds of 6: a trial that is behind after its first fold trains no second."""
    desk = Desk(study, tmp_path, SPLITS)
    assert desk.book.rungs == (2, 6)
    for name in "ab":
        desk.start(name)
    for dice in (0.2, 0.3, 0.4, 0.5, 0.6, 0.7):
        desk.epoch("b", dice)
    for dice in (0.2, 0.4, 0.5, 0.5, 0.5, 0.4):  # ahead at the first rung, behind at the end of the fold
        desk.epoch("a", dice)
    desk.start("c")
    went_on = [desk.epoch("c", dice) for dice in (0.9, 0.9, 0.1, 0.1, 0.1, 0.1)]
    assert went_on == [True] * 6, "the best of three"
    assert desk.epoch("c", 0.1, split=1)
    desk.start("d")
    assert [desk.epoch("d", dice) for dice in (0.3, 0.5, 0.5, 0.5, 0.5, 0.5)] == [True, True, True, True, True, False]
    desk.book.ended("d")
    trial = desk.opened.trials[3]
    assert (trial.state.name, trial.user_attrs["epochs_trained"]) == ("PRUNED", 6)
    for dice in (0.3, 0.3, 0.3, 0.3, 0.5):
        desk.epoch("c", dice, split=1)
    desk.book.ended("c")
    attributes = desk.opened.trials[2].user_attrs
    assert desk.opened.trials[2].value == pytest.approx(0.7)
    assert attributes["dice_std"] == pytest.approx(0.2)


def test_a_lost_machine_costs_nothing(desk: Desk) -> None:
    """The trial waits, goes on under its number, and its failures are not counted however often it happens."""
    for name in "abcdef":
        assert desk.start(name) == 0
        desk.book.failed(name, Failure("lost", "its node has died", "its node has died"))
        assert desk.states() == {0: "PREEMPTED"}
    assert leaderboard(desk.opened)[0]["preempted"] == 6
    desk.start("g")
    for _ in range(6):
        desk.epoch("g", 0.5)
    desk.book.ended("g")
    (row,) = leaderboard(desk.opened)
    assert (row["state"], row["preempted"], row["failures"], row["error"]) == ("COMPLETE", 6, 0, "")
    assert len(desk.opened.trials) == 1


def test_other_failures_are_counted(desk: Desk) -> None:
    """Two further attempts, then FAILED with the reason; the study goes on with the next."""
    for name in "abc":
        assert desk.start(name) == 0
        desk.book.failed(name, Failure("other", "OSError: no space", "Traceback\nOSError: no space"))
    (row,) = leaderboard(desk.opened)
    assert (row["state"], row["failures"], row["error"]) == ("FAILED", 3, "OSError: no space")
    assert desk.states() == {0: "FAILED"}
    assert any(line.get("text", "").startswith("Traceback") for line in _journal(desk.folder))
    assert desk.start("d") == 1


def test_a_loss_that_is_not_finite_is_not_tried_again(desk: Desk) -> None:
    """FAILED at once."""
    desk.start("a")
    desk.epoch("a", 0.3)
    desk.book.failed("a", Failure("final", "TrainingDiverged: nan", "nan"))
    assert desk.states() == {0: "FAILED"}
    assert leaderboard(desk.opened)[0]["dice"] == 0.3


def test_a_dead_driver(study: Study, tmp_path: Path) -> None:
    """Its running trials go on under their numbers; epochs that come again are not reported twice."""
    desk = Desk(study, tmp_path)
    assert [desk.start("a"), desk.start("b")] == [0, 1]
    for dice in (0.2, 0.3, 0.4):
        desk.epoch("a", dice)
    values = desk.opened.trials[1].params
    again = Desk(study, tmp_path)
    assert again.cut_off == 2
    assert again.states() == {0: "PREEMPTED", 1: "PREEMPTED"}
    assert [again.start("x"), again.start("y")] == [0, 1]
    assert again.opened.trials[1].params == values
    again.objectives["x"] = Objective()
    for dice in (0.2, 0.3, 0.4, 0.5, 0.5, 0.5):  # from the first epoch: there was no checkpoint
        again.epoch("x", dice)
    again.book.ended("x")
    assert again.opened.trials[0].intermediate_values == {1: 0.2, 2: 0.3, 3: 0.4, 4: 0.5, 5: 0.5, 6: 0.5}
    steps = [line["step"] for line in _journal(tmp_path) if "dice" in line.get("metrics", {})]
    assert steps == [1, 2, 3, 4, 5, 6]
    assert again.states() == {0: "COMPLETE", 1: "RUNNING"}


def test_an_end_that_the_records_have_missed(study: Study, tmp_path: Path) -> None:
    """Killed between the database and the journal: the next start writes it."""
    desk = Desk(study, tmp_path)
    desk.start("a")
    desk.epoch("a", 0.4)
    trial = desk.book.attempts["a"].trial
    trial.set_user_attr("dice", 0.4)
    desk.opened.tell(trial, 0.4)
    assert desk.records.state(0) == "RUNNING"
    again = Desk(study, tmp_path)
    assert (again.cut_off, again.states()) == (0, {0: "COMPLETE"})


def test_a_rung_that_was_passed_undecided_is_decided(study: Study, tmp_path: Path) -> None:
    """Killed after the report at the rung, before the verdict: it falls with the next report."""
    desk = Desk(study, tmp_path)
    desk.start("a")
    desk.start("b")
    for dice in (0.5, 0.6, 0.7):
        desk.epoch("a", dice)
    trial = desk.book.attempts["b"].trial
    for step in (1, 2):
        trial.report(0.1, step)
    again = Desk(study, tmp_path)
    assert [again.start("x"), again.start("y")] == [0, 1]
    again.objectives["y"].step = 2
    assert not again.book.result("y", {"step": 2, "objective": 0.1, "dice": 0.1, "place": HERE, "past": ()})


def test_exactly_so_many_trials(desk: Desk) -> None:
    """Four asked for: with two running and two ended nothing comes; when one is lost, it comes again, and no fifth."""
    for name in "ab":
        desk.start(name)
        desk.book.failed(name, Failure("final", "no", "no"))
    assert [desk.start("c"), desk.start("d")] == [2, 3]
    assert desk.book.next("e") is None and not desk.book.done
    desk.book.failed("c", Failure("lost", "its node has died", ""))
    assert desk.start("f") == 2
    assert desk.book.next("g") is None
    for name in "df":
        desk.book.failed(name, Failure("final", "no", "no"))
    assert desk.book.next("h") is None and desk.book.done
    assert len(desk.opened.trials) == 4 and desk.book.over == ""


def test_a_budget_ends_the_search_in_order(study: Study, tmp_path: Path) -> None:
    """Running trials are cut off at a report, if not before it, but for one at its last step; nothing new begins."""
    desk = Desk(replace(study, max_hours=1.0), tmp_path)
    desk.start("a")
    desk.start("b")
    for _ in range(5):
        desk.epoch("a", 0.5)
    desk.budget.spent.hours = 1.5
    assert not desk.epoch("b", 0.4)
    assert desk.epoch("a", 0.5)
    desk.book.ended("a")
    desk.book.ended("b")
    assert desk.states() == {0: "COMPLETE", 1: "PREEMPTED"}
    assert desk.book.next("c") is None and desk.book.done
    assert desk.book.over == "max_hours" and desk.book.stop.requested()


def test_a_search_that_is_done_is_ended_by_no_budget(study: Study, tmp_path: Path) -> None:
    """Where a study goes on after its last trial, what the later stages have cost is in its budget's spent."""
    desk = Desk(replace(study, trials=1, max_hours=1.0), tmp_path)
    desk.start("a")
    for _ in range(study.base.epochs):
        desk.epoch("a", 0.5)
    desk.book.ended("a")
    desk.budget.spent.hours = 1.5
    assert desk.states() == {0: "COMPLETE"}
    assert desk.book.next("b") is None and desk.book.over == "" and not desk.book.stop.requested()


def test_ctrl_c_ends_the_search_in_order(desk: Desk) -> None:
    """As a budget does, under its own name."""
    desk.start("a")
    desk.epoch("a", 0.5)
    desk.book.stop.request()
    assert not desk.epoch("a", 0.5)
    desk.book.ended("a")
    assert (desk.book.over, desk.states()) == ("interrupted", {0: "PREEMPTED"})
    (row,) = leaderboard(desk.opened)
    assert (row["dice"], row["epochs_trained"], row["rank"]) == (0.5, 2, ""), "what it has reached, without a rank"
    assert desk.book.next("b") is None


def test_an_epoch_without_a_checkpoint_is_not_thrown_away(desk: Desk) -> None:
    """It was over just before Ctrl-C: the attempt goes on to the next one, which is kept."""
    desk.start("a")
    desk.book.stop.request()
    assert desk.epoch("a", 0.5, kept=False)
    assert not desk.epoch("a", 0.6)
    desk.book.ended("a")
    assert desk.states() == {0: "PREEMPTED"}


def test_a_plateau_ends_the_search(study: Study, tmp_path: Path) -> None:
    """Two trials in a row without a new best: no further one begins, those that run go on."""
    desk = Desk(replace(study, patience=2, trials=9), tmp_path)
    for name, dice in zip("abc", (0.3, 0.5, 0.2), strict=True):
        desk.start(name)
        for _ in range(6):
            if not desk.epoch(name, dice):
                break
        desk.book.ended(name)
    desk.start("d")
    desk.start("e")
    desk.epoch("d", 0.1)
    desk.epoch("d", 0.1)
    desk.book.ended("d")
    assert desk.book.next("f") is None and not desk.book.done
    assert desk.book.over == "patience"
    assert desk.epoch("e", 0.9) and desk.epoch("e", 0.9), "a running trial is not cut off"


def test_where_a_trial_ran_is_recorded(desk: Desk) -> None:
    """Node, host, type and device are tags of its run, with where the study comes from."""
    desk.start("a")
    assert desk.book.result("a", {"step": 0, "place": HERE, "past": ()})
    tags: dict[str, str] = {}
    for line in _journal(desk.folder):
        tags |= line.get("tags", {})
    assert (tags["node"], tags["device"], tags["commit"], tags["recipe"]) == ("n1", "x86_64", "c", "notebook")
    assert desk.book.attempts["a"].node == "n1"


def test_nothing_is_left_running(study: Study, tmp_path: Path) -> None:
    """What `mend` leaves is PREEMPTED in the database too, not RUNNING."""
    desk = Desk(study, tmp_path)
    desk.start("a")
    assert mend(desk.opened, desk.records, desk.job) == 1
    assert [trial.state for trial in desk.opened.trials] == [optuna.trial.TrialState.WAITING]


def test_no_more_trials_than_the_nodes_hold(study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two at once; when a node comes, a third; with none left nothing starts, and the search has not ended."""
    desk = Desk(study, tmp_path)
    nodes = [
        {"NodeID": "n1", "Alive": True, "Resources": {"CPU": 2.0}},
        {"NodeID": "n2", "Alive": False, "Resources": {"CPU": 2.0}},
    ]
    desk.book.nodes = lambda: nodes
    monkeypatch.setattr("sweep.book.TICK_SECONDS", -1.0)
    desk.start("a")
    desk.start("b")
    assert desk.book.next("c") is None
    nodes[1]["Alive"] = True
    desk.start("c")
    nodes.clear()
    for name in "abc":
        desk.book.failed(name, Failure("lost", "its node has died", ""))
    assert desk.book.next("d") is None and not desk.book.done


def _epoch(epoch: int, dice: float) -> EpochMetrics:
    return EpochMetrics(epoch, 1.0, 1.0, dice, dice / 2, dice, dice, 1e-3, 50.0, 2.0, 100.0, 4)


def test_an_epoch_that_was_trained_and_never_reported(desk: Desk) -> None:
    """Killed between checkpoint and report: the next attempt brings it, to the database and to the records, once."""
    desk.start("a")
    desk.epoch("a", 0.2)
    desk.book.failed("a", Failure("lost", "its node has died", ""))
    desk.start("b")
    past = ((0, _epoch(1, 0.2)), (0, _epoch(2, 0.4)))
    assert desk.book.result("b", {"step": 2, "objective": 0.4, "dice": 0.4, "place": HERE, "past": past})
    assert desk.opened.trials[0].intermediate_values == {1: 0.2, 2: 0.4}
    points = [line for line in _journal(desk.folder) if "train_loss" in line.get("metrics", {})]
    assert [(line["step"], line["metrics"]["dice"]) for line in points] == [(1, 0.2), (2, 0.4)]


def test_folds_that_are_cut_off_do_not_stay_running(study: Study, tmp_path: Path) -> None:
    """The fold's run is closed with its trial's, and opened again when it goes on."""
    desk = Desk(study, tmp_path, SPLITS)
    desk.start("a")
    desk.epoch("a", 0.5)
    desk.book.stop.request()
    desk.epoch("a", 0.5)
    desk.book.ended("a")
    states = {tuple(run): state for run, state in desk.records.journal.states.items()}
    assert states[("trial", 0, -1)] == states[("fold", 0, 0)] == "PREEMPTED"
    assert {run.kind for run in desk.records.journal.open} <= {"study"}


def test_a_full_disk_ends_the_search_in_order(desk: Desk) -> None:
    """The trial waits for room, and no other is spoilt."""
    desk.start("a")
    desk.book.failed("a", Failure("full", "DiskFull: no room", ""))
    assert (desk.book.over, desk.states()) == ("full disk", {0: "PREEMPTED"})
    assert desk.book.next("b") is None and desk.book.done


def test_a_machine_that_cannot_take_part_ends_the_search(desk: Desk) -> None:
    """In order, with the reason; the trial is to be done as before."""
    desk.start("a")
    desk.start("b")
    desk.book.failed("a", Failure("unfit", "does not share the driver's folder", ""))
    assert (desk.book.over, desk.book.unfit) == ("unfit node", "does not share the driver's folder")
    assert not desk.epoch("b", 0.5) and not desk.book.done  # b has a checkpoint, and ends with it
    desk.book.ended("b")
    assert desk.book.done and desk.states() == {0: "PREEMPTED", 1: "PREEMPTED"}
    assert desk.opened.trials[0].user_attrs["preempted"] == 1


def test_each_attempt_has_a_higher_number(study: Study, tmp_path: Path) -> None:
    """Whatever ended the one before: a loss, a failure, a notice after which Tune goes on, the driver's death."""
    desk = Desk(study, tmp_path)
    numbers = []
    for name in "abc":
        values = desk.book.next(name)
        assert values is not None
        numbers.append(values["attempt"])
        if name in "ab":
            desk.book.failed(name, Failure("lost" if name == "a" else "other", "", ""))
    numbers.append(desk.book.recovered("c", "its machine was taken away"))
    values = Desk(study, tmp_path).book.next("d")  # c was running
    assert values is not None and values["trial"] == 0
    assert [*numbers, values["attempt"]] == [1, 2, 3, 4, 5]


def test_tune_may_start_an_attempt_again_by_itself(desk: Desk) -> None:
    """After a notice that its machine is taken away: counted, and a further attempt goes on under the same name."""
    desk.start("a")
    desk.epoch("a", 0.5)
    trial = SimpleNamespace(trial_id="a", config={"attempt": 1})
    _Callback(desk.book).on_trial_recover(0, [], trial)  # type: ignore[arg-type]
    assert trial.config == {"attempt": 2}, "with which Tune starts it"
    desk.book.started("a")
    for _ in range(5):
        desk.epoch("a", 0.5)
    desk.book.ended("a")
    (row,) = leaderboard(desk.opened)
    assert (row["state"], row["preempted"], row["failures"]) == ("COMPLETE", 1, 0)


def test_trials_that_wait_for_machines_do_not_hold_up_an_end(desk: Desk) -> None:
    """Ctrl-C while nothing has begun: there is nothing to wait for."""
    desk.start("a")
    assert not desk.book.idle
    desk.book.stop.request()
    assert desk.book.next("b") is None and desk.book.idle
    desk.book.attempts["a"].node = "n1"
    assert not desk.book.idle


@pytest.mark.parametrize("begun", [True, False])
def test_a_process_that_died_with_its_machine(desk: Desk, monkeypatch: pytest.MonkeyPatch, begun: bool) -> None:
    """Not judged until it is known; then it is free, and the trial comes again. Meanwhile no other takes its place."""
    monkeypatch.setattr("sweep.book.TICK_SECONDS", -1.0)
    two = [{"NodeID": name, "Alive": True, "Resources": {"CPU": 1.0}} for name in ("n1", "n2")]
    desk.book.nodes = lambda: two
    desk.start("a")
    if begun:
        desk.book.result("a", {"step": 0, "place": HERE, "past": ()})
    desk.book.failed("a", Failure("doubtful", "Socket closed", "", 60.0))
    desk.book.tick()
    assert desk.opened.trials[0].state.name == "RUNNING" and not desk.book.done
    two[0]["Alive"] = False
    desk.book.tick()
    assert desk.states() == {0: "PREEMPTED"}
    (row,) = leaderboard(desk.opened)
    assert (row["preempted"], row["failures"]) == (1, 0)
    assert desk.start("b") == 0


def test_a_machine_that_joined_after_its_trial_was_handed_out(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a cluster that begins with its head: lost before the trial has said where it is, it is free."""
    monkeypatch.setattr("sweep.book.TICK_SECONDS", -1.0)
    desk.book.spare = 1
    there = [{"NodeID": "head", "Alive": True, "Resources": {"CPU": 0.0}}]
    desk.book.nodes = lambda: there
    desk.start("a")
    there.append({"NodeID": "n2", "Alive": True, "Resources": {"CPU": 1.0}})
    desk.book.tick()
    there[1]["Alive"] = False
    desk.book.failed("a", Failure("doubtful", "An unexpected internal error occurred", "", 60.0))
    desk.book.tick()
    (row,) = leaderboard(desk.opened)
    assert (row["state"], row["preempted"], row["failures"]) == ("PREEMPTED", 1, 0)


def test_a_process_that_died_by_itself(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its machine is still there when the doubt is over: counted."""
    monkeypatch.setattr("sweep.book.TICK_SECONDS", -1.0)
    for name in "abc":
        assert desk.start(name) == 0
        desk.book.result(name, {"step": 0, "place": HERE, "past": ()})
        desk.book.failed(name, Failure("doubtful", "worker exit 1", "", -1.0))
        desk.book.tick()
    (row,) = leaderboard(desk.opened)
    assert (row["state"], row["failures"], row["error"]) == ("FAILED", 3, "worker exit 1")


def test_a_trial_that_leaves_as_it_was_asked_to(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    """It waits for the next start, with nothing counted against it, no error and no word of another attempt."""
    desk.start("a")
    desk.epoch("a", 0.3)
    desk.book.stop.request()
    desk.book.failed("a", Failure("stopped", "Stopped: the study was asked to stop", "Traceback"))
    assert desk.book.next("b") is None and desk.book.done and desk.book.over == "interrupted"
    assert desk.states() == {0: "PREEMPTED"}
    (row,) = leaderboard(desk.opened)
    assert (row["failures"], row["error"], row["dice"]) == (0, "", 0.3)
    assert not any("text" in line for line in _journal(desk.folder))
    assert "starts again" not in capsys.readouterr().err


def test_a_node_of_other_versions_is_named_once(
    desk: Desk, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whenever it joined: with the first trial that comes to it. Of the driver's own versions nothing is said."""
    monkeypatch.setattr("sweep.versions.NAMED", set())
    other = replace(HERE, node="n2", host="late", versions=versions().replace("torch ", "torch 9"))
    for name, place in (("a", HERE), ("b", other), ("c", other)):
        desk.start(name)
        desk.book.result(name, {"step": 0, "place": place, "past": ()})
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    assert len(said) == 1
    assert said[0].startswith("warning: node late trains with torch 9") and "fastai" not in said[0]
    assert any(line.get("tags", {}).get("versions") == other.versions for line in _journal(desk.folder))
