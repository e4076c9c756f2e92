"""`ray up` with the cluster files that ship: on a mocked EC2, and on machines of one's own, all of them on loopback.

The files are used as they are, but for their placeholders, the shared folder and ports. `make test-up` runs these.
"""

import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import psutil
import pytest
from ec2 import MockedEc2, mocked_ec2, power
from machines import Machines, machines, missing
from metadata import MetadataServer, serve_metadata

from sn7.prepared import Prepared

pytestmark = [
    pytest.mark.slow,
    pytest.mark.alone,
    pytest.mark.skipif(bool(missing()), reason=missing()),
]

ROOT = Path(__file__).parents[2]
HOSTS = [f"127.0.0.{last}" for last in range(4, 11)]
STUDY = """
[study]
name = "up"
trials = 2
validation = "random:0"
folds = 2
refit = 1
grace_epochs = 16
max_failures = {failures}

[resources]
gpu = {gpu}
cpu = 1

[train]
encoder = "xresnet18"
tile_size = 32
batch_size = 4
epochs = 16

[search]
lr_max = {{ loguniform = [1e-4, 1e-2] }}
"""


class Launcher:
    """What a person has at a desk: a filled in cluster file, a token, and `ray`."""

    def __init__(self, there: Machines, name: str, values: dict[str, str], **variables: str) -> None:
        self.there, self.shared = there, there.folder / "shared"
        self.shared.mkdir()
        self.token = there.folder / "token"
        self.token.write_text("0123456789abcdef" * 4)
        self.token.chmod(0o600)
        self.file = there.folder / name
        self.file.write_text(self._filled((ROOT / name).read_text(), values))
        own = {
            "HOME": str(there.folder),
            "RAY_TMPDIR": str(there.folder / "desk"),
            "RAY_AUTH_TOKEN_PATH": str(self.token),
        }
        self.study: subprocess.Popen[bytes] | None = None
        self.environment = {**os.environ, **own, "PATH": f"{there.folder}/bin:{os.environ['PATH']}", **variables}

    def _filled(self, text: str, values: dict[str, str]) -> str:
        for name, value in values.items():
            text = text.replace(f"<{name}>", value)
        text = re.sub(r"(ssh_private_key:) \S+", rf"\1 {self.there.key}", text)
        text = text.replace("~/.ray/sn7_token", str(self.token)).replace("ssh_user: ubuntu", "ssh_user: root")
        text = text.replace("/mnt/sn7", str(self.shared))
        return text.replace("6379", str(self.there.gcs)).replace("--port 5000", f"--port {self.there.mlflow}")

    def change(self, *pairs: tuple[str, str]) -> None:
        """Replace texts of the file, each of which it must have."""
        text = self.file.read_text()
        for old, new in pairs:
            assert old in text, old
            text = text.replace(old, new)
        self.file.write_text(text)

    def run(self, *words: str, module: str = "ray.scripts.scripts") -> str:
        """Run `ray`, or another module, to its end; return what it has printed."""
        done = subprocess.run(
            [sys.executable, "-m", module, *words],
            cwd=ROOT,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=900,
            check=False,
        )
        assert done.returncode == 0, f"{words}: {done.stdout[-4000:]}\n{self.logs()}"
        return done.stdout

    def start_study(self, gpu: int, data: str, failures: int) -> None:
        """Start a study on the head, as a person does."""
        (self.shared / "up.toml").write_text(STUDY.format(gpu=gpu, failures=failures))
        command = (
            f"cd ~/sn7 && .venv/bin/python sweep/run.py {self.shared}/up.toml --data {data} "
            f"--results {self.shared}/results --address {HOSTS[0]}:{self.there.gcs} > {self.shared}/study.log 2>&1"
        )
        words = [sys.executable, "-m", "ray.scripts.scripts", "exec", str(self.file), command]
        with (self.there.folder / "exec.log").open("wb") as log:
            self.study = subprocess.Popen(words, env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def ended(self) -> None:
        """Wait for the study's end, which must be a good one."""
        assert self.study is not None
        assert self.study.wait(1200) == 0, self.logs()

    def training(self) -> str:
        """Return a machine that trains a trial whose first epochs have been reported, or nothing."""
        begun = list(self.shared.glob("results/up/trials/*/*/history.csv"))
        return next(iter(self.there.training() if begun else ()), "")

    def logs(self) -> str:
        """Return what the autoscaler and the watchers have said last."""
        paths = [
            *self.there.folder.glob("*/ray/session_2*/logs/monitor.*"),
            *self.shared.glob("study.log"),
            *self.there.folder.glob("exec.log"),
            *self.there.folder.glob("*/spot.log"),
        ]
        return "\n".join(f"--- {path}\n{path.read_text(errors='replace')[-2000:]}" for path in paths)


def _eventually(what: str, true: Callable[[], Any], launcher: Launcher, seconds: float = 900) -> Any:
    """Wait until what is asked for comes about, and return it."""
    deadline = time.monotonic() + seconds
    while not (answer := true()):
        assert launcher.study is None or launcher.study.poll() in (None, 0), f"{what}: no study\n{launcher.logs()}"
        assert time.monotonic() < deadline, f"{what}: it does not come about\n{launcher.logs()}"
        time.sleep(0.2)
    return answer


def _check_results(launcher: Launcher) -> None:
    """Assert that the study has each trial once, complete."""
    board = pd.read_csv(launcher.shared / "results/up/leaderboard.csv")
    assert sorted(board["trial"]) == [0, 1]
    assert list(board["state"]) == ["COMPLETE"] * 2, f"{list(board['error'])}\n{launcher.logs()}"


def _interruptions(launcher: Launcher) -> tuple[int, int]:
    """Return how many attempts at trials were lost for no fault of theirs, and how many failed."""
    opened = optuna.load_study(study_name="up", storage=f"sqlite:///{launcher.shared}/results/up/optuna.db")
    preempted, failures = (
        sum(trial.user_attrs.get(name, 0) for trial in opened.trials) for name in ("preempted", "failures")
    )
    return preempted, failures


def _status(url: str, token: str = "") -> int:
    """Return the HTTP status that a URL answers with."""
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


@pytest.fixture
def aws(make_prepared: Callable[..., Prepared]) -> Iterator[tuple[Launcher, MockedEc2, dict[str, MetadataServer]]]:
    """Yield a launcher with cluster.yaml, a mocked EC2 whose machines end when it says so, and their metadata."""
    with ExitStack() as stack, mocked_ec2() as ec2, machines(HOSTS, **ec2.variables) as there, power(ec2, there):
        ec2.import_key(Path(f"{there.key}.pub"))
        launcher = Launcher(there, "cluster.yaml", ec2.values, **ec2.variables)
        launcher.change(
            ("idle_timeout_minutes: 10", "idle_timeout_minutes: 0.5"),
            ("max_workers: 8 ", "max_workers: 2 "),
            ("type: aws", "type: aws\n  use_internal_ips: true"),  # nobody has public addresses here
            ("-m sweep.spot", "-m sweep.spot --every 1 --node-ip $SN7_IP --metadata $SN7_METADATA"),
        )
        ec2.s3.create_bucket(Bucket="sn7", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
        prepared = make_prepared().folder
        for path in prepared.rglob("*.*"):
            ec2.s3.upload_file(str(path), "sn7", f"prepared/{path.relative_to(prepared)}")
        services = {host: stack.enter_context(serve_metadata()) for host in HOSTS}
        for host, service in services.items():
            with (there.home(host) / ".bashrc").open("a") as file:
                file.write(f"export SN7_METADATA={service.url}\n")
        yield launcher, ec2, services


def test_the_life_of_a_cluster_on_aws(aws: tuple[Launcher, MockedEc2, dict[str, MetadataServer]]) -> None:
    """Up with a head alone; trials bring spot machines; one is taken away; idle ones go; down, and nothing is left."""
    launcher, ec2, services = aws
    there = launcher.there
    launcher.run("check", str(launcher.file), module="sweep.cluster")
    launcher.run("up", "-y", "--no-config-cache", str(launcher.file))
    assert ec2.machines() == {HOSTS[0]: "head"}
    assert "fs-0123456789abcdef0.efs.eu-central-1" in (there.home(HOSTS[0]) / "mounted").read_text()
    url = f"http://127.0.0.1:{there.dashboard}/api/jobs/"
    assert (_status(url), _status(url, launcher.token.read_text())) == (401, 200)

    launcher.start_study(1, "s3://sn7/prepared", failures=0)  # a notice is none
    taken = _eventually("a trial trains", launcher.training, launcher)
    assert set(ec2.machines().values()) == {"head", "g5.xlarge-spot"}
    (raylet,) = [it for it in map(psutil.Process, there.processes()[taken]) if it.name() == "raylet"]
    assert "OMP_NUM_THREADS" not in raylet.environ()
    services[taken].take_away("2026-01-01T00:00:00Z")
    _eventually("its trial leaves", lambda: taken not in there.training(), launcher)
    ec2.take_away(taken)
    launcher.ended()
    _check_results(launcher)
    preempted, failures = _interruptions(launcher)
    assert preempted >= 1 and not failures

    _eventually("idle machines go", lambda: ec2.machines() == {HOSTS[0]: "head"}, launcher)
    launcher.run("down", "-y", str(launcher.file))
    assert not ec2.machines()
    _eventually("nothing is left", lambda: not any(there.processes().values()), launcher)


def test_machines_of_ones_own(make_prepared: Callable[..., Prepared]) -> None:
    """The same over SSH: all workers are there at once, one is lost for good, and `ray down` stops the head."""
    with machines(HOSTS, SN7_UNMOUNTED="0") as there:
        values = {"head-address": HOSTS[0], "user": "root", "shared-folder": str(there.folder / "shared")}
        launcher = Launcher(there, "cluster-ssh.yaml", values)
        launcher.change(("[<worker-address>, <worker-address>]", f"[{HOSTS[1]}, {HOSTS[2]}]"))
        launcher.run("check", str(launcher.file), module="sweep.cluster")
        launcher.run("up", "-y", "--no-config-cache", str(launcher.file))
        launcher.start_study(0, str(make_prepared().folder), failures=2)
        there.lose(_eventually("a trial trains", launcher.training, launcher))
        launcher.ended()
        _check_results(launcher)
        preempted, failures = _interruptions(launcher)
        assert preempted + failures >= 1 and failures <= 1  # where Ray is slow to notice a loss, it is taken for one
        launcher.run("down", "-y", str(launcher.file))
        assert "gcs_server" not in [psutil.Process(pid).name() for pid in there.processes()[HOSTS[0]]]
