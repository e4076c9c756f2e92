from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sn7.errors import StudyInvalid
from sweep.cluster import capacity, has_gpus, require_capacity
from sweep.study import Resources, Study
from sweep.studyfile import load_study


@pytest.fixture
def study(write_study: Callable[..., Path]) -> Study:
    """Return a small study."""
    return load_study(write_study())


def _node(alive: bool = True, **resources: float) -> dict[str, Any]:
    return {"Alive": alive, "Resources": resources}


@pytest.mark.parametrize(
    ("resources", "nodes", "trials"),
    [
        (Resources(0, 2), [_node(CPU=3), _node(CPU=3)], 2),  # 6 CPUs, but a trial stays on one node
        (Resources(0.2, 1), [_node(CPU=16, GPU=1)], 5),
        (Resources(0.6, 1), [_node(CPU=16, GPU=2)], 2),  # 1.2 of 2 GPUs, but a trial stays on one GPU
        (Resources(0.3333, 1), [_node(CPU=16, GPU=2), _node(CPU=16, GPU=1)], 9),
        (Resources(1, 1), [_node(CPU=16, GPU=2)], 2),
        (Resources(0.5, 4), [_node(CPU=4, GPU=2), _node(CPU=64)], 1),
        (Resources(0, 1), [_node(CPU=2), _node(alive=False, CPU=2)], 2),
        (Resources(1, 1), [], 0),
    ],
)
def test_capacity(study: Study, resources: Resources, nodes: list[dict[str, Any]], trials: int) -> None:
    """Trials that run at once."""
    assert capacity(replace(study, resources=resources), nodes) == trials


def test_a_trial_that_fits_nowhere_is_refused(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence with what it wants and what there is."""
    monkeypatch.setattr("sweep.cluster.ray.nodes", lambda: [_node(CPU=2), _node(CPU=1)])
    monkeypatch.setattr("sweep.cluster.coming", list)
    require_capacity(study)
    with pytest.raises(StudyInvalid, match=r"wants 4 CPU and 0\.5 GPU, and the largest of 2 nodes has 2 CPU and 0 GPU"):
        require_capacity(replace(study, resources=Resources(0.5, 4)))


def test_a_cluster_without_nodes_that_grows(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trial waits for a node that the autoscaler can bring; one that no such node has room for is refused."""
    monkeypatch.setattr("sweep.cluster.ray.nodes", lambda: [_node(CPU=0)])
    monkeypatch.setattr("sweep.cluster.coming", lambda: [_node(CPU=4, GPU=1)] * 3)
    assert has_gpus()
    require_capacity(replace(study, resources=Resources(0.5, 4)))
    with pytest.raises(StudyInvalid, match="the largest of 1 nodes and 3 that its autoscaler can bring has 4 CPU"):
        require_capacity(replace(study, resources=Resources(0.5, 8)))
    monkeypatch.setattr("sweep.cluster.coming", list)
    assert not has_gpus()
