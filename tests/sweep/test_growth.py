import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from sweep import growth
from sweep.budget import node_type

CLUSTER = {
    "max_workers": 5,
    "head_node_type": "head",
    "available_node_types": {
        "head": {"resources": {"CPU": 0}, "max_workers": 0, "node_config": {}},
        "dear": {"resources": {"CPU": 4, "GPU": 1}, "min_workers": 1, "node_config": {}},
        "spot": {"resources": {"CPU": 8, "GPU": 1}, "max_workers": 3, "priority": 1, "node_config": {}},
    },
}


def test_workers_are_counted_up_to_the_limit() -> None:
    """Those of higher priority first, then as many as max_workers leaves, two by Ray's default; the head is none."""
    resources = [node["Resources"] for node in growth.workers_of(CLUSTER)]
    assert resources == [{"CPU": 8, "GPU": 1}] * 3 + [{"CPU": 4, "GPU": 1}] * 2
    assert growth.workers_of({}) == []
    unlimited = {name: value for name, value in CLUSTER.items() if name != "max_workers"}
    assert [node_type(node) for node in growth.workers_of(unlimited)] == ["spot", "spot"]


@pytest.fixture
def context(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Stand in for the connection to a cluster at 10.0.0.1:6379."""

    class Context:
        gcs_address = "10.0.0.1:6379"

    monkeypatch.setattr("sweep.growth.ray.get_runtime_context", Context)


def test_the_file_of_the_clusters_own_autoscaler_counts(context: Any, tmp_path: Path) -> None:
    """It is found by the process that works with it; one of another cluster on this machine is not taken for it."""
    path = tmp_path / "ray_bootstrap_config.yaml"
    path.write_text(yaml.safe_dump(CLUSTER))
    script = tmp_path / "monitor.py"
    script.write_text("import time; time.sleep(60)")
    for address, wanted in (("10.0.0.2:6379", 0), ("10.0.0.1:6379", 5)):
        command = [sys.executable, str(script), f"--gcs-address={address}", f"--autoscaling-config={path}"]
        with subprocess.Popen(command, env=os.environ) as monitor:
            try:
                assert len(growth.coming()) == wanted
            finally:
                monitor.kill()


def test_workers_that_are_promised_are_waited_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Until min_workers are there; the head and dead nodes do not count, and it says what it waits for once."""
    head = {"Alive": True, "Resources": {"node:__internal_head__": 1.0}}
    dead, worker = {"Alive": False, "Resources": {}}, {"Alive": True, "Resources": {"CPU": 1.0}}
    looks = iter([[head], [head, dead], [head, dead, worker]])
    monkeypatch.setattr("sweep.growth._cluster_file", lambda: CLUSTER)
    monkeypatch.setattr("sweep.growth.ray.nodes", lambda: next(looks))
    monkeypatch.setattr("sweep.growth.LOOK_SECONDS", 0.0)
    growth.wait_for_minimum()
    assert capsys.readouterr().err == "waiting for the cluster: 0 of 1 workers are there\n"
    assert next(looks, None) is None


def test_workers_that_never_come_are_not_waited_for_for_ever(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A spot market may have none: the study begins with what is there, and says so."""
    monkeypatch.setattr("sweep.growth._cluster_file", lambda: CLUSTER)
    monkeypatch.setattr("sweep.growth.ray.nodes", list)
    monkeypatch.setattr("sweep.growth.WAIT_SECONDS", 0.0)
    growth.wait_for_minimum()
    assert capsys.readouterr().err == "warning: 0 of 1 workers are there after 0 s; going on\n"
