"""The delivery, against a client that keeps what it gets and fails as it is told to."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST, INVALID_PARAMETER_VALUE, RESOURCE_DOES_NOT_EXIST

from sn7.errors import ResultsConflict, TrackingUnavailable
from sweep.batches import plan_requests
from sweep.delivery import Delivery, position_file
from sweep.journal import Journal, Run, read_lines
from sweep.server import Server, check_address, connect, reason, shown

URI = "http://someone:secret@tracking.example:5000"
TRIAL = Run("trial", 0)


class FakeClient:
    """Keeps runs in memory; `fail` is asked before each call and may raise."""

    def __init__(self) -> None:
        self.runs: list[Any] = []
        self.batches: list[tuple[str, int, int, int]] = []
        self.points: list[tuple[str, str, int, float, int]] = []
        self.calls: list[str] = []
        self.fail: Callable[[str, tuple[Any, ...]], None] = lambda name, given: None

    def __getattribute__(self, name: str) -> Any:
        value = object.__getattribute__(self, name)
        if name.startswith("_") or not callable(value) or name == "fail":
            return value

        def call(*given: Any, **named: Any) -> Any:
            self.fail(name, given)
            self.calls.append(name)
            return value(*given, **named)

        return call

    def get_experiment_by_name(self, name: str) -> None:
        """Know none."""

    def create_experiment(self, name: str, location: str | None) -> str:
        """Return an id."""
        return "1"

    def set_experiment_tag(self, experiment: str, key: str, value: str) -> None:
        """Take it."""

    def search_runs(self, experiments: list[str], query: str, order_by: list[str]) -> list[Any]:
        """Return the runs with all tags of the query."""
        wanted = dict(part.replace("tags.`", "").replace("'", "").split("` = ") for part in query.split(" and "))
        return [run for run in self.runs if wanted.items() <= run.tags.items()]

    def create_run(self, experiment: str, time: int, tags: dict[str, str], name: str) -> Any:
        """Make a run."""
        info = SimpleNamespace(run_id=f"run{len(self.runs)}", status="RUNNING", start_time=time)
        self.runs.append(SimpleNamespace(info=info, tags=tags, name=name))
        return self.runs[-1]

    def delete_run(self, run_id: str) -> None:
        """Remove a run."""
        self.runs = [run for run in self.runs if run.info.run_id != run_id]

    def log_batch(self, run_id: str, metrics: list[Any], params: list[Any], tags: list[Any]) -> None:
        """Keep the points as MLflow's SQL store does: exact duplicates once."""
        self.batches.append((run_id, len(metrics), len(params), len(tags)))
        new = [(run_id, m.key, m.step, m.value, m.timestamp) for m in metrics]
        self.points += [point for point in new if point not in self.points]

    def update_run(self, run_id: str, status: str) -> None:
        """Take it."""

    def set_terminated(self, run_id: str, status: str, time: int) -> None:
        """Take it."""

    def log_artifact(self, run_id: str, path: str, folder: str | None) -> None:
        """Take it."""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make pauses short."""
    monkeypatch.setattr("sweep.delivery.PAUSES_S", (0.01,))


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    """Return an empty journal."""
    made = Journal(tmp_path / "tiny", "tiny", "0123")
    yield made
    made.close()


def _server(client: FakeClient) -> Server:
    server = Server(client, "tiny", "0123")  # type: ignore[arg-type]
    server.open(None)
    return server


class Case:
    """A delivery of a journal to a fake client, with what it said."""

    def __init__(self, journal: Journal, client: FakeClient) -> None:
        self.said: list[str] = []
        self.client = client
        self.delivery = Delivery(
            journal.results, URI, lambda: _server(client), lambda: journal.lines, journal.added, self.said.append
        )


@pytest.fixture
def make_case(journal: Journal) -> Iterator[Callable[..., Case]]:
    """Return a function that makes a delivery of the journal, which is stopped in the end."""
    made: list[Case] = []

    def make(client: FakeClient | None = None) -> Case:
        for earlier in made:
            earlier.delivery._locked.close()  # as its process had ended
        made.append(Case(journal, client or FakeClient()))
        return made[-1]

    yield make
    for case in made:
        if case.delivery._thread.is_alive():
            case.delivery.stop()


def _epochs(journal: Journal, steps: range, trial: int = 0) -> None:
    for step in steps:
        journal.append("log", Run("trial", trial), metrics={"dice": step / 8, "loss": 1.0}, step=step)


def _eventually(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline, "it does not come about"
        time.sleep(0.01)


def _refused(journal: Journal) -> list[dict[str, Any]]:
    path = journal.results / "refused.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_a_block_is_few_requests(journal: Journal, make_case: Callable[..., Case]) -> None:
    """Two trials' starts, 500 epochs and endings in turns: batches within the limits, order kept within a run."""
    for trial in (0, 1):
        journal.append("log", Run("trial", trial), params={f"p{i}": "1" for i in range(30)}, tags={"state": "RUNNING"})
        journal.append("status", Run("trial", trial), status="RUNNING")
    for step in range(1, 501):
        for trial in (0, 1):
            _epochs(journal, range(step, step + 1), trial)
    journal.append("status", TRIAL, status="FINISHED")
    requests = plan_requests(read_lines(journal.path))
    assert [(r.op, r.run.trial, len(r.lines)) for r in requests] == [
        ("log", 0, 401), ("log", 0, 100), ("status", 0, 1), ("log", 1, 1), ("status", 1, 1), ("log", 1, 400),
        ("log", 1, 100),
    ]  # fmt: skip
    case = make_case()
    while case.delivery.step():
        pass
    assert case.delivery.waiting == 0
    assert max(metrics + params + tags for _, metrics, params, tags in case.client.batches) <= 1000
    for run in ("run1", "run2"):
        steps = [step for run_id, name, step, _, _ in case.client.points if (run_id, name) == (run, "dice")]
        assert steps == list(range(1, 501))


