"""The watcher of a node on the spot market: python -m sweep.spot --address HEAD:6379

One runs on each node, started after `ray start`. It asks EC2's metadata service, by IMDSv2, whether the machine will
be taken away (`spot/instance-action`, two minutes ahead). Then it drains its node, so that Ray starts nothing more
there and counts what dies there as nobody's failure, and it tells the trainings, which write a checkpoint after their
batch and go on from there elsewhere (a validation, the smaller part of an epoch, is finished first). A rebalance
recommendation comes earlier, and often for nothing: the trainings then keep a checkpoint of each epoch, and stay.

It ends with its node, with 0; with 1 where there is no metadata service, or no cluster that lets it in.
"""

import argparse
import json
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import ray
from ray.core.generated.autoscaler_pb2 import DrainNodeReason
from ray.util import get_node_ip_address

from sn7.errors import ClusterUnavailable, Sn7Error
from sweep.gcs import open_gcs
from sweep.notice import Notice

__all__ = ["Metadata", "drain", "main", "own_node", "watch"]

METADATA = os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT") or "http://169.254.169.254"
"""As AWS's own tools find it."""
TOKEN_S = 21_600
"""Seconds that a token of the metadata service is good for: the most that it gives."""
ALIVE_EVERY_S = 60.0
"""Between two looks at whether the node is still one of the cluster."""
DRAIN_S = 5.0
"""How long the head may take to answer that a node is taken away, before it is told again."""
PATIENCE_S = 600.0
"""How long the cluster's head may be out of reach before the watcher gives up."""


class Metadata:
    """EC2's instance metadata service at a URL, by IMDSv2."""

    def __init__(self, url: str = METADATA, timeout: float = 2.0) -> None:
        self.url, self.timeout, self.token = url.rstrip("/"), timeout, ""
        # Never through a proxy: the address means another thing there.
        self.opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def get(self, path: str) -> str | None:
        """Return what `/latest/meta-data/<path>` holds, None where there is no such thing. Raises OSError."""
        for fresh in (False, True):
            if fresh or not self.token:
                self.token = self._ask("/latest/api/token", "PUT", {"ttl-seconds": str(TOKEN_S)})
            try:
                return self._ask(f"/latest/meta-data/{path}", "GET", {"": self.token})
            except urllib.error.HTTPError as error:
                if error.code == 404:
                    return None
                if error.code != 401 or fresh:  # else the token has expired
                    raise
        raise AssertionError("not reached")

    def _ask(self, path: str, method: str, headers: dict[str, str]) -> str:
        named = {f"X-aws-ec2-metadata-token{'-' if name else ''}{name}": value for name, value in headers.items()}
        request = urllib.request.Request(self.url + path, method=method, headers=named)
        with self.opener.open(request, timeout=self.timeout) as answer:
            return str(answer.read().decode())


def own_node(gcs: Any, ip: str) -> str:
    """Return Ray's identity of the node at an address. Raises ClusterUnavailable where no node lives there."""
    nodes = gcs.get_all_node_info(timeout=30).values()
    found = [info.node_id.hex() for info in nodes if info.node_manager_address == ip and info.state == 0]
    if not found:
        alive = sorted(info.node_manager_address for info in nodes if info.state == 0)
        raise ClusterUnavailable(
            f"no node of the cluster lives at {ip} (there are {', '.join(alive) or 'none'}); run `ray start` first, or "
            "give --node-ip."
        )
    return str(found[-1])


def drain(gcs: Any, node: str, why: str, deadline: float) -> bool:
    """Tell Ray that a node is taken away at `deadline`, in seconds since 1970; return whether it has answered."""
    reason, answered = DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION"), True
    try:
        accepted, refusal = gcs.drain_node(node, reason, why, int(deadline * 1000), timeout=DRAIN_S)
    except (RuntimeError, ray.exceptions.RayError, OSError) as error:
        accepted, answered = False, False
        refusal = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    if accepted:
        print(f"{why}: node {node[:12]} is drained; its trials checkpoint and go elsewhere", flush=True)
    else:
        print(f"warning: Ray does not drain node {node[:12]} ({refusal}); its trials are told all the same", flush=True)
    return answered


def watch(metadata: Metadata, gcs: Any, node: str, every: float) -> int:
    """Ask every so many seconds until the node is taken away, or gone; return the exit status."""
    notice, seen = Notice(node), time.monotonic()
    looked, recommended = seen, False
    while True:
        try:
            action = metadata.get("spot/instance-action")
            if action:
                # First, or Ray starts the next trial here as soon as one leaves; it has DRAIN_S to answer, no more.
                answered = drain(gcs, node, f"spot: {action}", _time(action))
                notice.give("taken")
                if answered:
                    return 0
            elif not recommended and metadata.get("events/recommendations/rebalance"):
                recommended = True
                notice.give("rebalance")
                print(f"rebalance recommended: trials of node {node[:12]} checkpoint each epoch", flush=True)
        except OSError as error:
            print(f"warning: the metadata service does not answer ({error}); asked again", file=sys.stderr, flush=True)
        time.sleep(every)
        if time.monotonic() - looked > ALIVE_EVERY_S:
            looked = time.monotonic()
            alive = _alive(gcs, node)
            if alive is False or looked - seen > PATIENCE_S:
                print(f"node {node[:12]} is {'no more' if alive is False else 'out of reach'}: nothing to watch")
                return 0
            seen = looked if alive else seen


def _alive(gcs: Any, node: str) -> bool | None:
    """Return whether the node is one of the cluster; None where nobody can tell."""
    try:
        nodes = gcs.get_all_node_info(timeout=10).values()
    except (RuntimeError, ray.exceptions.RayError):
        return None
    return any(info.node_id.hex() == node and info.state == 0 for info in nodes)


def _time(action: str) -> float:
    """Return when, in seconds since 1970; in two minutes where that cannot be read."""
    try:
        return datetime.fromisoformat(json.loads(action)["time"]).timestamp()
    except (ValueError, KeyError, TypeError):
        return time.time() + 120


def main(arguments: Sequence[str] | None = None) -> int:
    """Watch; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m sweep.spot", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--address", required=True, metavar="HOST:PORT", help="of the cluster's head")
    parser.add_argument("--node-ip", help="this node's address, as `ray start` has it (default: as Ray finds it)")
    parser.add_argument("--metadata", default=METADATA, help="URL of the metadata service (default: %(default)s)")
    parser.add_argument("--every", type=float, default=5.0, help="seconds between two questions (default: %(default)g)")
    options = parser.parse_args(arguments)
    metadata = Metadata(options.metadata)
    try:
        try:
            machine = metadata.get("instance-id")
        except OSError as error:
            raise ClusterUnavailable(
                f"no metadata service of EC2 at {options.metadata} ({error}); only a machine on EC2 needs a watcher."
            ) from error
        gcs = open_gcs(options.address)
        node = own_node(gcs, options.node_ip or get_node_ip_address())
        print(f"watching {options.metadata} for {machine or 'this machine'}, node {node[:12]}", flush=True)
        return watch(metadata, gcs, node, options.every)
    except Sn7Error as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
