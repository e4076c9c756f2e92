"""The Ray cluster that a study runs on, and `python -m sweep.cluster check FILE`: is its file fit for `ray up`?"""

import argparse
import os
import secrets
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray

from sn7.errors import ClusterFileInvalid, ClusterUnavailable, StudyInvalid
from sn7.files import causes
from sweep.gcs import open_gcs, refused
from sweep.growth import coming, wait_for_minimum, workers_of
from sweep.muster import require_fit_nodes
from sweep.terms import Terms, shipped

if TYPE_CHECKING:  # else a cluster file could not be checked before torch is loaded
    from sweep.study import Study

__all__ = ["capacity", "has_gpus", "main", "per_gpu", "require_capacity", "start_ray", "stop_ray"]


def start_ray(address: str | None, terms: Terms | None = None) -> None:
    """Join the cluster at `address`, or start one on this machine that only its own processes can talk to.

    Where there are terms, its tasks run this process's code, and its nodes are asked whether they meet them. A cluster
    that `ray up` has started only now is waited for, until the workers are there that it is to have in any case.
    Raises ClusterUnavailable, NodeUnfit.
    """
    if address is None:
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    try:
        if address and ":" in address:
            open_gcs(address)
        with shipped(terms) if terms else nullcontext() as environment:
            ray.init(
                address=address or "local",
                include_dashboard=None if address else False,
                log_to_driver=False,
                logging_level="ERROR",
                runtime_env=environment,
            )
    except (OSError, RuntimeError, ray.exceptions.RayError) as error:
        if any(isinstance(cause, ray.exceptions.AuthenticationError) for cause in causes(error)):
            raise refused(str(address)) from error
        reason = " ".join(str(error).split())[:300]
        raise ClusterUnavailable(
            f"no Ray cluster at {address or 'this machine'} ({reason}); start it, or give its RAY_AUTH_TOKEN."
        ) from error
    if address:
        wait_for_minimum()
    if terms:
        require_fit_nodes()


def stop_ray() -> None:
    """Leave the cluster, and end it if `start_ray` has started it."""
    ray.shutdown()


def per_gpu(share: float) -> int:
    """Return how many trials of this share Ray puts on a GPU; shares are multiples of 1/10,000."""
    return 10_000 // max(1, round(share * 10_000)) if share else 1


def capacity(study: "Study", nodes: Iterable[Mapping[str, Any]]) -> int:
    """Return how many trials run at once on nodes, as `ray.nodes()` has them; a trial stays on one node and one GPU."""
    share = float(study.resources.gpu)
    total = 0
    for node in nodes:
        if node["Alive"]:
            room = int(node["Resources"].get("CPU", 0) // study.resources.cpu)
            total += min(room, int(node["Resources"].get("GPU", 0)) * per_gpu(share)) if share else room
    return total


def has_gpus() -> bool:
    """Return whether the connected cluster has a whole GPU, or its autoscaler can bring one."""
    return any(node["Alive"] and node["Resources"].get("GPU", 0) >= 1 for node in [*ray.nodes(), *coming()])


def require_capacity(study: "Study") -> None:
    """Raise StudyInvalid where not one trial fits on the connected cluster, grown or not: it would wait for ever."""
    nodes, later = ray.nodes(), coming()
    if capacity(study, [*nodes, *later]):
        return
    rooms = [{"CPU": 0.0, "GPU": 0.0, **node["Resources"]} for node in [*nodes, *later] if node["Alive"]]
    largest = max(rooms, key=lambda room: (room["GPU"], room["CPU"]))
    grown = f" and {len(later)} that its autoscaler can bring" if later else ""
    raise StudyInvalid(
        f"a trial wants {study.resources.cpu} CPU and {float(study.resources.gpu):g} GPU, and the largest of "
        f"{len(nodes)} nodes{grown} has {largest['CPU']:g} CPU and {largest['GPU']:g} GPU; lower [resources] in the "
        "study file, or start a larger cluster."
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Check a cluster file; return 0 where `ray up` may be tried, 1 where it has defects, 2 for a usage error."""
    parser = argparse.ArgumentParser(prog="python -m sweep.cluster", description="Check a cluster file of `ray up`.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    check = commands.add_parser(
        "check", help="say what `ray up` would miss", description="Print each defect of a cluster file, one a line."
    )
    check.add_argument("file", type=Path, help="cluster file; paths in it are relative to the current directory")
    return _check(parser.parse_args(arguments).file)


def _check(path: Path) -> int:
    from sweep.clusterfile import cluster_defects, load_cluster_file  # botocore and Ray's launcher: no trial needs them

    try:
        cluster = load_cluster_file(path)
        defects = cluster_defects(cluster, Path.cwd())
    except ClusterFileInvalid as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for defect in defects:
        print(f"{path}: {defect}")
    if defects:
        print(f"{path}: {len(defects)} defect{'s' * (len(defects) > 1)}; to be mended before `ray up`")
        return 1
    workers = workers_of(cluster) or cluster["provider"].get("worker_ips", ())
    print(f"{path}: no defect found; a head and at most {len(workers)} workers{_stack(cluster)}")
    return 0


def _stack(cluster: Mapping[str, Any]) -> str:
    """Return what the account's stack must have alike; of machines of one's own, nothing."""
    kinds = cluster.get("available_node_types", {}).items()
    types = {kind["node_config"]["InstanceType"] for name, kind in kinds if name != cluster["head_node_type"]}
    if not types:
        return ""
    return f"; the stack's ClusterName is to be {cluster['cluster_name']}, its InstanceTypes {','.join(sorted(types))}"


if __name__ == "__main__":
    sys.exit(main())