def test_one_large_record_is_cut(journal: Journal, make_case: Callable[..., Case]) -> None:
    """More params and metrics than one request may hold."""
    journal.append(
        "log", TRIAL, params={f"p{i}": "1" for i in range(250)}, metrics=dict.fromkeys(map(str, range(900)), 1.0)
    )
    case = make_case()
    assert case.delivery.step()
    assert [counts[1:] for counts in case.client.batches] == [(800, 100, 0), (100, 100, 0), (0, 50, 0)]


def test_points_keep_the_time_of_the_journal(journal: Journal, make_case: Callable[..., Case]) -> None:
    """So that a second delivery is no second point; runs start when their first record was written."""
    _epochs(journal, range(1, 3))
    case = make_case()
    case.delivery.step()
    times = [line.record["time"] for line in read_lines(journal.path)]
    assert [point[4] for point in case.client.points] == [times[1], times[1], times[2], times[2]]
    assert [(run.name, run.info.start_time) for run in case.client.runs] == [("tiny", times[1]), ("trial 0", times[1])]
    assert case.client.runs[1].tags["mlflow.parentRunId"] == "run0"


def test_the_position_is_kept(journal: Journal, make_case: Callable[..., Case]) -> None:
    """A second delivery begins where the first ended; its file holds nothing of the address."""
    _epochs(journal, range(1, 3))
    first = make_case()
    assert first.delivery.step() and not first.delivery.step()
    content = position_file(journal.results, URI).read_text()
    assert json.loads(content) == {"position": journal.path.stat().st_size, "records": 3}
    assert "secret" not in content + position_file(journal.results, URI).name
    second = make_case(first.client)
    assert second.delivery.waiting == 0 and not second.delivery.step()
    _epochs(journal, range(3, 4))
    assert second.delivery.waiting == 1 and second.delivery.step()
    assert first.client.batches == [("run1", 4, 0, 0), ("run1", 2, 0, 0)]


