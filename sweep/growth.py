"""What the autoscaler of the connected cluster can add to it: `ray up` leaves its cluster file on the head.

Ray itself answers only for the nodes that are there, and a cluster that is paid for by the hour begins with none.
"""

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import ray
import yaml

__all__ = ["NODE_TYPE", "coming", "wait_for_minimum", "workers_of"]

NODE_TYPE = "ray.io/node-group"
"""Label of a node that holds the name of its type in the cluster file."""
WAIT_SECONDS = 600.0
"""A machine that has to boot and to install the environment takes about half of it."""
LOOK_SECONDS = 2.0
MAX_WORKERS = 2
"""What Ray takes for `max_workers` where a cluster file has none."""


def coming() -> list[dict[str, Any]]:
    """Return the nodes that the autoscaler may bring up, like those of `ray.nodes()`; none without one on this machine.

    Those that it has brought up already are among them.
    """
    return workers_of(_cluster_file())


def workers_of(cluster: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the worker nodes of a cluster file, as many as `max_workers` allows, those of higher priority first."""
    types = [(name, kind) for name, kind in _node_types(cluster).items() if name != cluster["head_node_type"]]
    types.sort(key=lambda pair: -pair[1].get("priority", 0))
    most = cluster.get("max_workers", MAX_WORKERS)
    nodes = [
        {"Alive": True, "Resources": kind.get("resources", {}), "Labels": {NODE_TYPE: name}}
        for name, kind in types
        for _ in range(kind.get("max_workers", most))
    ]
    return nodes[:most]


def wait_for_minimum() -> None:
    """Wait for the workers that the cluster file asks for in any case (`min_workers`), ten minutes at most."""
    wanted = sum(kind.get("min_workers", 0) for kind in _node_types(_cluster_file()).values())
    deadline, told = time.monotonic() + WAIT_SECONDS, -1
    while (there := _workers(ray.nodes())) < wanted and time.monotonic() < deadline:
        if there != told:
            print(f"waiting for the cluster: {there} of {wanted} workers are there", file=sys.stderr)
            told = there
        time.sleep(LOOK_SECONDS)
    if there < wanted:
        print(f"warning: {there} of {wanted} workers are there after {WAIT_SECONDS:g} s; going on", file=sys.stderr)


def _workers(nodes: Sequence[Mapping[str, Any]]) -> int:
    """Return how many nodes beside the head are there."""
    return sum(node["Alive"] and "node:__internal_head__" not in node["Resources"] for node in nodes)


def _node_types(cluster: Mapping[str, Any]) -> Mapping[str, Any]:
    types: Mapping[str, Any] = cluster.get("available_node_types", {})
    return types


def _cluster_file() -> Mapping[str, Any]:
    """Return the file of the autoscaler that runs beside this process for the connected cluster, or an empty one."""
    address = ray.get_runtime_context().gcs_address
    for process in psutil.process_iter(["cmdline"]):
        options = dict(word.split("=", 1) for word in process.info["cmdline"] or () if word[:2] == "--" and "=" in word)
        path = options.get("--autoscaling-config")
        if path and options.get("--gcs-address") == address:
            content: Mapping[str, Any] = yaml.safe_load(Path(path).expanduser().read_text(encoding="utf-8"))
            return content
    return {}
