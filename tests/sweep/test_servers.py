"""Delivery to real MLflow servers, over SQLite and PostgreSQL, with everything that happens to servers."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from sn7.errors import TrackingUnavailable
from sweep.delivery import Delivery
from sweep.records import Records, Synced, default_tracking_uri, open_records, sync

pytestmark = pytest.mark.slow


def _free_port() -> int:
    with closing(socket.socket()) as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class MlflowServer:
    """An `mlflow server` on a port of its own that can be killed, stopped and started again."""

    def __init__(self, folder: Path, store: str) -> None:
        self.folder, self.store, self.port = folder, store, _free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server and wait until it answers."""
        command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", self.store, "--workers", "1"]
        command += ["--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--artifacts-destination", str(self.folder / "artifacts")]
        environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=self.folder, stdout=log, stderr=log, env=environment, start_new_session=True
            )
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                urllib.request.urlopen(f"{self.uri}/health", timeout=5).close()
                # Its first answer from the store takes seconds, which is not what the tests are about.
                url = f"{self.uri}/api/2.0/mlflow/experiments/search?max_results=1"
                urllib.request.urlopen(url, timeout=60).close()
                return
            except OSError:
                time.sleep(0.2)
        raise AssertionError(f"the server does not start: {(self.folder / 'server.log').read_text()[-2000:]}")

    def signal(self, number: int) -> None:
        """Send a signal to the server and its workers, which are a session of their own."""
        assert self.process is not None
        os.killpg(self.process.pid, number)

    def kill(self) -> None:
        """End the server at once."""
        if self.process is not None and self.process.poll() is None:
            self.signal(signal.SIGKILL)
            self.process.wait()


@contextmanager
def _postgres() -> Iterator[str]:
    """Run a PostgreSQL of its own on 127.0.0.1 and yield its address as SQLAlchemy writes it."""
    pytest.importorskip("psycopg2", reason="psycopg2-binary is not installed")
    debians = map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True))  # which are not on the PATH
    path = os.pathsep.join([os.environ["PATH"], *debians])
    initdb, postgres = shutil.which("initdb", path=path), shutil.which("postgres", path=path)
    if not (initdb and postgres):
        pytest.skip("PostgreSQL's initdb and postgres are neither on the PATH nor where Debian's packages have them")
    user: list[str] = []
    if os.getuid() == 0:  # PostgreSQL refuses to run as root
        if (
            not shutil.which("runuser")
            or subprocess.run(["id", "postgres"], capture_output=True, check=False).returncode
        ):
            pytest.skip("run as root, and there is no user postgres to run PostgreSQL as")
        user = ["runuser", "-u", "postgres", "--"]
    # Not below pytest's folder: that is closed to other users, by every pytest that starts.
    with tempfile.TemporaryDirectory(prefix="sn7-postgres-") as folder:
        if user:
            shutil.chown(folder, "postgres")
        data, port = f"{folder}/data", _free_port()
        subprocess.run(
            [*user, initdb, "-D", data, "-U", "sn7", "-A", "trust"], cwd=folder, check=True, capture_output=True
        )
        settings = ("listen_addresses=127.0.0.1", f"unix_socket_directories={folder}", f"port={port}")
        options = [part for setting in settings for part in ("-c", setting)]
        log = Path(folder, "log").open("wb")  # noqa: SIM115 - closed behind the process that writes to it
        command = [*user, str(Path(postgres).resolve()), "-D", data, *options]
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, start_new_session=True)
        try:
            _wait_for_port(port, process, Path(folder, "log"))
            yield f"postgresql+psycopg2://sn7@127.0.0.1:{port}/postgres"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGINT)  # a fast shutdown
            process.wait(timeout=60)
            log.close()


def _wait_for_port(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"PostgreSQL does not start: {log.read_text()[-2000:]}")


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """Return a server over SQLite, then one over PostgreSQL, shared by the tests of this module."""
    folder = tmp_path_factory.mktemp(request.param)
    stores = _only(f"sqlite:///{folder / 'server.db'}") if request.param == "sqlite" else _postgres()
    with stores as store:
        running = MlflowServer(folder, store)
        running.start()
        yield running
        running.kill()