def test_killed_between_delivery_and_position(journal: Journal, make_case: Callable[..., Case]) -> None:
    """Everything is sent again, and nothing is there twice."""
    _epochs(journal, range(1, 4))
    journal.append("log", Run("fold", 0, 1), metrics={"dice": 0.5})
    case = make_case()
    case.delivery.step()
    points, runs = list(case.client.points), [run.name for run in case.client.runs]
    position_file(journal.results, URI).unlink()
    again = make_case(case.client)
    assert again.delivery.waiting == journal.lines
    again.delivery.step()
    assert len(case.client.batches) == 4
    assert (case.client.points, [run.name for run in case.client.runs]) == (points, runs)
    assert len(points) == 7 and runs == ["tiny", "trial 0", "trial 0 fold 1"]


@pytest.mark.parametrize("content", ["", '{"position": 40, "records": 1}', '{"position": 99999, "records": 7}'])
def test_a_position_that_cannot_be(journal: Journal, make_case: Callable[..., Case], content: str) -> None:
    """A file that is empty, points into a line, or beyond a journal that lost its end: all is delivered again."""
    _epochs(journal, range(1, 3))
    path = position_file(journal.results, URI)
    path.parent.mkdir()
    path.write_text(content)
    case = make_case()
    assert case.delivery.waiting == 3 and case.delivery.step()
    assert len(case.client.points) == 4


def test_an_outage(journal: Journal, make_case: Callable[..., Case]) -> None:
    """One line when the server goes, one when it is back with how many waited; then all is there, once, in order."""
    case = make_case()

    def fail(name: str, given: tuple[Any, ...]) -> None:
        raise ConnectionError(f"cannot reach {URI}/api")

    case.client.fail = fail
    case.delivery.start()
    _epochs(journal, range(1, 6))
    _eventually(lambda: case.delivery.away)
    assert case.delivery.wait(30.0) == 6, "a server that is away is not waited for long"
    case.client.fail = lambda name, given: None
    _eventually(lambda: case.delivery.waiting == 0)
    assert [point[2] for point in case.client.points if point[1] == "dice"] == [1, 2, 3, 4, 5]
    assert len(case.said) == 2
    assert case.said[0].startswith("MLflow at http://tracking.example:5000 does not take records (cannot reach http")
    assert case.said[1] == "MLflow at http://tracking.example:5000 is back; 6 records that waited are delivered now"
    assert "secret" not in "".join(case.said) and not _refused(journal)


def test_a_server_that_hangs_blocks_nobody(journal: Journal, make_case: Callable[..., Case]) -> None:
    """Appending goes on while a request does not come back; stop() does not wait for it either."""
    case = make_case()
    goes_on = threading.Event()
    case.client.fail = lambda name, given: None if goes_on.wait(30) else pytest.fail("never let go")
    case.delivery.start()
    _epochs(journal, range(1, 101))
    assert journal.lines == 101 and case.delivery.waiting == 101
    goes_on.set()
    assert case.delivery.wait(30.0) == 0
    goes_on.clear()
    _epochs(journal, range(101, 102))
    case.delivery.stop()
    assert case.delivery.waiting == 1
    goes_on.set()


def test_a_run_made_by_a_request_without_an_answer(journal: Journal, make_case: Callable[..., Case]) -> None:
    """One that turns up late, beside the run that took its place, is removed."""
    case = make_case()
    late: list[tuple[Any, ...]] = []

    def lose_one(name: str, given: tuple[Any, ...]) -> None:
        if name == "create_run" and given[3] == "trial 0" and not late:
            late.append(given)
            raise TimeoutError("timed out")
        if name == "log_batch" and len(case.client.runs) == 2:
            FakeClient.create_run(case.client, *late[0])

    case.client.fail = lose_one
    case.delivery.start()
    _epochs(journal, range(1, 3))
    _eventually(lambda: case.delivery.waiting == 0)
    assert [(run.name, run.info.run_id) for run in case.client.runs] == [("tiny", "run0"), ("trial 0", "run1")]
    assert {point[0] for point in case.client.points} == {"run1"}


