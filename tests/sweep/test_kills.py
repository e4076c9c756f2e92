"""Kills at random moments: driver, worker, node. Nothing is lost, doubled or left RUNNING.

KILLS=30 KILL_SEED=7 pytest tests/sweep/test_kills.py -s       a longer campaign; a seed fixes kinds and moments

Moments are counted in epochs that the study has reported, so that a faster machine is not done before it is hurt.
"""

import csv
import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from mlflow.tracking import MlflowClient
from nodes import Nodes, kill

from sn7.sample import make_sample

ROOT = Path(__file__).parents[2]
KILLS, SEED = int(os.environ.get("KILLS", "6")), int(os.environ.get("KILL_SEED", "0"))
TRIALS, EPOCHS = 4 + KILLS, 8
HOSTS = ("127.0.0.3", "127.0.0.4")
STUDY = f"""
[study]
name = "killed"
trials = {TRIALS}
validation = "folds"
folds = 2
refit = 1
grace_epochs = 4
max_failures = 100         # a worker that is killed by hand has no excuse

[train]
encoder = "test_efficientnet"
tile_size = 32
batch_size = 4
epochs = {EPOCHS}

[search]
lr_max = {{ loguniform = [1e-4, 1e-2] }}
building_weight = {{ uniform = [0.5, 0.9] }}
"""

pytestmark = pytest.mark.slow


class Campaign:
    """A study on two nodes, and what was killed in it."""

    def __init__(self, place: Path, nodes: Nodes) -> None:
        self.place, self.nodes = place, nodes
        self.killed: Counter[str] = Counter()
        self.random = random.Random(SEED)
        self.driver = self._drive()

    def _drive(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, str(ROOT / "sweep" / "run.py"), "study.toml", "--data", "data", "--resume"]
        with (self.place / "driver.log").open("ab") as log:
            return subprocess.Popen(
                [*command, "--address", self.nodes.address],
                cwd=self.place,
                stdout=log,
                stderr=log,
                env=self.nodes.environment,
            )

    def run(self) -> None:
        """Kill at random moments until enough was killed, then let the study end.

        First every worker, once the notebook's trial has begun: that one is never pruned, so it must be continued.
        """
        self.wait_until(lambda: len(_steps(self.place).get(0, ())) >= 2)
        for worker in self.nodes.workers():
            self._kill_worker(worker)
        kinds: list[Callable[[], None]] = []
        while sum(self.killed.values()) < KILLS and self.driver.poll() is None:
            if not kinds:
                kinds = self.random.sample([self.kill_driver, self.kill_node, self.kill_worker], 3)
            self._wait_for_a_moment()
            kinds.pop()()
        assert self.driver.wait(timeout=1500) == 0, (self.place / "driver.log").read_text()[-3000:]

    def _wait_for_a_moment(self) -> None:
        """Wait for some epochs or, one time in four, only for a moment: what has just been killed is starting."""
        if self.random.random() < 0.75:
            goal = self.random.randint(1, EPOCHS) + _epochs(self.place)
            self.wait_until(lambda: _epochs(self.place) >= goal)
        time.sleep(self.random.uniform(0, 2))

    def wait_until(self, reached: Callable[[], bool]) -> None:
        """Wait until this is true, or the driver has ended."""
        deadline = time.monotonic() + 400
        while self.driver.poll() is None and not reached():
            assert time.monotonic() < deadline, (self.place / "driver.log").read_text()[-3000:]
            time.sleep(0.2)

    def kill_driver(self) -> None:
        """Kill the driver and start it again."""
        self.driver.kill()
        self.driver.wait()
        self.killed["driver"] += 1
        self.driver = self._drive()

    def kill_worker(self) -> None:
        """Kill a process that trains, if there is one now."""
        workers = self.nodes.workers()
        if workers:
            self._kill_worker(self.random.choice(workers))

    def _kill_worker(self, worker: int) -> None:
        kill(worker)
        self.killed["worker"] += 1

    def kill_node(self) -> None:
        """Kill a node with all that runs on it; another one takes its place."""
        host = self.random.choice(HOSTS)
        self.nodes.kill(host)
        self.killed["node"] += 1
        self.nodes.add(host)


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    """Return a campaign that is over."""
    place = tmp_path_factory.mktemp("killed")
    make_sample(place / "data", scenes=4, months=1, size=96)
    (place / "study.toml").write_text(STUDY)
    with Nodes(place / "nodes.log") as nodes:
        for host in HOSTS:
            nodes.add(host)
        campaign = Campaign(place, nodes)
        try:
            campaign.run()
        finally:
            campaign.driver.kill()
            campaign.driver.wait()
    print(f"\n{sum(campaign.killed.values())} kills (seed {SEED}): {dict(campaign.killed)}")
    return campaign


