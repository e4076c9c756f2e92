"""Places that fail a study: folders without permission, full disks, servers that do not answer; in real processes."""

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import optuna
import pytest
from disk import needs_root, small_disk
from mlflow.tracking import MlflowClient

from sn7.errors import DiskFull, FolderUnwritable
from sn7.files import atomic_dir, atomic_file, is_full, require_writable
from sn7.prepare import prepare
from sn7.sample import make_sample
from sweep.disk import Need, estimate, require_room
from sweep.oof import probs_path
from sweep.plan import make_plan
from sweep.run import main
from sweep.search import open_optuna
from sweep.study import check_study
from sweep.studyfile import load_study
from sweep.terms import MARK

ROOT = Path(__file__).parents[2]
NOBODY = 65534


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a sample of four scenes with one image each."""
    folder = tmp_path_factory.mktemp("sample") / "data"
    make_sample(folder, scenes=4, months=1, size=64)
    return folder


@pytest.fixture
def study(write_study: Callable[..., Path]) -> Path:
    """Return a study of a tiny encoder that runs one trial at a time."""
    replacements = {"xresnet18": "test_efficientnet", "trials = 4": "trials = 3", "epochs = 2": "epochs = 3"}
    path = write_study(replacements)
    path.write_text(f"{path.read_text()}\n[resources]\ncpu = {os.cpu_count()}\n")
    return path


def fill(disk: Path, left: int) -> Path:
    """Write a file that leaves `left` bytes free; return it."""
    path = disk / "filler"
    with path.open("wb") as file:
        while (free := shutil.disk_usage(disk).free) > left:
            file.write(b"0" * min(1 << 20, free - left))
            file.flush()
    return path


def command(study: Path, data: Path, results: Path, *extra: str) -> list[str]:
    """Return the command line of a study."""
    paths = [str(study), "--data", str(data), "--results", str(results)]
    return [sys.executable, str(ROOT / "sweep" / "run.py"), *paths, *extra]


def run(arguments: list[str]) -> tuple[int, str]:
    """Run a command to its end; return exit status and stderr."""
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=600, check=False)
    return done.returncode, done.stderr


def refused(outcome: tuple[int, str], *said: str) -> None:
    """Assert on exit 1 and one line that begins with "error: ", beside the progress that was printed before."""
    status, err = outcome
    lines = err.splitlines()
    assert status == 1, err
    assert [line.startswith("error: ") for line in lines].count(True) == 1 and lines[-1].startswith("error: "), err
    assert "Traceback" not in err
    for part in said:
        assert part in lines[-1]


def entries(folder: Path) -> set[str]:
    """Return the names in a folder; none where there is no such folder."""
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


# --- files ------------------------------------------------------------------------------------------------------------


@needs_root
def test_each_writer_that_meets_a_full_disk_becomes_one_sentence(tmp_path: Path) -> None:
    """torch, safetensors, numpy, text, a GeoTIFF: each raises its own error, and nothing half written stays."""
    import numpy as np
    import rasterio
    import torch
    from safetensors.torch import save_file

    def geotiff(path: Path) -> None:
        with rasterio.open(path, "w", driver="GTiff", width=900, height=900, count=1, dtype="float32") as raster:
            raster.write(np.ones((1, 900, 900), np.float32))

    writers: dict[str, Callable[[Path], object]] = {
        "a.pt": lambda path: torch.save({"a": torch.zeros(600_000)}, path),
        "a.safetensors": lambda path: save_file({"a": torch.zeros(600_000)}, path),
        "a.npy": lambda path: np.save(path, np.zeros(600_000)),
        "a.txt": lambda path: path.write_text("a" * 3_000_000),
        "a.tif": geotiff,
    }
    with small_disk(tmp_path / "disk", "2m") as disk:
        for name, write in writers.items():
            with (
                pytest.raises(DiskFull, match=f"{name} cannot be written: the disk is full"),
                atomic_file(disk / name) as temporary,
            ):
                write(temporary)
            with pytest.raises(DiskFull, match="model cannot be written"), atomic_dir(disk / "model") as folder:
                write(folder / name)
            assert entries(disk) == set()


def test_other_errors_of_a_writer_pass_through(tmp_path: Path) -> None:
    """Where there is room, an error is the writer's own."""
    with pytest.raises(KeyError), atomic_file(tmp_path / "a"):
        raise KeyError("a")
    assert entries(tmp_path) == set()


