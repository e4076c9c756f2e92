"""Attempts at one training, each in a folder of its own, without Ray."""

import contextlib
import threading
from pathlib import Path

import pytest

from sweep.fence import Superseded, claim, newest, number, remove_older, require_newest, training


def test_each_attempt_has_the_folder_of_the_next_number(tmp_path: Path) -> None:
    """The first one's name is the training's own."""
    base = tmp_path / "trials" / "fold0"
    assert newest(base) == base and not base.exists()
    made = [claim(base, attempt) for attempt in range(1, 12)]
    assert [folder.name for folder in made] == ["fold0", *(f"fold0.attempt-{n}" for n in range(2, 12))]
    assert newest(base) == made[-1] and number(made[-1]) == 11
    assert {training(folder) for folder in made} == {base}
    assert {path.name for path in base.parent.iterdir()} == {folder.name for folder in made}


def test_neighbours_are_other_trainings(tmp_path: Path) -> None:
    """A repeat's folder begins with the name of the training that it repeats."""
    claim(tmp_path / "fold0-repeat-1", 1)
    claim(tmp_path / "fold0-repeat-1", 2)
    assert claim(tmp_path / "fold0", 1) == tmp_path / "fold0"
    assert newest(tmp_path / "fold0-repeat-1").name == "fold0-repeat-1.attempt-2"


def test_late_writes_reach_nobody(tmp_path: Path) -> None:
    """What a superseded attempt replaces, adds and removes is not seen by the newest, nor by who reads."""
    base = tmp_path / "fold0"
    old = claim(base, 1)
    (old / "checkpoint.pt").write_text("epoch 3")
    (old / "model").mkdir()
    new = claim(base, 2)
    assert [path.name for path in old.iterdir()] == [".attempt"]
    (old / ".tmp").write_text("epoch 4")
    (old / ".tmp").replace(old / "checkpoint.pt")
    (old / "result.json").write_text("{}")
    assert [path.name for path in newest(base).iterdir() if path.name != ".attempt"] == ["checkpoint.pt"]
    assert (newest(base) / "checkpoint.pt").read_text() == "epoch 3"
    (old / "checkpoint.pt").unlink()
    assert (new / "checkpoint.pt").read_text() == "epoch 3"


def test_a_superseded_attempt_is_told(tmp_path: Path) -> None:
    """With both numbers; the newest one goes on."""
    old, new = claim(tmp_path / "fold0", 1), claim(tmp_path / "fold0", 2)
    require_newest(new)
    with pytest.raises(Superseded, match="attempt 2 has begun, and this is attempt 1"):
        require_newest(old)


def test_what_a_late_writer_makes_again_stays_older(tmp_path: Path) -> None:
    """Its folder was removed when the trial had ended: it comes again, and is still not the newest."""
    base = tmp_path / "fold0"
    old, new = claim(base, 1), claim(base, 2)
    remove_older(base)
    assert [path.name for path in tmp_path.iterdir()] == [new.name]
    old.mkdir()
    (old / "result.json").write_text("{}")
    assert newest(base) == new
    remove_older(base)
    assert not old.exists() and new.exists()


def test_a_claim_that_comes_too_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its trial has been trained to its end elsewhere: neither what it sees nor what it does not see is harmed."""
    base = tmp_path / "fold0"
    assert claim(base, 3) == tmp_path / "fold0.attempt-3"
    (tmp_path / "fold0.attempt-3/model").mkdir()
    for late in (1, 2, 3):
        with pytest.raises(Superseded, match=f"attempt 3 has begun, and this is attempt {late}"):
            claim(base, late)
    monkeypatch.setattr("sweep.fence.taken", lambda base: 0)  # it looked before the others came, and was held up
    assert claim(base, 1) == base
    with pytest.raises(Superseded, match="attempt 3 has begun, and this is attempt 3"):
        claim(base, 3)
    monkeypatch.undo()
    assert newest(base).name == "fold0.attempt-3" and (newest(base) / "model").exists()
    assert not list(tmp_path.glob(".tmp-*"))


def test_claims_at_the_same_moment(tmp_path: Path) -> None:
    """Forty attempts, eight threads: each has a folder of its own or none, and the checkpoint reaches the last."""
    base = tmp_path / "fold0"
    (claim(base, 1) / "checkpoint.pt").write_text("epoch 3")
    made: list[Path] = []
    start = threading.Barrier(8)

    def run(first: int) -> None:
        start.wait()
        for attempt in range(first, 42, 8):
            with contextlib.suppress(Superseded):
                made.append(claim(base, attempt))

    threads = [threading.Thread(target=run, args=(first,)) for first in range(2, 10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == len(made) and newest(base).name == "fold0.attempt-41"
    assert (newest(base) / "checkpoint.pt").read_text() == "epoch 3"


def test_two_with_one_number(tmp_path: Path) -> None:
    """As two drivers may give it: one of them has it."""
    claim(tmp_path / "fold0", 1)
    with pytest.raises(Superseded, match="attempt 1 has begun, and this is attempt 1"):
        claim(tmp_path / "fold0", 1)
