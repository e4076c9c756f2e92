"""What is wrong with the commands of a cluster file that start servers: whom they let in, how trials compute."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["start_defects"]

LOOPBACK = ("127.0.0.1", "localhost", "::1")
HOST = re.compile(r"\s(--dashboard-host|--host|-h)[= ]*([^\s;]+)")
VARIABLE = re.compile(r"\b(\w+)=[\"']?([^\s;\"']*)")
EVERYWHERE = {
    ("RAY_AUTH_MODE", "token"): "without it whoever reaches a port runs code",
    ("RAY_enable_metrics_collection", "0"): "its metrics ask for no token",
}
"""What a command has to set before `ray start`, and why."""
HEAD = {
    ("DASHBOARD_METRIC_PORT", "70000"): "the dashboard's metrics ask for no token, and no switch turns them off",
    ("AUTOSCALER_METRIC_PORT", "70000"): "the autoscaler's metrics ask for no token, and no switch turns them off",
}


def start_defects(cluster: Mapping[str, Any]) -> Iterator[str]:
    """Yield commands that would let strangers in, or start trials that compute with one thread."""
    for name, wanted in (("head_start_ray_commands", EVERYWHERE | HEAD), ("worker_start_ray_commands", EVERYWHERE)):
        starts = [command for command in cluster.get(name, ()) if "ray start" in command]
        if not starts:
            yield f"{name} have no `ray start`; Ray's own ask for no token: write them down, as cluster.yaml does."
        for command in starts:
            there = dict(VARIABLE.findall(command.partition("ray start")[0]))
            for pair in (pair for pair in wanted if pair not in there.items()):
                yield f"{name}: `ray start` without {'='.join(pair)}; {wanted[pair]}."
            if "unset OMP_NUM_THREADS" not in command:
                yield f"{name}: `ray start` without `unset OMP_NUM_THREADS`; Ray's launcher sets it to 1 for trials."
    for name in (name for name in cluster if name.endswith("commands")):
        for command in cluster[name]:
            for option, host in HOST.findall(command) if "ray start" in command or "mlflow" in command else ():
                if host not in LOOPBACK:
                    yield f"{name}: {option} is {host}; wanted 127.0.0.1, which is reached through SSH alone."