def test_a_full_disk_is_seen_through_what_wraps_it() -> None:
    """As a cause, or as what was being handled; a context that was suppressed says nothing."""
    assert not is_full(RuntimeError("out of memory"))
    try:
        try:
            raise OSError(28, "No space left on device")
        except OSError as error:
            raise RuntimeError("the run failed") from error
    except RuntimeError as error:
        assert is_full(error)
    try:
        try:
            raise OSError(28, "No space left on device")
        except OSError:
            raise RuntimeError("the run failed") from None
    except RuntimeError as error:
        assert not is_full(error)


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    """It is named, and what it is."""
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(FolderUnwritable, match=f"{folder} cannot be written to \\(it is no folder\\)"):
            require_writable(folder)


# --- room -------------------------------------------------------------------------------------------------------------


def test_the_estimate(study: Path, data: Path, tmp_path: Path) -> None:
    """Three trials and one configuration on two folds, a checkpoint at a time; what is there is not counted again."""
    plan = make_plan(check_study(load_study(study)), prepare(data, tmp_path / "prepared").prepared)
    need = estimate(plan, tmp_path)
    assert (need.models, need.checkpoints) == (3 + 2, 1)
    assert 1_500_000 < need.weights < 3_500_000  # 0.57 million parameters of 4 bytes
    folder = tmp_path / "trials/0000/random-0/model"
    folder.mkdir(parents=True)
    (folder / "weights.safetensors").touch()
    assert estimate(plan, tmp_path).models == 4
    assert need.probs == sum(2 * image.height * image.width for image in plan.prepared.images)
    probs_path(tmp_path, 0, plan.prepared.images[0]).parent.mkdir(parents=True)
    np.save(probs_path(tmp_path, 0, plan.prepared.images[0]), np.zeros((4, 4), np.float16))
    assert need.probs - estimate(plan, tmp_path).probs == 128 + 32, "a header, and the probs"
    with_tta = replace(plan, study=replace(plan.study, postprocess=replace(plan.study.postprocess, tta=True)))
    assert estimate(with_tta, tmp_path / "none").probs > need.probs
    assert (Need(10, 5, 2, 7).most, Need(10, 5, 2, 7).one_trial) == (117, 40)


def test_room(study: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Enough, a warning with the numbers, a refusal."""
    plan = make_plan(check_study(load_study(study)), prepare(data, tmp_path / "prepared").prepared)
    need = estimate(plan, tmp_path)
    free = [need.most, need.most - 1, need.one_trial, need.one_trial - 1]
    monkeypatch.setattr("sweep.disk.free_bytes", lambda path: free.pop(0))
    assert require_room(plan, tmp_path) == ""
    warning = "may write 17.5 MiB if nothing is pruned (5 models of 2.2 MiB, 1 checkpoints of 6.5 MiB at once, "
    assert warning in require_room(plan, tmp_path)
    assert "warning: " in require_room(plan, tmp_path)
    with pytest.raises(DiskFull, match=r"has 8\.7 MiB free, and one trial alone writes 8\.7 MiB"):
        require_room(plan, tmp_path)


@needs_root
@pytest.mark.slow
def test_no_room_to_begin_with(study: Path, data: Path, tmp_path: Path) -> None:
    """Refused before Ray is started and the study begun; where not even the prepared images fit, they are named."""
    with small_disk(tmp_path / "disk", "4m") as disk:
        refused(run(command(study, data, disk / "results")), str(disk / "results/test"), "one trial alone writes")
        assert entries(disk / "results/test") == {".lock"}
        shutil.rmtree(disk / "results")
        fill(disk, left=50_000)
        refused(run(command(study, data, disk / "results")), str(disk / "results/prepared"), "the disk is full")


# --- permissions ------------------------------------------------------------------------------------------------------


@contextmanager
def a_user_who_may_not() -> Iterator[None]:
    """Be nobody, where this is root, who may read and write everything."""
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)


def test_folders_without_permission(study: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Results that cannot be written, an existing folder of the study that cannot, data that cannot be read."""
    # Not pytest's folder, which nobody else can look into.
    common = Path(tempfile.mkdtemp(prefix="sn7-test-"))
    try:
        arguments = _readable_to_all(study, data, common)
        capsys.readouterr()
        results = common / "results"
        for folder, mode, said in (
            (results, 0o555, f"{results} cannot be written to (Permission denied)"),
            (results / "test", 0o555, f"{results / 'test'} cannot be written to (Permission denied)"),
            (common / "data", 0o000, f"{common / 'data'} cannot be listed (Permission denied)"),
        ):
            before, usual = entries(folder), folder.stat().st_mode
            folder.chmod(mode)
            with a_user_who_may_not():
                status = main(arguments)
            refused((status, capsys.readouterr().err), said)
            folder.chmod(usual)
            assert entries(folder) == before
    finally:
        shutil.rmtree(common)


def _readable_to_all(study: Path, data: Path, common: Path) -> list[str]:
    """Return the command line of a study in `common`, with prepared data there, which all users may write to."""
    shutil.copytree(data, common / "data")
    shutil.copy(study, common / "study.toml")
    arguments = command(common / "study.toml", common / "data", common / "results")[2:]
    # As root, and so that all that is imported lazily is imported: nobody may not even see this interpreter.
    assert main([*arguments, "--dry-run"]) == 0
    (common / "results/test").mkdir()
    for path in (common, *common.rglob("*")):
        path.chmod(0o777)
    return arguments


@needs_root
@pytest.mark.slow
def test_a_disk_that_is_read_only(study: Path, data: Path, tmp_path: Path) -> None:
    """It is named before anything is prepared."""
    with small_disk(tmp_path / "disk", "4m") as disk:
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True, timeout=60)
        refused(run(command(study, data, disk / "results")), f"{disk / 'results'} cannot be written", "Read-only")


