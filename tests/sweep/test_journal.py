"""The journal: whole lines, one writer, what it knows of what it holds."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sn7.errors import ResultsConflict
from sweep.journal import Journal, Line, Run, read_header, read_lines

TRIAL = Run("trial", 3)


def _records(path: Path, start: int = 0) -> list[dict[str, object]]:
    return [line.record for line in read_lines(path, start)]


def test_a_line_is_a_record(tmp_path: Path) -> None:
    """The header, then operation, run, time in ms and content; positions are bytes, so ü counts as two."""
    journal = Journal(tmp_path / "tiny", "tiny", "0123")
    journal.append("text", TRIAL, name="error.txt", text="ü\nx")
    assert journal.lines == 2
    header, line = read_lines(journal.path)
    assert {**header.record, "time": 0} == {
        "time": 0, "op": "study", "run": ["study", -1, -1], "study": "tiny", "identity": "0123"
    }  # fmt: skip
    assert (line.run, line.record["name"], line.record["text"]) == (TRIAL, "error.txt", "ü\nx")
    assert 1.7e12 < line.record["time"] < 4e12
    text = journal.path.read_bytes()
    assert (header.end, line.end) == (text.index(b"\n") + 1, len(text))
    assert _records(journal.path, header.end) == [line.record]
    assert len(list(read_lines(journal.path, 0, limit=1))) == 1
    assert read_header(tmp_path / "tiny") == header.record


def test_a_torn_last_line_is_cut_off(tmp_path: Path) -> None:
    """Readers wait for its end; the next writer removes it, and appends whole lines."""
    journal = Journal(tmp_path, "tiny", "0123")
    journal.append("status", TRIAL, status="RUNNING")
    journal.close()
    whole = journal.path.read_bytes()
    journal.path.write_bytes(whole + b'{"time": 17, "op": "lo')
    assert len(_records(journal.path)) == 2
    again = Journal(tmp_path, "tiny", "0123")
    assert again.path.read_bytes() == whole and again.lines == 2
    again.append("status", TRIAL, status="FINISHED")
    assert [record.get("status") for record in _records(again.path)] == [None, "RUNNING", "FINISHED"]


@pytest.mark.parametrize("torn", [b"", b'{"time": 1, "op": "study"'])
def test_a_journal_killed_at_its_first_line(tmp_path: Path, torn: bytes) -> None:
    """An empty one, or one with half a header, begins anew."""
    (tmp_path / "records.jsonl").write_bytes(torn)
    assert Journal(tmp_path, "tiny", "0123").lines == 1
    assert read_header(tmp_path)["study"] == "tiny"


WRITER = """
import os, signal, sys
from pathlib import Path
from sweep.journal import Journal, Run
journal = Journal(Path(sys.argv[1]), "tiny", "0123")
for step in range(1, 101):
    journal.append("log", Run("trial", 0), metrics={"dice": step / 100}, step=step)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_was_appended_survives_sigkill(tmp_path: Path) -> None:
    """Every line of a killed process is there."""
    done = subprocess.run([sys.executable, "-c", WRITER, str(tmp_path)], check=False, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    journal = Journal(tmp_path, "tiny", "0123")
    assert journal.lines == 101
    assert journal.last_step(Run("trial", 0), "dice") == 100


def test_an_unreadable_line_is_a_line(tmp_path: Path) -> None:
    """One that is no JSON object, or names no run, is kept in the count and handed on as empty."""
    Journal(tmp_path, "tiny", "0123").close()
    path = tmp_path / "records.jsonl"
    with path.open("ab") as file:
        file.write(b'\0\0\0\n[1]\n{"op": "log"}\n')
    journal = Journal(tmp_path, "tiny", "0123")
    assert journal.lines == 4
    assert [line.record for line in list(read_lines(path))[1:]] == [{}, {}, {}]


def test_nothing_is_written_where_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a line is taken back, so that the next one does not become part of it."""
    journal = Journal(tmp_path, "tiny", "0123")
    write = os.write
    monkeypatch.setattr(os, "write", lambda file, text: write(file, text[:10]))
    with pytest.raises(OSError, match="disk is full"):
        journal.append("log", TRIAL, metrics={"dice": 0.5}, step=1)
    monkeypatch.undo()
    assert (journal.lines, len(_records(journal.path)), journal.last_step(TRIAL, "dice")) == (1, 1, 0)
    journal.append("status", TRIAL, status="RUNNING")
    assert len(_records(journal.path)) == 2


def test_steps_and_values_are_known_again(tmp_path: Path) -> None:
    """By run and metric: later steps only, changed values only; the same from a journal that is opened again."""
    journal = Journal(tmp_path, "tiny", "0123")
    journal.append("log", TRIAL, metrics={"dice": 0.25, "loss": "nan"}, step=1)
    journal.append("log", TRIAL, metrics={"dice": 0.5}, step=2)
    for known in (journal, Journal(tmp_path, "tiny", "0123")):
        assert known.later(TRIAL, 2, {"dice": 0.5, "loss": 2.0, "new": 1.0}) == {"loss": 2.0, "new": 1.0}
        assert known.later(Run("trial", 4), 1, {"dice": 0.5}) == {"dice": 0.5}
        assert known.changed(TRIAL, {"dice": 0.5, "best_dice": 0.5}) == {"best_dice": 0.5}
        assert known.changed(TRIAL, {"dice": 0.25}) == {"dice": 0.25}


def test_a_journal_of_another_study_is_refused(tmp_path: Path) -> None:
    """A folder whose other files were removed by hand does not get two studies into one journal."""
    Journal(tmp_path, "tiny", "0123").close()
    with pytest.raises(ResultsConflict, match=r"records.jsonl holds .* another study \(tiny, identity 0123"):
        Journal(tmp_path, "tiny", "4567")
    with pytest.raises(ResultsConflict, match="no journal"):
        read_header(tmp_path / "nowhere")


def test_runs_have_parents_names_and_tags() -> None:
    """Study → trial → fold or repeat."""
    fold, repeat = Run("fold", 2, 1), Run("repeat", 2, 7)
    assert (fold.parent, repeat.parent, Run("trial", 2).parent) == (Run("trial", 2), Run("trial", 2), Run("study"))
    assert Run("study").parent is None
    assert [run.label for run in (fold, repeat, Run("trial", 2))] == ["trial 2 fold 1", "trial 2 seed 7", "trial 2"]
    assert fold.tags == {"sn7.kind": "fold", "sn7.trial": "2", "sn7.fold": "1"}
    assert repeat.tags == {"sn7.kind": "repeat", "sn7.trial": "2", "sn7.seed": "7"}
    assert Line(1, json.loads('{"run": ["fold", 2, 1]}')).run == fold