def test_lost_machines_are_free(tmp_path: Path) -> None:
    """With no failure allowed: one node is killed hard, one drained as before a spot machine goes; no trial fails."""
    make_sample(tmp_path / "data", scenes=4, months=1, size=96)
    text = STUDY.replace(f"trials = {TRIALS}", "trials = 4").replace("max_failures = 100", "max_failures = 0")
    # Long trials, none pruned, and more of them than nodes: on a fast machine, too, two are there to be lost.
    text = text.replace(f"epochs = {EPOCHS}", "epochs = 200").replace("grace_epochs = 4", "grace_epochs = 200")
    text = text.replace('"folds"', '"random:0"')
    with Nodes(tmp_path / "nodes.log") as nodes:
        for host in HOSTS:
            nodes.add(host)
        (tmp_path / "study.toml").write_text(text)
        driver = Campaign(tmp_path, nodes).driver
        try:
            for host, drained in zip(HOSTS, (False, True), strict=True):
                _wait_for_epochs(tmp_path, driver)
                if drained:
                    nodes.drain(host)
                nodes.kill(host)
                nodes.add(host)
            assert driver.wait(timeout=900) == 0, (tmp_path / "driver.log").read_text()[-3000:]
        finally:
            driver.kill()
            driver.wait()
    trials = _optuna(tmp_path).values()
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 4
    assert sum(trial.user_attrs.get("preempted", 0) for trial in trials) >= 2
    assert sum(trial.user_attrs.get("failures", 0) for trial in trials) == 0


def test_machines_lost_in_the_cross_validation(tmp_path: Path) -> None:
    """With no failure allowed: all nodes are killed while they train folds, which go on where they had a checkpoint."""
    make_sample(tmp_path / "data", scenes=4, months=1, size=96)
    text = STUDY.replace(f"trials = {TRIALS}", "trials = 1").replace("max_failures = 100", "max_failures = 0")
    text = text.replace(f"epochs = {EPOCHS}", "epochs = 60").replace("grace_epochs = 4", "grace_epochs = 60")
    (tmp_path / "study.toml").write_text(text.replace('"folds"', '"random:0"'))
    with Nodes(tmp_path / "nodes.log") as nodes:
        for host in HOSTS:
            nodes.add(host)
        campaign = Campaign(tmp_path, nodes)
        try:
            folder = tmp_path / "results/killed/trials/0000"
            campaign.wait_until(lambda: any(folder.glob("fold*/checkpoint.pt")))
            for host in HOSTS:
                nodes.kill(host)
            for host in HOSTS:
                nodes.add(host)
            assert campaign.driver.wait(timeout=900) == 0, (tmp_path / "driver.log").read_text()[-3000:]
        finally:
            campaign.driver.kill()
            campaign.driver.wait()
    results = [json.loads(path.read_text()) for path in folder.glob("fold*/result.json")]
    assert [result["epochs"] for result in results] == [60, 60]
    assert any(result["continued_after"] > 0 for result in results)


def _wait_for_epochs(place: Path, driver: subprocess.Popen[bytes]) -> None:
    """Wait until two trials run that have each reported an epoch since now."""
    before = _steps(place)
    deadline = time.monotonic() + 400
    while time.monotonic() < deadline and driver.poll() is None:
        grown = [len(steps) > len(before.get(number, ())) for number, steps in _steps(place, "RUNNING").items()]
        if sum(grown) == 2:  # a third may have been asked for ahead
            return
        time.sleep(0.3)
    raise AssertionError((place / "driver.log").read_text()[-3000:])


