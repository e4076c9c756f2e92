"""Every node of a cluster is asked whether it can take part in the study, before anything is spent."""

import sys
from collections.abc import Mapping
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sn7.errors import NodeUnfit
from sweep.terms import require_met
from sweep.versions import versions, warning_of

__all__ = ["require_fit_nodes"]

WAIT_S = 180.0
"""How long a node may take to answer: its first worker unpacks the code and loads torch."""


def require_fit_nodes() -> None:
    """Raise NodeUnfit, naming it, where a node of the connected cluster does not meet the terms of its job.

    Nodes without a CPU for trials are not asked. Of one whose packages are of other versions a warning is printed.
    """
    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    asked = {_ask(node): node for node in nodes}
    ready, late = ray.wait(list(asked), num_returns=len(asked), timeout=WAIT_S) if asked else ([], [])
    for reference in late:
        print(f"warning: {_name(asked[reference])} has not answered in {WAIT_S:g} s", file=sys.stderr)
    for reference in ready:
        node = asked[reference]
        there = _answer(reference, node)
        if there and (warning := warning_of(node["NodeID"], _name(node), there)):
            print(warning, file=sys.stderr)


def _ask(node: Mapping[str, Any]) -> ray.ObjectRef:
    there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
    return ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=there)(_examine).remote()


def _examine() -> str:
    require_met()
    return versions()


def _answer(reference: ray.ObjectRef, node: Mapping[str, Any]) -> str:
    """Return a node's versions; nothing where it has gone."""
    try:
        return str(ray.get(reference))
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, NodeUnfit):
            raise NodeUnfit(f"{_name(node)} {error.cause}.") from error
        raise NodeUnfit(f"{_name(node)} cannot run the driver's code ({_short(error.cause or error)}).") from error
    except ray.exceptions.RuntimeEnvSetupError as error:
        raise NodeUnfit(
            f"{_name(node)} cannot take the driver's code ({_short(error)}); install `sn7[cluster]` there."
        ) from error
    except ray.exceptions.RayError:
        return ""  # it has just gone; whatever comes in its place is asked by the first attempt there


def _name(node: Mapping[str, Any]) -> str:
    return f"node {node['NodeManagerAddress']}"


def _short(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