def test_one_refused_record_among_many(journal: Journal, make_case: Callable[..., Case]) -> None:
    """It is found, written down with the reason and counted; those before and behind it arrive."""
    case = make_case()

    def refuse(name: str, given: tuple[Any, ...]) -> None:
        if name == "log_batch" and any(metric.value == 0.25 for metric in given[1]):
            raise MlflowException(f"no such value ({URI})", error_code=INVALID_PARAMETER_VALUE)

    case.client.fail = refuse
    case.delivery.start()
    _epochs(journal, range(1, 6))
    assert case.delivery.wait(30.0) == 0
    (entry,) = _refused(journal)
    assert (entry["reason"], entry["record"]["step"]) == ("no such value (http://tracking.example:5000)", 2)
    assert case.delivery.refused == 1
    assert sorted(point[2] for point in case.client.points if point[1] == "dice") == [1, 3, 4, 5]


def test_a_file_that_is_gone(journal: Journal, make_case: Callable[..., Case]) -> None:
    """Refused with that reason; one that is there arrives."""
    (journal.results / "there.csv").write_text("1")
    for name in ("gone.csv", "there.csv"):
        journal.append("file", TRIAL, path=name, folder=None)
    case = make_case()
    case.delivery.step()
    (entry,) = _refused(journal)
    assert entry["reason"] == f"{journal.results / 'gone.csv'} is gone"
    assert case.client.calls.count("log_artifact") == 1


def test_an_unreadable_line_is_refused(journal: Journal, make_case: Callable[..., Case]) -> None:
    """It is set aside by its place in the journal."""
    journal.append("status", TRIAL, status="RUNNING")
    with journal.path.open("ab") as file:
        file.write(b"\0\0\n")
    journal.lines += 1
    case = make_case()
    case.delivery.step()
    assert f"ends at byte {journal.path.stat().st_size} cannot be read" in _refused(journal)[0]["reason"]


def test_a_request_that_fails_while_others_succeed(journal: Journal, make_case: Callable[..., Case]) -> None:
    """A server that answers 500 to one record alone is not away for ever: after five attempts each it is set aside."""
    case = make_case()
    attempts = []

    def fail(name: str, given: tuple[Any, ...]) -> None:
        if name == "log_batch" and any(metric.step == 2 for metric in given[1]):
            attempts.append(len(given[1]))
            raise MlflowException("cannot store this", error_code=BAD_REQUEST)

    case.client.fail = fail
    case.delivery.start()
    _epochs(journal, range(1, 4))
    assert case.delivery.wait(30.0) == 0
    assert attempts == [6] * 5 + [2] * 5
    assert [entry["record"]["step"] for entry in _refused(journal)] == [2]


def test_a_server_that_takes_no_writes_refuses_nothing(journal: Journal, make_case: Callable[..., Case]) -> None:
    """A full disk behind it fails requests for as long as it likes: they wait."""
    case = make_case()
    attempts = []

    def full(name: str, given: tuple[Any, ...]) -> None:
        if name in ("log_batch", "set_experiment_tag"):
            attempts.append(name)
            raise MlflowException("too many 500 error responses", error_code=BAD_REQUEST)

    case.delivery.server = _server(case.client)
    case.client.fail = full
    case.delivery.start()
    _epochs(journal, range(1, 4))
    _eventually(lambda: attempts.count("log_batch") > 12)
    case.client.fail = lambda name, given: None
    _eventually(lambda: case.delivery.waiting == 0)
    assert not _refused(journal) and len(case.client.points) == 6


def test_a_server_that_was_set_up_anew(journal: Journal, make_case: Callable[..., Case]) -> None:
    """Its experiment and runs are made again when it does not know them any more."""
    case = make_case()
    _epochs(journal, range(1, 2))
    case.delivery.start()
    _eventually(lambda: case.delivery.waiting == 0)
    case.client.runs.clear()

    def unknown(name: str, given: tuple[Any, ...]) -> None:
        if name == "log_batch" and given[0] not in [run.info.run_id for run in case.client.runs]:
            raise MlflowException("no such run", error_code=RESOURCE_DOES_NOT_EXIST)

    case.client.fail = unknown
    _epochs(journal, range(2, 3))
    assert case.delivery.wait(30.0) == 0
    assert [run.name for run in case.client.runs] == ["tiny", "trial 0"] and not _refused(journal)


