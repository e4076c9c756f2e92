import io
import os
import re
import sys

import pytest
from rich.console import Console

from sweep.board import QUIET_SECONDS, Board


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Return seconds."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Replace the board's clock."""
    clock = Clock()
    monkeypatch.setattr("sweep.board.monotonic", clock)
    return clock


class Terminal(io.StringIO):
    """A terminal that keeps what is written to it."""

    def isatty(self) -> bool:
        """Say that it is one."""
        return True


def _terminal(monkeypatch: pytest.MonkeyPatch, term: str) -> Terminal:
    """Make standard error a terminal; not in a fixture, after which pytest would put its own in place again."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    for name, value in {"TERM": term, "COLUMNS": "100", "LINES": "30"}.items():
        monkeypatch.setenv(name, value)
    return terminal


def _table(board: Board, width: int = 100, height: int = 40) -> str:
    file = io.StringIO()
    Console(file=file, width=width, height=height, force_terminal=True, color_system=None).print(board)
    return file.getvalue()


def _half_way(clock: Clock) -> Board:
    """Four of six trials ended, one of them preempted; two run; 4 epochs in 20 s of the 24, 8 known, 3 saved."""
    board = Board(6, 24, notebook=0, spent=lambda: "0.8 h, 1.6 GPU h, $0.72")
    board.catch_up(0, "COMPLETE", 0.456, 4, "lr_max=0.001")
    board.catch_up(1, "FAILED", 0.99, 4)
    for number in (2, 3, 4, 5):
        board.start(number, f"lr_max=0.00{number}, widths=[{number}, 8]")
    clock.now += 20
    board.epoch(2, "epoch 1/4", 0.3, tiles_per_s=100.0, gpu=10.0)
    board.end(2, "PRUNED", epochs_saved=3)
    board.epoch(3, "epoch 1/4", 0.2)
    board.end(3, "PREEMPTED")
    board.epoch(4, "epoch 1/4", 0.512, tiles_per_s=200.0, gpu=80.0)
    board.epoch(5, "fold1 epoch 1/4", 0.25, tiles_per_s=210.0, gpu=90.0)
    return board


def test_the_table_says_what_is_known(clock: Clock) -> None:
    """24 − 8 of an earlier start − 3 saved − 4 done = 9 epochs left, at 4 in 20 s; a failed trial is never the best."""
    lines = [line.rstrip() for line in _table(_half_way(clock)).splitlines()]
    assert lines[0] == "trials 3/6 ended · 1 complete · 1 pruned · 1 failed · 1 preempted · 2 running"
    facts = {line[:15].strip(): line[15:] for line in lines[1:6]}
    assert facts == {
        "best Dice": "0.512 (#4) · notebook 0.456 (#0)",
        "time left": "45 s",
        "pace": "0.2 epochs/s · 410 tiles/s · GPU 85 %",
        "spent": "0.8 h, 1.6 GPU h, $0.72",
        "configuration": "lr_max=0.004, widths=[4, 8]",
    }
    assert [re.split(r"\s{2,}", line) for line in lines[6:]] == [
        ["#", "now", "Dice", "configuration"],
        ["4", "epoch 1/4", "0.512", "lr_max=0.004, widths=[4, 8]"],
        ["5", "fold1 epoch 1/4", "0.250", "lr_max=0.005, widths=[5, 8]"],
    ]


def test_the_line_says_the_same(clock: Clock) -> None:
    """Counts and the best come first, what runs last."""
    assert _half_way(clock).line() == (
        "trials 3/6 ended · 1 complete · 1 pruned · 1 failed · 1 preempted · 2 running"
        " · best Dice 0.512 (#4) · notebook 0.456 (#0) · lr_max=0.004, widths=[4, 8] · 45 s left"
        " · 0.2 epochs/s · 410 tiles/s · GPU 85 % · spent 0.8 h, 1.6 GPU h, $0.72"
        " · #4 epoch 1/4 · #5 fold1 epoch 1/4"
    )


def test_before_the_first_epoch_nothing_is_estimated(clock: Clock) -> None:
    """Epochs of an earlier start are no pace."""
    board = Board(2, 8)
    board.catch_up(0, "COMPLETE", 0.5, 4)
    clock.now += 20
    assert "– left" in board.line() and "epochs/s" not in board.line()
    board.start(1)
    board.epoch(1, "epoch 1/4", float("nan"))
    assert "60 s left" in board.line() and "0.05 epochs/s" in board.line()
    assert "best Dice 0.500 (#0)" in board.line()
    assert "spent 20 s" in board.line()


def test_a_preempted_trial_is_still_to_be_done(clock: Clock) -> None:
    """It ends once, after it has started again; the epoch that it repeats brings the end no nearer."""
    board = Board(1, 4)
    board.start(0, "lr_max=0.1")
    clock.now += 10
    board.epoch(0, "epoch 1/4", 0.1)
    board.end(0, "PREEMPTED")
    assert board.line().startswith("trials 0/1 ended · 1 preempted · best") and not board.running
    board.start(0)
    clock.now += 10
    board.epoch(0, "epoch 1/4", 0.1)
    assert "trials 0/1 ended · 1 running · best Dice 0.100 (#0) · lr_max=0.1 · 30 s left" in board.line()
    board.end(0, "COMPLETE", epochs_saved=3)
    assert board.line().startswith("trials 1/1 ended · 1 complete · best Dice 0.100 (#0) · lr_max=0.1 · 0 s left")


def test_the_pace_follows_changes(clock: Clock) -> None:
    """30 epochs a second apart, then 40 ten seconds apart: the last 30 of these are the pace."""
    board = Board(1, 1000)
    for epoch in range(70):
        clock.now += 1 if epoch < 30 else 10
        board.epoch(0, f"epoch {epoch}/1000", 0.5)
    assert "0.1 epochs/s" in board.line()


def test_slow_epochs_have_a_pace(clock: Clock) -> None:
    """Two of twenty minutes each, longer than the window."""
    board = Board(1, 4)
    for epoch in (1, 2):
        clock.now += 1200
        board.epoch(0, f"epoch {epoch}/4", 0.5)
    assert "40 min left · 0.00083 epochs/s" in board.line()


def test_without_epochs_the_items_are_the_pace(clock: Clock) -> None:
    """Two of six scenes in 10 s."""
    board = Board(6, 0, "scenes")
    for number in (0, 1):
        clock.now += 5
        board.end(number, "COMPLETE")
    assert board.line() == "scenes 2/6 ended · 2 complete · 20 s left · 0.2 scenes/s · spent 10 s"


def test_twelve_rows_and_how_many_more() -> None:
    """17 run; as many as fit, where the terminal is low."""
    board = Board(20, 80)
    for number in range(17):
        board.start(number)
    assert _table(board).count("starting") == 12 and "… and 5 more" in _table(board)
    assert board.line().count("starting") == 12 and board.line().endswith("… and 5 more")
    assert _table(board, height=15).count("starting") == 5 and "… and 12 more" in _table(board, height=15)


@pytest.mark.parametrize("width", [1, 12, 40])
def test_a_narrow_terminal(clock: Clock, width: int) -> None:
    """No line is longer than it; at 40 only the configuration of a row gives way, and a low one crops the facts."""
    lines = _table(_half_way(clock), width, height=5).splitlines()
    assert max(map(len, lines)) <= width
    if width == 40:
        assert lines[2].rstrip() == "best Dice      0.512 (#4) · notebook 0.…"
        assert lines[-2].startswith("4  epoch 1/4  0.512  lr_max=0.004") and lines[-2].rstrip().endswith("…")


def test_without_a_terminal_a_line_now_and_then(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    """At the first start, after a minute, at an ending, and what is said."""
    board = Board(2, 8)
    board.start(0)
    board.start(1)
    clock.now += QUIET_SECONDS - 1
    board.epoch(0, "epoch 1/4", 0.1)
    assert len(capsys.readouterr().err.splitlines()) == 1
    clock.now += 1
    board.epoch(0, "epoch 2/4", 0.2)
    board.epoch(0, "epoch 3/4", 0.3)
    assert capsys.readouterr().err.count("#0 epoch 2/4") == 1
    board.retry(1, "its node is gone")
    board.say("the server is away")
    assert capsys.readouterr().err == "#1 starts again: its node is gone\nthe server is away\n"
    board.end(0, "PRUNED", 1)
    board.close()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("trials 1/2 ended · 1 pruned · 1 running") and line.endswith("#1 starting again")


def test_without_a_terminal_a_line_a_minute(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    """Also where no epoch ends for long, and none before anything runs."""
    board = Board(2, 8)
    board.tick()
    assert capsys.readouterr().err == ""
    board.start(0)
    for _ in range(6):
        clock.now += QUIET_SECONDS / 2
        board.tick()
    assert len(capsys.readouterr().err.splitlines()) == 1 + 3


def test_a_terminal_has_a_table_with_what_is_said_above(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cursor goes up to redraw, and is shown again at the end; no markup is read into brackets."""
    terminal = _terminal(monkeypatch, "xterm-256color")
    board = Board(1, 4)
    board.start(0, "widths=[bold]")
    board.epoch(0, "epoch 1/4", 0.25)
    board.say("warning: [red] is away")
    board.close()
    written = terminal.getvalue()
    assert "warning: [red] is away" in written and "widths=[bold]" in written
    assert written.count("\x1b[1A") >= 5
    assert written.index("\x1b[?25l") < written.index("warning") < written.rindex("trials 0/1 ended")
    assert written.endswith("\x1b[?25h")


@pytest.mark.parametrize("term", ["dumb", ""])
def test_a_dumb_terminal_gets_plain_lines(monkeypatch: pytest.MonkeyPatch, term: str) -> None:
    """No escape codes."""
    terminal = _terminal(monkeypatch, term)
    board = Board(1, 4)
    board.start(0)
    board.end(0, "COMPLETE")
    board.close()
    lines = terminal.getvalue().splitlines()
    assert [line.split(" · ")[0] for line in lines] == ["trials 0/1 ended", "trials 1/1 ended"]
    assert not any("\x1b" in line for line in lines)


def test_a_reader_that_went_away_does_not_end_the_study(monkeypatch: pytest.MonkeyPatch) -> None:
    """Writing into a pipe that nobody reads raises; the board goes on counting."""
    reading, writing = os.pipe()
    os.close(reading)
    stream = os.fdopen(writing, "w", encoding="utf-8")
    monkeypatch.setattr(sys, "stderr", stream)
    board = Board(1, 4)
    board.start(0)
    board.end(0, "COMPLETE")
    assert board.line().startswith("trials 1/1 ended")
    with pytest.raises(BrokenPipeError):
        stream.close()
