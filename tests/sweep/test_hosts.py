"""Several hosts on one machine, of which some are lost: every trial is there at the end, and as if none had been."""

import csv
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
import pytest
from metadata import serve_metadata
from nodes import Nodes

from sn7.sample import make_sample

ROOT = Path(__file__).parents[2]
HEAD, HOSTS = "127.0.1.2", ("127.0.1.3", "127.0.1.4", "127.0.1.5", "127.0.1.6")
EPOCHS = int(os.environ.get("HOST_EPOCHS", "60"))
"""Of a trial: long enough that a fast machine is not done before two are lost; fewer will do on a slow one."""
STUDY = f"""
[study]
name = "hosts"
trials = 6
validation = "random:0"
folds = 2
refit = 1
grace_epochs = {EPOCHS}          # none is pruned, so that each trial's value is its own affair
max_failures = 0

[train]
encoder = "test_efficientnet"
tile_size = 32
batch_size = 4
epochs = {EPOCHS}

[search]                   # six configurations, so that in whatever order all of them are tried
lr_max = {{ choice = [1e-4, 3e-4, 1e-3] }}
building_weight = {{ choice = [0.5, 0.75] }}
"""
SAME = ("lr_max", "building_weight", "state", "dice", "iou", "precision", "recall", "best_epoch", "epochs_trained")

pytestmark = [pytest.mark.slow, pytest.mark.alone]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Return a folder with a small data set and a study file."""
    make_sample(tmp_path / "data", scenes=4, months=1, size=96)
    (tmp_path / "study.toml").write_text(STUDY)
    return tmp_path


@contextmanager
def driving(place: Path, results: str, nodes: Nodes | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """Run the study's driver, on the nodes or on a cluster of its own; it is killed at the end of the block."""
    command = [sys.executable, str(ROOT / "sweep/run.py"), "study.toml", "--data", "data", "--results", results]
    command += ["--address", nodes.address] if nodes else []
    with (place / f"{results}.log").open("wb") as log:
        environment = nodes.environment if nodes else None
        driver = subprocess.Popen(command, cwd=place, stdout=log, stderr=log, env=environment)
        try:
            yield driver
        finally:
            driver.kill()
            driver.wait()


def trials(place: Path, results: str) -> list[optuna.trial.FrozenTrial]:
    """Return the study's trials; none before it has begun."""
    if not (place / results / "hosts/records.jsonl").exists():
        return []
    storage = f"sqlite:///{place / results / 'hosts/optuna.db'}"
    return optuna.load_study(study_name="hosts", storage=storage).trials


def running(place: Path, results: str) -> list[optuna.trial.FrozenTrial]:
    """Return the trials that train now."""
    return [trial for trial in trials(place, results) if trial.state.name == "RUNNING" and trial.intermediate_values]


def wait_until(reached: Callable[[], bool], driver: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until this is true while the driver runs."""
    deadline = time.monotonic() + 900
    while not reached():
        assert driver.poll() is None and time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.2)


def leaderboard(place: Path, results: str) -> list[list[str]]:
    """Return what a loss must not change of a leaderboard, a row a configuration."""
    with (place / results / "hosts/leaderboard.csv").open(encoding="utf-8", newline="") as file:
        return sorted([row[name] for name in SAME] for row in csv.DictReader(file))


def preempted(place: Path, results: str) -> int:
    """Return how many attempts were lost for no fault of the trial's."""
    return sum(trial.user_attrs.get("preempted", 0) for trial in trials(place, results))


def test_four_hosts_of_which_two_are_lost(place: Path) -> None:
    """One by a spot notice, one by a hard kill, no failure allowed: the leaderboard is that of a study without loss."""
    with Nodes(place / "nodes.log", HEAD) as nodes, serve_metadata() as metadata:
        for host in HOSTS:
            nodes.add(host)
        with driving(place, "lost", nodes) as driver:
            log = place / "lost.log"
            wait_until(lambda: len(running(place, "lost")) == len(HOSTS), driver, log)
            watcher = [sys.executable, "-m", "sweep.spot", "--address", nodes.address, "--node-ip", HOSTS[0]]
            metadata.take_away("2026-01-01T00:02:00Z")
            done = subprocess.run(
                [*watcher, "--metadata", metadata.url],
                env=nodes.environment,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0 and "is drained" in done.stdout, done.stderr
            # Its trial ends by itself, with a checkpoint, while the machine is still there.
            wait_until(lambda: preempted(place, "lost") == 1, driver, log)
            (given_up,) = [t.number for t in trials(place, "lost") if t.user_attrs.get("preempted")]
            assert next((place / "lost/hosts/trials" / f"{given_up:04d}").glob("*/checkpoint.pt"))
            nodes.kill(HOSTS[0])
            nodes.kill(HOSTS[1])
            assert driver.wait(timeout=1800) == 0, log.read_text()[-3000:]
    ended = trials(place, "lost")
    assert [trial.state.name for trial in ended] == ["COMPLETE"] * 6
    assert [trial.user_attrs.get("failures", 0) for trial in ended] == [0] * 6
    assert preempted(place, "lost") == 2
    with driving(place, "whole") as driver:
        assert driver.wait(timeout=1800) == 0, (place / "whole.log").read_text()[-3000:]
    assert preempted(place, "whole") == 0
    assert leaderboard(place, "lost") == leaderboard(place, "whole")


def test_two_trials_share_a_gpu(place: Path) -> None:
    """A host with a GPU, here one in name only: two trials that want half of it run side by side, a third waits."""
    text = STUDY.replace("[train]", "[resources]\ngpu = 0.5\ncpu = 1\n\n[train]").replace("trials = 6", "trials = 3")
    (place / "study.toml").write_text(text)
    with Nodes(place / "nodes.log", HEAD) as nodes:
        nodes.add(HOSTS[0], cpus=4, gpus=1)
        with driving(place, "shared", nodes) as driver:
            together = [0]

            def one_has_ended() -> bool:
                together.append(len(running(place, "shared")))
                return any(trial.state.name == "COMPLETE" for trial in trials(place, "shared"))

            wait_until(one_has_ended, driver, place / "shared.log")
    assert max(together) == 2