def test_two_deliveries_to_one_server(journal: Journal, make_case: Callable[..., Case]) -> None:
    """The second is refused while the first is at work, since runs could be made twice."""
    case = make_case()
    case.delivery.start()
    with pytest.raises(ResultsConflict, match="another process is at work"):
        Case(journal, FakeClient())
    other = Delivery(journal.results, "http://other", lambda: _server(case.client), lambda: 0, journal.added)
    assert other.position == 0


def test_addresses_are_shown_without_secrets() -> None:
    """Neither user and password nor what a query may hold."""
    assert shown("http://u:p@host:5000/x") == "http://host:5000/x"
    assert shown("postgresql+psycopg2://u:p%40q@h/db?password=p") == "postgresql+psycopg2://h/db"
    assert shown("sqlite:////tmp/a/mlflow.db") == "sqlite:////tmp/a/mlflow.db"
    error = ValueError("login of u with p@q and p%40q\n failed at http://u:p%40q@h/x")
    assert reason(error, "http://u:p%40q@h") == "login of u with *** and *** failed at http://h/x"
    nested = "API request failed (Caused by NewConnectionError(\"HTTPConnection(host='h'): no connection: refused\"))"
    assert reason(ValueError(nested), "http://h") == "refused"


@pytest.mark.parametrize(
    ("uri", "place"),
    [
        ("postgresql+psycopg2://u:aB3/x9Q@h/db", "postgresql+psycopg2://h/db"),
        ("postgresql+psycopg2://u:aB3?x9Q@h:5432/db?sslmode=require", "postgresql+psycopg2://h:5432/db"),
        ("mysql+pymysql://u:aB3/x9Q@[::1]/db", "mysql+pymysql://[::1]/db"),
        ("postgresql://u:aB3@x9Q@h/db", "postgresql://***"),
        ("postgresql://u/x:aB3@h/db", "postgresql://***"),
        ("postgresql://u:aB3@h:port/db", "postgresql://***"),
    ],
)
def test_a_password_with_signs_of_an_address(uri: str, place: str) -> None:
    """SQLAlchemy takes a slash in one; where it reads the address otherwise than was meant, nothing of it is told."""
    assert shown(uri) == place
    said = reason(ValueError(f"{uri} failed: {uri.partition('://')[2].rpartition('@')[0]} is refused"), uri)
    assert said.startswith(f"{place} failed: ") and "aB3" not in said and "x9Q" not in said


@pytest.mark.parametrize(
    ("uri", "found"),
    [
        ("foo://u:hidden@x", "unsupported URI"),
        ("mlruns", "maintenance mode"),
        ("http://", "names no host"),
        ("oracle://u:hidden@h/x", "oracle"),
        ("mysql+nodriver://u:hidden@h/x", "nodriver"),
    ],
)
def test_addresses_that_can_never_work(uri: str, found: str) -> None:
    """An unknown scheme, a folder, no host, a database without its driver: one sentence, no password."""
    with pytest.raises(TrackingUnavailable, match=r"--tracking-uri .* is no address that can be used") as caught:
        check_address(uri)
    assert found in str(caught.value) and "hidden" not in str(caught.value) and "leave it out" in str(caught.value)


def test_servers_that_cannot_be_used(tmp_path: Path) -> None:
    """Nothing listens there, no such host, no database: a sentence each, before anything is made."""
    (tmp_path / "text.db").write_text("no database" * 100)
    for uri in ("http://u:hidden@127.0.0.1:1", "http://nosuch.invalid:5000", f"sqlite:///{tmp_path}/text.db"):
        with pytest.raises(
            TrackingUnavailable, match=r"--tracking-uri .* does not answer as an MLflow server"
        ) as caught:
            connect(uri, "tiny", "0123", tmp_path / "artifacts")
        assert "hidden" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["text.db"]
