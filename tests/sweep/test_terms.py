"""What a machine must have in common with the driver, without Ray; on real nodes in test_unfit_nodes.py."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from sn7.errors import DiskFull, FolderUnwritable, NodeUnfit, PreparedInvalid, StorageUnavailable
from sn7.prepared import Prepared
from sn7.signals import LeaveQuestion
from sweep.stopping import Stopped
from sweep.terms import MARK, Terms, code_version, fetch_prepared, make_terms, require_met, shipped

Meet = Callable[[Terms], None]


@pytest.fixture
def terms(make_prepared: Callable[..., Prepared], tmp_path: Path) -> Terms:
    """Return the terms of a driver, which this machine meets."""
    (tmp_path / "study").mkdir()
    return make_terms(tmp_path / "study", make_prepared(scenes=1).place)


@pytest.fixture
def meet(monkeypatch: pytest.MonkeyPatch) -> Meet:
    """Return what a worker does that was given terms."""

    def meet(terms: Terms) -> None:
        monkeypatch.setenv("SN7_TERMS", json.dumps(asdict(terms)))
        require_met()

    return meet


def test_the_drivers_own_machine_meets_them(terms: Terms, meet: Meet, monkeypatch: pytest.MonkeyPatch) -> None:
    """And where there are none, nothing is asked."""
    meet(terms)
    monkeypatch.delenv("SN7_TERMS")
    require_met()


def test_other_code_is_named(terms: Terms, meet: Meet) -> None:
    """With both versions, and where it lies."""
    with pytest.raises(
        NodeUnfit, match=rf"runs other code .*version {code_version()[:12]} from .*; wanted abc"
    ) as error:
        meet(replace(terms, code="abc"))
    assert str(Path(__file__).parents[2]) in str(error.value)


def test_results_that_are_not_shared(terms: Terms, meet: Meet, tmp_path: Path) -> None:
    """No such folder, a folder of another study's, one that a later driver has taken over."""
    with pytest.raises(NodeUnfit, match=r"does not share the driver's folder .*it has no such study there.*NFS or EFS"):
        meet(replace(terms, results=str(tmp_path / "elsewhere")))
    (tmp_path / "study" / MARK).write_text("another")
    with pytest.raises(NodeUnfit, match="it has another study there"):
        meet(terms)


def test_other_data_is_named(terms: Terms, meet: Meet, make_prepared: Callable[..., Prepared]) -> None:
    """With both fingerprints; what lies at a URL is fetched by the first trial."""
    other = terms.prepared[:-64] + "0" * 64
    with pytest.raises(
        NodeUnfit, match=r"has other data than the driver: .*fingerprint ffffffffffff; wanted 000000000000"
    ):
        meet(replace(terms, prepared=other))
    meet(replace(terms, prepared="s3://bucket/prepared#" + "0" * 64))


def test_final_scenes_that_are_not_there(terms: Terms, meet: Meet, tmp_path: Path) -> None:
    """Of a data set in a folder of the driver's own: told before anything is trained, and not in the end."""
    (tmp_path / "here").mkdir()
    meet(replace(terms, final=(str(tmp_path / "here"),)))
    with pytest.raises(
        NodeUnfit, match=r"does not see .*/there, one of 2 final scenes .*: put the data set on the file"
    ):
        meet(replace(terms, final=(str(tmp_path / "here"), str(tmp_path / "there"))))


def test_data_that_one_machine_cannot_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a moment: it tries again. For longer: the machine cannot take part, and its trial has not failed."""
    answers: list[Prepared | Exception] = [StorageUnavailable("s3://b cannot be reached."), Prepared(Path(), (), "f")]

    def load(place: str, leave: LeaveQuestion | None) -> Prepared:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr("sweep.terms.load_prepared", load)
    monkeypatch.setattr("sweep.terms.PAUSE_S", 0.0)
    assert fetch_prepared("s3://b#f").fingerprint == "f"
    answers.append(StorageUnavailable("s3://b cannot be reached."))
    monkeypatch.setattr("sweep.terms.FETCH_S", -1.0)
    with pytest.raises(NodeUnfit, match=r"has no data: s3://b cannot be reached$"):
        fetch_prepared("s3://b#f")
    answers.append(PreparedInvalid("another set"))
    with pytest.raises(PreparedInvalid):
        fetch_prepared("s3://b#f")
    monkeypatch.setattr("sweep.terms.FETCH_S", 60.0)
    answers.append(StorageUnavailable("s3://b cannot be reached."))
    with pytest.raises(Stopped):  # between two tries it hears that the study is over
        fetch_prepared("s3://b#f", Stopped)


@pytest.mark.parametrize("kind", [FolderUnwritable, DiskFull])
def test_a_machine_that_cannot_keep_the_data(kind: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    """It cannot take part; neither has its trial failed, nor is the disk of the results full."""

    def load(place: str, leave: LeaveQuestion | None) -> Prepared:
        raise kind("/root/.cache/sn7 has no room; make some.")

    monkeypatch.setattr("sweep.terms.load_prepared", load)
    with pytest.raises(NodeUnfit, match=r"has no data: /root/\.cache/sn7 has no room; make some$"):
        fetch_prepared("s3://b#f")


def test_only_code_is_shipped(terms: Terms) -> None:
    """All of both packages, studies and pages among it, and nothing compiled; the same version as here."""
    with shipped(terms) as environment:
        folder = Path(environment["working_dir"])
        assert {path.name for path in folder.iterdir()} == {"sn7", "sweep"}
        assert (folder / "sweep/studies/sample.toml").exists()
        assert not list(folder.rglob("__pycache__"))
        size = sum(path.stat().st_size for path in folder.rglob("*"))
        assert size < 5_000_000
        assert json.loads(environment["env_vars"]["SN7_TERMS"])["code"] == code_version()
    assert not folder.exists()
