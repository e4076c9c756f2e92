"""A worker that is cut off from the network, and trains on: what it writes then harms nobody.

The worst case is made: its machine does not give up, and the epoch that it is in ends only when the trial has long
been trained to its end elsewhere.
"""

import csv
import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from netns import namespace, needs_namespaces
from nodes import Nodes

from sn7.sample import make_sample
from sweep.fence import newest
from sweep.trial import base_folder

ROOT = Path(__file__).parents[2]
SECOND = "127.0.1.23"
STUDY = """
[study]
name = "cut"
trials = 1
validation = "random:0"
folds = 2
refit = 1
max_failures = 0

[train]
encoder = "test_efficientnet"
tile_size = 32
batch_size = 4
epochs = 100

[search]
lr_max = { loguniform = [1e-4, 1e-2] }
"""
SLOW_TO_GIVE_UP = {"RAY_gcs_rpc_server_reconnect_timeout_s": "1000"}
"""So long a node that has lost its head goes on; Ray's own minute is about what the head takes to miss it."""

pytestmark = [pytest.mark.slow, pytest.mark.alone, needs_namespaces]


def _wait_until(reached: Callable[[], bool], seconds: float, driver: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline, log.read_text()[-3000:]
        assert not driver.poll(), log.read_text()[-3000:]
        time.sleep(0.1)


def _content(folder: Path) -> dict[str, str]:
    """Return a hash of each file below a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_late_writes_of_a_worker_that_was_cut_off(tmp_path: Path) -> None:
    """The trial is trained to its end elsewhere, no failure counted; then the first worker wakes, writes, and stops."""
    make_sample(tmp_path / "data", scenes=4, months=1, size=96)
    (tmp_path / "study.toml").write_text(STUDY)
    results, log = tmp_path / "results/cut", tmp_path / "driver.log"
    base = base_folder(results, 0, "random:0")
    command = [sys.executable, str(ROOT / "sweep/run.py"), "study.toml", "--data", "data"]
    with namespace() as there, Nodes(tmp_path / "nodes.log", there.here) as nodes, log.open("wb") as output:
        nodes.add(there.there, within=there.within, **SLOW_TO_GIVE_UP)
        command += ["--address", nodes.address]
        driver = subprocess.Popen(command, cwd=tmp_path, stdout=output, stderr=output, env=nodes.environment)
        try:
            _wait_until(lambda: (base / "checkpoint.pt").exists(), 900, driver, log)
            while not (workers := nodes.workers()):  # between two epochs its title is another one
                time.sleep(0.05)
            (worker,) = workers
            os.kill(worker, signal.SIGSTOP)  # as if its epoch were a long one
            there.cut()
            nodes.add(SECOND)
            assert driver.wait(timeout=1800) == 0, log.read_text()[-3000:]
            final = newest(base)
            assert final.name == "random-0.attempt-2" and not base.exists()
            before = _content(results)
            os.kill(worker, signal.SIGCONT)
            _wait_until(lambda: (base / "history.csv").exists(), 300, driver, log)
            time.sleep(20)  # many of its epochs, if it went on
        finally:
            driver.kill()
            driver.wait()
        with (base / "history.csv").open(newline="") as file:
            late = len(list(csv.DictReader(file)))
        after = _content(results)
    assert late < 100 and not (base / "result.json").exists()
    assert {name: after[name] for name in before} == before
    assert {Path(name).parts[2] for name in after.keys() - before.keys()} == {base.name}
    assert newest(base) == final
    storage = f"sqlite:///{results / 'optuna.db'}"
    (trial,) = optuna.load_study(study_name="cut", storage=storage).trials
    assert trial.state.name == "COMPLETE"
    assert (trial.user_attrs.get("preempted"), trial.user_attrs.get("failures", 0)) == (1, 0)