def _steps(place: Path, *states: str) -> dict[int, set[int]]:
    """Return the steps that each trial, or each one in some states, has reported."""
    if not (place / "results/killed/records.jsonl").exists():  # opening a database that is being made would make it too
        return {}
    trials = _optuna(place).items()
    return {number: set(t.intermediate_values) for number, t in trials if not states or t.state.name in states}


def _epochs(place: Path) -> int:
    return sum(map(len, _steps(place).values()))


def _optuna(place: Path) -> dict[int, optuna.trial.FrozenTrial]:
    storage = f"sqlite:///{place / 'results/killed/optuna.db'}"
    return {trial.number: trial for trial in optuna.load_study(study_name="killed", storage=storage).trials}


def test_leaderboard_optuna_and_mlflow_agree(campaign: Campaign) -> None:
    """Exactly the trials that were asked for, each with one state, the same everywhere; none RUNNING."""
    assert sum(campaign.killed.values()) >= KILLS, "the study was over too early; give it more trials"
    assert set(campaign.killed) == {"driver", "node", "worker"}
    with (campaign.place / "results/killed/leaderboard.csv").open(encoding="utf-8", newline="") as file:
        rows = {int(row["trial"]): row for row in csv.DictReader(file)}
    assert sorted(rows) == list(range(TRIALS))
    assert {row["state"] for row in rows.values()} <= {"COMPLETE", "PRUNED"}
    assert {number: trial.state.name for number, trial in _optuna(campaign.place).items()} == {
        number: row["state"] for number, row in rows.items()
    }
    client = MlflowClient(f"sqlite:///{campaign.place / 'results/mlflow.db'}")
    experiment = client.get_experiment_by_name("killed")
    runs = client.search_runs([experiment.experiment_id])
    assert {run.info.status for run in runs} <= {"FINISHED", "KILLED"}
    kinds = Counter(run.data.tags["sn7.kind"] for run in runs)
    assert (kinds["study"], kinds["trial"]) == (1, TRIALS)
    trials = {int(run.data.tags["sn7.trial"]): run for run in runs if run.data.tags["sn7.kind"] == "trial"}
    assert {number: run.data.tags["state"] for number, run in trials.items()} == {
        number: row["state"] for number, row in rows.items()
    }
    folds = [(run.data.tags["sn7.trial"], run.data.tags["sn7.fold"]) for run in runs if "sn7.fold" in run.data.tags]
    assert len(folds) == len(set(folds))


def test_no_epoch_is_lost_or_doubled(campaign: Campaign) -> None:
    """MLflow has each epoch of each trial once, with the value that Optuna has; both have all up to the trial's end."""
    client = MlflowClient(f"sqlite:///{campaign.place / 'results/mlflow.db'}")
    experiment = client.get_experiment_by_name("killed")
    known = _optuna(campaign.place)
    for run in client.search_runs([experiment.experiment_id], "tags.`sn7.kind` = 'trial'"):
        trial = known[int(run.data.tags["sn7.trial"])]
        points = [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, "objective")]
        assert len(points) == len(dict(points))
        assert dict(points) == pytest.approx(trial.intermediate_values)
        assert sorted(trial.intermediate_values) == list(range(1, trial.user_attrs["epochs_trained"] + 1))


def test_trials_went_on_from_their_checkpoints(campaign: Campaign) -> None:
    """Some training was continued after an epoch that it had; complete ones leave no checkpoint."""
    results = [json.loads(path.read_text()) for path in (campaign.place / "results").rglob("result.json")]
    assert any(result["continued_after"] > 0 for result in results)
    assert all(result["epochs"] == EPOCHS for result in results)
    assert not list((campaign.place / "results").rglob("checkpoint.pt"))
    lost = [
        trial.user_attrs.get("preempted", 0) + trial.user_attrs.get("failures", 0)
        for trial in _optuna(campaign.place).values()
    ]
    assert sum(lost) > 0
