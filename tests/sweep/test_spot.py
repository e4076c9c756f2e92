"""The watcher of spot notices, against a metadata service of the test's own. The cluster is a stand-in."""

import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from metadata import MetadataServer, serve_metadata
from ray.exceptions import GetTimeoutError, RpcError

from sn7.errors import ClusterUnavailable
from sweep.notice import Notice, Taken
from sweep.spot import Metadata, main, own_node, watch
from sweep.stopping import StopFile, Stopped
from sweep.trial import Urgent

NODE = "ab" * 28


@pytest.fixture
def service() -> Iterator[MetadataServer]:
    """Serve metadata."""
    with serve_metadata() as service:
        yield service


@pytest.fixture(autouse=True)
def own_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep notices in the test's folder."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


class Gcs:
    """Stands in for a cluster of one node; `errors` are what it answers with at first when it is told to drain it."""

    def __init__(self, state: int = 0, accepts: bool = True, errors: Sequence[Exception] = ()) -> None:
        self.state, self.accepts, self.errors = state, accepts, list(errors)
        self.drained: list[tuple[Any, ...]] = []
        self.told: list[str] = []

    def get_all_node_info(self, timeout: float) -> dict[bytes, Any]:
        """Return the node."""
        node = bytes.fromhex(NODE)
        return {node: SimpleNamespace(node_id=node, node_manager_address="10.0.0.7", state=self.state)}

    def drain_node(self, *arguments: Any, timeout: float) -> tuple[bool, str]:
        """Note it, and what the trainings have been told by then."""
        self.told.append(Notice(NODE).kind())
        if self.errors:
            raise self.errors.pop(0)
        self.drained.append(arguments)
        return self.accepts, "" if self.accepts else "not now"


def test_metadata_is_asked_with_a_token(service: MetadataServer) -> None:
    """One for all questions, another one when it has expired; what is not there is None."""
    metadata = Metadata(service.url)
    assert metadata.get("instance-id") == "i-0123456789abcdef0"
    assert metadata.get("spot/instance-action") is None
    assert service.given == 1
    service.expire()
    assert metadata.get("instance-id") == "i-0123456789abcdef0"
    assert service.given == 2


def test_a_notice_drains_the_node_and_tells_the_trainings(service: MetadataServer) -> None:
    """With the time that EC2 gives, as a preemption; then the watcher has done its work."""
    gcs = Gcs()
    service.take_away("2026-11-25T18:02:00Z")
    assert watch(Metadata(service.url), gcs, NODE, 0.01) == 0
    ((node, reason, why, deadline),) = gcs.drained
    assert (node, reason, deadline) == (NODE, 2, 1_795_629_720_000)  # 2: DRAIN_NODE_REASON_PREEMPTION
    assert "terminate" in why
    assert gcs.told == [""], "nothing new is to start where a training has just left"
    assert Notice(NODE).kind() == "taken"


def test_trainings_are_told_even_if_ray_refuses(service: MetadataServer, capsys: pytest.CaptureFixture[str]) -> None:
    """An unreadable time is two minutes from now."""
    gcs = Gcs(accepts=False)
    service.paths["spot/instance-action"] = "terminate"
    before = time.time()
    assert watch(Metadata(service.url), gcs, NODE, 0.01) == 0
    assert 115_000 < gcs.drained[0][3] - 1000 * before < 130_000
    said = capsys.readouterr().out
    assert "does not drain node abababababab (not now)" in said and "is drained" not in said
    assert Notice(NODE).kind() == "taken"


def test_a_head_that_does_not_answer_is_told_again(service: MetadataServer, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever Ray raises, the trainings hear of it after one attempt; the watcher goes on until the head has, too."""
    gcs = Gcs(errors=[RpcError("no route", 14), GetTimeoutError("too late"), RuntimeError("closed")])
    service.take_away("2026-11-25T18:02:00Z")
    assert watch(Metadata(service.url), gcs, NODE, 0.01) == 0
    assert gcs.told == ["", "taken", "taken", "taken"] and len(gcs.drained) == 1
    said = capsys.readouterr().out
    assert [name in said for name in ("RpcError: no route", "GetTimeoutError", "RuntimeError: closed")] == [True] * 3


def test_a_recommendation_drains_nothing(service: MetadataServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The trainings hear of it; the watcher goes on, and ends when its node has gone."""
    monkeypatch.setattr("sweep.spot.ALIVE_EVERY_S", 0.0)
    gcs = Gcs(state=1)  # DEAD
    service.recommend()
    assert watch(Metadata(service.url), gcs, NODE, 0.01) == 0
    assert gcs.drained == [] and Notice(NODE).kind() == "rebalance"


def test_what_a_training_does_about_it(tmp_path: Path) -> None:
    """Rebalance: a checkpoint an epoch. Taken, or a request to stop: one at once, and an end."""
    stop, notice = StopFile(tmp_path), Notice(NODE)
    urgent = Urgent(stop, notice)
    assert not urgent() and urgent.leave() is None
    notice.give("rebalance")
    assert urgent() and (urgent.kept, urgent.taken, urgent.stopping) == (True, False, False)
    assert urgent.leave() is None
    notice.give("taken")
    assert isinstance(urgent.leave(), Taken)
    assert urgent() and (urgent.kept, urgent.taken, urgent.stopping) == (True, True, False)
    stop.request()
    assert urgent() and (urgent.taken, urgent.stopping) == (True, True)
    assert isinstance(urgent.leave(), Stopped)


def test_the_node_is_the_one_at_our_address() -> None:
    """And nobody else's; one that is dead is no node."""
    assert own_node(Gcs(), "10.0.0.7") == NODE
    with pytest.raises(ClusterUnavailable, match=r"no node of the cluster lives at 10.0.0.8 .there are 10.0.0.7."):
        own_node(Gcs(), "10.0.0.8")
    with pytest.raises(ClusterUnavailable, match=r"there are none"):
        own_node(Gcs(state=1), "10.0.0.7")


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def test_elsewhere_than_on_ec2_it_says_so(service: MetadataServer, capsys: pytest.CaptureFixture[str]) -> None:
    """No metadata service, no cluster, no address: one sentence each, and status 1."""
    nobody = f"127.0.0.1:{_free_port()}"
    for arguments, said in (
        (["--address", nobody, "--metadata", f"http://{nobody}"], "only a machine on EC2 needs a watcher"),
        (["--address", nobody, "--metadata", service.url], f"no Ray cluster at {nobody}"),
        (["--address", "auto", "--metadata", service.url], "auto is no address of a Ray cluster; wanted HOST:PORT"),
    ):
        assert main(arguments) == 1
        captured = capsys.readouterr().err
        assert captured.startswith("error: ") and said in captured and captured.count("\n") == 1