def test_results_that_are_a_file(study: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--results itself, and the study's folder in it."""
    results = tmp_path / "results"
    results.write_text("a text")
    assert main(command(study, data, results)[2:]) == 1
    assert capsys.readouterr().err.startswith(f"error: {results} cannot be written to (it is no folder)")
    assert results.read_text() == "a text"
    (tmp_path / "other").mkdir()
    (tmp_path / "other/test").write_text("a text")
    assert main(command(study, data, tmp_path / "other")[2:]) == 1
    assert f"error: {tmp_path / 'other/test'} cannot be written to" in capsys.readouterr().err


# --- tracking servers and clusters ------------------------------------------------------------------------------------


@contextmanager
def server(status: int) -> Iterator[str]:
    """Serve an answer of this status to every request; yield the address."""

    class Answer(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_POST = do_PATCH = _answer

        def log_message(self, *arguments: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Answer) as http:
        thread = threading.Thread(target=http.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{http.server_port}"
        finally:
            http.shutdown()


def no_ray(*_: object) -> None:
    """Stand in for what starts Ray, where nothing should."""
    raise AssertionError("Ray was started")


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("http://127.0.0.1:9", "does not answer as an MLflow server"),
        ("http://no-such-host.invalid:5000", "does not answer as an MLflow server"),
        ("401", "does not let us in"),
        ("403", "MLFLOW_TRACKING_PASSWORD"),
        ("500", "does not answer as an MLflow server"),
        ("ftp://user:secret@127.0.0.1/", "no address that can be used"),
        ("http://", "names no host"),
    ],
)
def test_a_tracking_server_that_cannot_be_used(
    address: str,
    said: str,
    study: Path,
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A closed port, an unknown host, no access, a broken one, a wrong address: before Ray and the study begin."""
    monkeypatch.setattr("sweep.driver.start_ray", no_ray)
    results = tmp_path / "results"
    with server(int(address) if address.isdigit() else 200) as there:
        uri = there if address.isdigit() else address
        status = main([*command(study, data, results)[2:], "--tracking-uri", uri])
    refused((status, capsys.readouterr().err), "--tracking-uri", said)
    assert entries(results) == {"prepared", "test"} and entries(results / "test") == {".lock"}


@pytest.mark.slow
def test_a_cluster_that_is_not_there_and_one_that_is_too_small(study: Path, data: Path, tmp_path: Path) -> None:
    """Nobody at --address; more processors asked for than there are."""
    results = tmp_path / "results"
    refused(run(command(study, data, results, "--address", "127.0.0.1:9")), "no Ray cluster at 127.0.0.1:9")
    study.write_text(study.read_text().replace(f"cpu = {os.cpu_count()}", "cpu = 4096"))
    refused(run(command(study, data, results)), "a trial wants 4096 CPU")
    assert entries(results / "test") == {".lock", MARK}  # what the nodes of the cluster would have looked for


# --- databases --------------------------------------------------------------------------------------------------------


def test_a_database_that_is_damaged(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What Optuna makes of it, wrapped as Tune wraps it, is one sentence; a fault of the program stays a traceback."""
    opened = open_optuna(load_study(study), tmp_path / "test")
    with closing(sqlite3.connect(tmp_path / "test/optuna.db")) as database:
        database.execute("DROP TABLE study_user_attributes")

    def fails(options: object) -> int:
        try:
            opened.set_user_attr("spent", 1)
        except Exception as error:
            raise RuntimeError("the run failed") from error
        return 0

    monkeypatch.setattr("sweep.driver.run_study", fails)
    arguments = [str(study), "--results", str(tmp_path)]
    refused((main(arguments), capsys.readouterr().err), f"a database in {tmp_path} cannot be used", "no such table")
    with pytest.raises(RuntimeError, match="the run failed"):
        main([*arguments, "--verbose"])
    monkeypatch.setattr("sweep.driver.run_study", lambda options: {}["a fault"])
    with pytest.raises(KeyError, match="a fault"):
        main(arguments)


# --- a disk that fills up ---------------------------------------------------------------------------------------------


def _start(study: Path, data: Path, results: Path, log: Path, *extra: str) -> "subprocess.Popen[bytes]":
    with log.open("wb") as stderr:
        return subprocess.Popen(command(study, data, results, *extra), stdout=subprocess.DEVNULL, stderr=stderr)


def _trials(results: Path) -> list[optuna.trial.FrozenTrial]:
    storage = f"sqlite:///{results / 'test/optuna.db'}"
    return optuna.load_study(study_name="test", storage=storage).trials


def _wait_for(process: "subprocess.Popen[bytes]", ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 300
    while not ready():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)


def _states(results: Path) -> list[str]:
    try:
        return [trial.state.name for trial in _trials(results)]
    except Exception:  # noqa: BLE001 - the database may not be there yet
        return []


@needs_root
@pytest.mark.slow
def test_the_disk_fills_up(study: Path, data: Path, tmp_path: Path) -> None:
    """First for the weights of a trial, later for everything: one sentence each, and in the end no trial too many.

    What is left free the first time takes the small writes of the driver, so that it is a training that fails.
    """
    with small_disk(tmp_path / "disk", "40m") as disk:
        results, log = disk / "results", tmp_path / "log"
        process = _start(study, data, results, log)
        _wait_for(process, lambda: _states(results) == ["RUNNING"])
        filler = fill(disk, left=1_500_000)
        refused((process.wait(600), log.read_text()), str(results / "test"), "full")
        assert _states(results) == ["WAITING"], "the trial is neither FAILED nor lost"
        refused(run(command(study, data, results, "--resume")), "one trial alone writes")

        filler.unlink()
        process = _start(study, data, results, log, "--resume")
        _wait_for(process, lambda: _states(results)[:2] == ["COMPLETE", "RUNNING"])
        filler = fill(disk, left=0)
        refused((process.wait(600), log.read_text()), str(results), "full")
        complete = _trials(results)[0]
        assert complete.state.name == "COMPLETE" and sorted(complete.intermediate_values) == [1, 2, 3]

        filler.unlink()
        status, err = run(command(study, data, results, "--resume"))
        assert status == 0, err
        assert len(_trials(results)) == 3
        assert set(_states(results)) <= {"COMPLETE", "PRUNED"}
        assert _trials(results)[0] == complete
        client = MlflowClient(f"sqlite:///{results / 'mlflow.db'}")
        experiment = client.get_experiment_by_name("test")
        assert experiment is not None
        runs = client.search_runs([experiment.experiment_id])
        trials = [run for run in runs if run.data.tags["sn7.kind"] == "trial"]
        assert sorted(run.data.tags["sn7.trial"] for run in trials) == ["0", "1", "2"]
        assert {run.data.tags["state"] for run in runs} <= {"COMPLETE", "PRUNED"}
        assert "RUNNING" not in {run.info.status for run in runs}
        assert (results / "test/ensemble/ensemble.json").exists()
