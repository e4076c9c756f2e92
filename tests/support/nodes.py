"""A Ray cluster of several hosts on one machine, on loopback addresses, whose nodes can be killed one by one."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

RAY = [sys.executable, "-m", "ray.scripts.scripts", "start"]
HEAD = "127.0.0.2"
ALONE = {"RAY_memory_monitor_refresh_ms": "0"}
"""Ray else kills trials for the memory that others take of this machine."""
NO_DASHBOARD = ("--include-dashboard=false",)

DRAIN = """
import sys, time
import ray
from ray._raylet import GcsClient
from ray.core.generated.autoscaler_pb2 import DrainNodeReason
address, host = sys.argv[1:]
ray.init(address=address, log_to_driver=False, logging_level="ERROR")
(node,) = (node["NodeID"] for node in ray.nodes() if node["Alive"] and node["NodeManagerAddress"] == host)
reason = DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
deadline = int((time.time() + 5) * 1000)
accepted, refusal = GcsClient(address=address).drain_node(node, reason, "a test", deadline)
sys.exit(0 if accepted else refusal)
"""
"""What a watcher of spot notices does; in a process of its own, since a test is no part of the cluster."""


class Nodes:
    """A head without CPUs, and worker nodes of one CPU each; use as a context manager.

    `log` names the logs: one beside it for each start of a node. `head` is the head's address, `options` are further
    ones of its `ray start`, and `variables` are in the environment of all nodes.
    """

    def __init__(self, log: Path, head: str = HEAD, options: Sequence[str] = NO_DASHBOARD, **variables: str) -> None:
        self.options = options
        self.log, self.head, self.port = log, head, _free_port(head)
        token = os.urandom(32).hex()
        self.environment = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token, **ALONE, **variables}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.folder = tempfile.TemporaryDirectory(prefix="sn7-", ignore_cleanup_errors=True)

    @property
    def address(self) -> str:
        """The cluster's address."""
        return f"{self.head}:{self.port}"

    def __enter__(self) -> "Nodes":
        try:
            self._start(self.head, [], "--head", f"--port={self.port}", "--num-cpus=0", *self.options)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        for host in list(self.processes):
            self.kill(host)
        self.folder.cleanup()

    def add(
        self, host: str, *options: str, within: Sequence[str] = (), cpus: int = 1, gpus: int = 0, **variables: str
    ) -> None:
        """Start a worker node on an address, with environment variables of its own.

        `options` are further ones of `ray start`, and `within` is the command that runs it, as in another namespace.
        """
        has = [f"--num-cpus={cpus}", f"--num-gpus={gpus}"]
        self._start(host, within, f"--address={self.address}", *has, *options, **variables)

    def _start(self, host: str, within: Sequence[str], *options: str, **variables: str) -> None:
        """Start a node and wait until it has joined; one that gives up on a busy machine is started again.

        Each has a folder of its own, as each machine has: in a shared one a node that unpacks the code that Ray ships
        takes it from under the trials of the others, and two that start at once choose the same sockets.
        """
        own = [f"--node-ip-address={host}", f"--temp-dir={self.folder.name}/{host}"]
        command = [*within, *RAY, *options, *own, "--block", "--disable-usage-stats"]
        for _ in range(6):
            path = self.log.with_name(f"{self.log.stem}-{host}-{time.monotonic_ns()}.log")
            with path.open("wb") as log:
                process = subprocess.Popen(
                    [*command, "--object-store-memory=100000000"],
                    stdout=log,
                    stderr=log,
                    env={**self.environment, **variables},
                )
            self.processes[host] = process
            while process.poll() is None:
                if "Ray runtime started" in path.read_text(errors="replace"):
                    return
                time.sleep(0.2)
        raise AssertionError(path.read_text(errors="replace")[-2000:])

    def kill(self, host: str) -> None:
        """Kill a node with all that runs on it, as a machine that loses its power."""
        process = self.processes.pop(host)
        for victim in [*_below(process.pid), process.pid]:
            kill(victim)
        process.wait()

    def drain(self, host: str) -> None:
        """Tell Ray that a machine will be taken away, as one does that watches for spot notices."""
        command = [sys.executable, "-c", DRAIN, self.address, host]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr

    def listening(self) -> dict[int, str]:
        """Return the TCP ports that the cluster's processes listen on, and which process does."""
        found = {}
        for pid in (pid for process in self.processes.values() for pid in _below(process.pid)):
            try:
                process = psutil.Process(pid)
                for connection in process.net_connections("tcp"):
                    if connection.status == psutil.CONN_LISTEN:
                        found[connection.laddr.port] = " ".join(process.cmdline())[:200]
            except psutil.Error:  # it has just ended
                continue
        return found

    def workers(self) -> list[int]:
        """Return the processes that train a trial now."""
        found = [pid for process in self.processes.values() for pid in _below(process.pid)]
        return [pid for pid in found if "train" in _title(pid)]


def _below(pid: int) -> list[int]:
    """Return the processes that a process has started, and they."""
    try:
        return [child.pid for child in psutil.Process(pid).children(recursive=True)]
    except psutil.Error:  # it has just ended
        return []


def _title(pid: int) -> str:
    """Return what a Ray worker says that it does, such as ray::ImplicitFunc.train; nothing of other processes."""
    try:
        title = psutil.Process(pid).cmdline()[:1]
    except psutil.Error:
        return ""
    return title[0] if title and title[0].startswith("ray::") else ""


def kill(pid: int) -> None:
    """Kill a process that may have gone already."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _free_port(host: str) -> int:
    """Return a free port outside of the range that Ray gives its workers."""
    for port in range(20_000 + os.getpid() % 1000, 32_000):
        with socket.socket() as candidate:
            try:
                candidate.bind((host, port))
            except OSError:
                continue
            return port
    raise AssertionError("no free port from 20000 to 32000")