@contextmanager
def _only(store: str) -> Iterator[str]:
    yield store


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make pauses short, so that outages are over soon."""
    monkeypatch.setattr("sweep.delivery.PAUSES_S", (0.1, 0.3))


def _write_study(records: Records, folder: Path, epochs: range, end: bool = False) -> None:
    """Write epochs of two trials, and the endings of all runs."""
    for trial in (0, 1):
        records.start(trial, {"lr_max": 0.001, "epochs": 6}, {"recipe": "notebook"} if trial == 0 else {})
        for epoch in epochs:
            records.epoch(trial, epoch, {"dice": epoch / 8, "loss": 1 / epoch})
    if end:
        history = folder / "trials" / "history.csv"
        history.parent.mkdir(parents=True, exist_ok=True)
        history.write_text("epoch,dice\n")
        records.end(0, "COMPLETE", {"dice": 0.75}, files=[history])
        records.end(1, "FAILED", {}, error="Traceback: no memory")
        records.fold_epoch(0, 1, 1, {"dice": 0.25})
        records.fold(0, 1, "COMPLETE", {"dice": 0.5}, [history])
        records.repeat(0, 7, "PREEMPTED", {"dice": 0.625}, [])
        records.measure({"out_of_fold_dice": 0.5})


def _check_study(uri: str, study: str, epochs: int = 6) -> None:
    """Assert that a server has what `_write_study` wrote: once, whole, in order, below each other."""
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(study)
    assert experiment is not None
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert len(client.search_runs([experiment.experiment_id])) == len(runs)
    assert {name: (run.info.status, run.data.tags["state"]) for name, run in runs.items()} == {
        study: ("FINISHED", "COMPLETE"),
        "trial 0": ("FINISHED", "COMPLETE"),
        "trial 1": ("FAILED", "FAILED"),
        "trial 0 fold 1": ("FINISHED", "COMPLETE"),
        "trial 0 seed 7": ("KILLED", "PREEMPTED"),
    }
    parents = {name: run.data.tags.get("mlflow.parentRunId") for name, run in runs.items()}
    trial = runs["trial 0"].info.run_id
    assert parents["trial 0"] == parents["trial 1"] == runs[study].info.run_id
    assert parents["trial 0 fold 1"] == parents["trial 0 seed 7"] == trial
    for name in ("trial 0", "trial 1"):
        points = client.get_metric_history(runs[name].info.run_id, "dice")
        assert sorted((point.step, point.value) for point in points) == [(e, e / 8) for e in range(1, epochs + 1)]
        assert runs[name].data.params == {"lr_max": "0.001", "epochs": "6"}
    assert runs["trial 0"].data.metrics["best_dice"] == 0.75
    assert runs["trial 0 fold 1"].data.metrics == {"dice": 0.5}
    assert runs[study].data.metrics == {"out_of_fold_dice": 0.5}
    assert [file.path for file in client.list_artifacts(trial, "trials")] == ["trials/history.csv"]
    assert [file.path for file in client.list_artifacts(runs["trial 1"].info.run_id)] == ["error.txt"]
    assert all(run.info.start_time <= run.info.end_time for run in runs.values())


def _open(uri: str, place: Path, study: str, resumed: bool = False) -> Records:
    return open_records(uri, place, place / study, study, "0123", resumed)


def _eventually(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline, "it does not come about"
        time.sleep(0.05)


def _delivery(records: Records) -> Delivery:
    assert records.delivery is not None
    return records.delivery


def test_a_study_arrives_and_a_second_delivery_doubles_nothing(server: MlflowServer, tmp_path: Path) -> None:
    """Parents, children, params, metrics with steps, artefacts, states; again from the first byte: the same."""
    records = _open(server.uri, tmp_path, "whole")
    _write_study(records, tmp_path / "whole", range(1, 7), end=True)
    assert records.close("COMPLETE") == 0
    _check_study(server.uri, "whole")
    lines = records.journal.lines
    (position,) = (tmp_path / "whole" / "delivered").glob("*.json")
    position.unlink()
    assert sync(server.uri, tmp_path, tmp_path / "whole", "whole") == Synced(lines, 0, 0)
    _check_study(server.uri, "whole")
    assert sync(server.uri, tmp_path, tmp_path / "whole", "whole") == Synced(0, 0, 0)


def test_a_server_killed_in_mid_study(server: MlflowServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Records wait while it is gone, close() leaves soon, and a resumed driver delivers the rest after its return."""
    records = _open(server.uri, tmp_path, "killed")
    _write_study(records, tmp_path / "killed", range(1, 4))
    _eventually(lambda: _delivery(records).waiting == 0)
    server.kill()
    _write_study(records, tmp_path / "killed", range(1, 6))
    _eventually(lambda: _delivery(records).away)
    assert records.close("INTERRUPTED") == 14, "two trials: start, epochs, end, two lines each; the study: its end"
    with pytest.raises(TrackingUnavailable, match="--tracking-uri"):
        sync(server.uri, tmp_path, tmp_path / "killed", "killed")
    with pytest.raises(TrackingUnavailable, match="--tracking-uri"):
        _open(server.uri, tmp_path, "new")
    assert not (tmp_path / "new").exists()
    again = _open(server.uri, tmp_path, "killed", resumed=True)
    server.start()
    _write_study(again, tmp_path / "killed", range(4, 7), end=True)
    _eventually(lambda: _delivery(again).waiting == 0)
    assert again.close("COMPLETE") == 0
    _check_study(server.uri, "killed")
    said = capsys.readouterr().err
    assert said.count("does not take records") == 1 and said.count("is back") == 1 and said.count("warning:") == 1


def test_a_server_that_hangs(server: MlflowServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It accepts and never answers: the calls return while it hangs, and everything is there once it goes on."""
    records = _open(server.uri, tmp_path, "hangs")
    records.start(0, {"lr_max": 0.001, "epochs": 6}, {"recipe": "notebook"})
    _eventually(lambda: _delivery(records).waiting == 0)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    server.signal(signal.SIGSTOP)
    try:
        _write_study(records, tmp_path / "hangs", range(1, 7), end=True)
        _eventually(lambda: _delivery(records).away)
        assert _delivery(records).waiting > 10
    finally:
        server.signal(signal.SIGCONT)
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    if records.close("COMPLETE", wait_s=60):  # it was away when the driver ended
        _eventually(lambda: not _delivery(records)._thread.is_alive())
        assert sync(server.uri, tmp_path, tmp_path / "hangs", "hangs").waiting == 0
    _check_study(server.uri, "hangs")


class Proxy(ThreadingHTTPServer):
    """Passes requests on to a server, or fails them in the way that is set."""

    daemon_threads = True

    def __init__(self, target: str) -> None:
        super().__init__(("127.0.0.1", 0), _ProxyHandler)
        self.target, self.mode = target, "pass"
        self.failed = 0
        self.uri = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, daemon=True).start()


class _ProxyHandler(BaseHTTPRequestHandler):
    server: Proxy

    def _pass(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        mode = self.server.mode
        if mode.isdigit():
            self.server.failed += 1
            return self._answer(int(mode), b"<html>no</html>")
        headers = {k: v for k, v in self.headers.items() if k.lower() not in ("host", "content-length")}
        request = urllib.request.Request(self.server.target + self.path, body or None, headers, method=self.command)
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                status, content = answer.status, answer.read()
        except urllib.error.HTTPError as error:
            status, content = error.code, error.read()
        if mode == "cut" and self.command == "POST":  # done, but the answer is lost
            self.server.failed += 1
            self.close_connection = True
            return None
        return self._answer(status, content)

    def _answer(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _pass

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def proxy(server: MlflowServer) -> Iterator[Proxy]:
    """Return a proxy before the server."""
    between = Proxy(server.uri)
    yield between
    between.shutdown()
    between.server_close()


@pytest.mark.parametrize("mode", ["500", "429", "404", "403"])
def test_a_proxy_that_fails(proxy: Proxy, tmp_path: Path, mode: str) -> None:
    """Whatever status a proxy answers with for a while, nothing is refused and everything arrives once."""
    study = f"proxy{mode}"
    records = _open(proxy.uri, tmp_path, study)
    proxy.mode = mode
    _write_study(records, tmp_path / study, range(1, 7), end=True)
    _eventually(lambda: proxy.failed >= 8)
    proxy.mode = "pass"
    _eventually(lambda: not _delivery(records).away)  # close() waits 2 s for one that is, and this machine may be slow
    assert records.close("COMPLETE") == 0
    assert not (tmp_path / study / "refused.jsonl").exists()
    _check_study(proxy.uri, study)


@pytest.mark.parametrize("mode", ["401", "403"])
def test_credentials_that_are_refused(proxy: Proxy, tmp_path: Path, mode: str) -> None:
    """One sentence that names the option and what to set, before anything is written."""
    proxy.mode = mode
    with pytest.raises(TrackingUnavailable, match=rf"--tracking-uri .* does not let us in .*{mode}.*USERNAME"):
        _open(proxy.uri, tmp_path, "strange")
    assert not (tmp_path / "strange").exists()


def test_answers_that_are_lost(proxy: Proxy, tmp_path: Path) -> None:
    """Requests that were done, whose answers never came, are sent again: no run and no point is double."""
    records = _open(proxy.uri, tmp_path, "cut")
    _eventually(lambda: _delivery(records).waiting == 0)
    proxy.mode = "cut"
    for turn in range(1, 4):
        _write_study(records, tmp_path / "cut", range(2 * turn - 1, 2 * turn + 1), end=turn == 3)
        _eventually(lambda turn=turn: proxy.failed >= 3 * turn)
        proxy.mode = "pass"
        _eventually(lambda: _delivery(records).waiting == 0)
        proxy.mode = "cut"
    proxy.mode = "pass"
    assert records.close("COMPLETE") == 0
    _check_study(proxy.uri, "cut")


DRIVER = """
import os, signal, sys
from pathlib import Path
from sweep.records import open_records
place = Path(sys.argv[2])
records = open_records(sys.argv[1], place, place / "died", "died", "0123", False)
sys.path.insert(0, sys.argv[3])
from test_servers import _write_study
_write_study(records, place / "died", range(1, 7), end=True)
records._close(("study", -1, -1), "COMPLETE", {}, [])
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_sync_after_a_driver_that_died_and_to_a_second_server(server: MlflowServer, tmp_path: Path) -> None:
    """What a killed driver wrote is delivered by sync, also to a store that has never seen the study."""
    command = [sys.executable, "-c", DRIVER, server.uri, str(tmp_path), str(Path(__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr
    before = sync(server.uri, tmp_path, tmp_path / "died", "died")
    assert before.delivered > 0 and (before.refused, before.waiting) == (0, 0)
    _check_study(server.uri, "died")
    other = default_tracking_uri(tmp_path)
    assert sync(other, tmp_path, tmp_path / "died", "died").waiting == 0
    _check_study(other, "died")
    assert len(list((tmp_path / "died" / "delivered").glob("*.json"))) == 2


def test_what_a_server_refuses_is_set_aside(server: MlflowServer, tmp_path: Path) -> None:
    """A param that changes, a metric's impossible name, a file that is gone: refused with reasons, the rest arrives."""
    records = _open(server.uri, tmp_path, "refused")
    _write_study(records, tmp_path / "refused", range(1, 3))
    _eventually(lambda: _delivery(records).waiting == 0)
    records.journal.append("log", ("trial", 0, -1), params={"lr_max": "7"})
    records.epoch(0, 3, {"dice": 0.375})
    records.epoch(0, 4, {"a\nb": 1.0})
    records.files([tmp_path / "gone.csv"])
    _write_study(records, tmp_path / "refused", range(4, 7), end=True)
    records.epoch(1, 3, {"dice": 3 / 8})
    assert records.close("COMPLETE") == 0
    lines = (tmp_path / "refused" / "refused.jsonl").read_text().splitlines()
    assert len(lines) == _delivery(records).refused == 3
    assert "gone.csv is gone" in "".join(lines)
    client = MlflowClient(server.uri)
    experiment = client.get_experiment_by_name("refused")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id], "tags.`sn7.trial` = '0' and tags.`sn7.kind` = 'trial'")
    assert [p.step for p in client.get_metric_history(run.info.run_id, "dice")] == [1, 2, 3, 4, 5, 6]
    assert run.data.params["lr_max"] == "0.001"


def test_the_ensemble_is_registered_once(server: MlflowServer, tmp_path: Path) -> None:
    """A version with description, tags, files and the alias; delivered again it stays one."""
    records = _open(server.uri, tmp_path, "served")
    ensemble = tmp_path / "served" / "ensemble"
    ensemble.mkdir()
    (ensemble / "ensemble.json").write_text("{}")
    records.register(ensemble, "made by a test", {"dice": 0.5})
    assert records.close("COMPLETE", wait_s=60) == 0
    next((tmp_path / "served" / "delivered").glob("*.json")).unlink()
    assert sync(server.uri, tmp_path, tmp_path / "served", "served").waiting == 0
    client = MlflowClient(server.uri)
    (version,) = client.search_model_versions("name = 'served'")
    assert (version.description, version.tags["dice"]) == ("made by a test\n\ndice: 0.5", "0.5")
    assert str(client.get_model_version_by_alias("served", "champion").version) == str(version.version)
    experiment = client.get_experiment_by_name("served")
    assert experiment is not None
    (model,) = client.search_logged_models([experiment.experiment_id])
    assert str(model.status) == "READY"
    assert not (tmp_path / "served" / "refused.jsonl").exists()
