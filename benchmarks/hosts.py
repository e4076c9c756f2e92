"""Studies of trials that sleep, on several hosts of this machine's loopback: scaling, joining, and the driver's load.

A host is a Ray node of one CPU on an address of its own. Whatever it starts it starts on this machine's cores, so a
machine with as many cores as hosts measures best; what a trial takes to start is in the numbers, as it is in a study.
"""

import os
import secrets
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

sys.path.append(str(Path(__file__).parents[1] / "tests" / "support"))
from nodes import Nodes
from runs import Bench

from sweep.cluster import start_ray, stop_ray
from sweep.records import default_tracking_uri
from sweep.study import Resources

__all__ = ["joining", "load", "scaling"]

HOSTS = [f"127.0.1.{number}" for number in range(51, 60)]
HEAD = "127.0.1.50"
WAVES = 2
"""Trials that each host trains, one after the other."""
REPORTS_S = 100
"""What 100 trials send that report every second."""
LOADS = (4, 8, 16, 32)
"""Trials that send them together: 100 processes of a worker would want 40 GB."""


@dataclass(frozen=True)
class HostBench(Bench):
    """Runs studies on hosts of one CPU."""

    hosts: int = 1

    @property
    def resources(self) -> Resources:
        """What a trial asks for."""
        return Resources(cpu=1)

    @property
    def at_once(self) -> int:
        """How many trials run at once."""
        return self.hosts


@contextmanager
def _cluster(folder: Path, hosts: int, cpus: int = 1) -> Iterator[Nodes]:
    """Run a head and hosts, and connect this process to them."""
    folder.mkdir(parents=True, exist_ok=True)
    ours = os.pathsep.join(map(str, (Path(__file__).parents[1], Path(__file__).parent)))
    # One for all clusters: a process reads its token once.
    token = os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    with Nodes(folder / "nodes.log", HEAD, PYTHONPATH=ours, RAY_AUTH_TOKEN=token) as nodes:
        for host in HOSTS[:hosts]:
            nodes.add(host, cpus=cpus)
        before = dict(os.environ)
        os.environ.update(nodes.environment)
        start_ray(nodes.address)
        try:
            yield nodes
        finally:
            stop_ray()
            os.environ.clear()
            os.environ.update(before, RAY_AUTH_TOKEN=token)


def scaling(folder: Path, epochs: int, epoch_s: float, counts: tuple[int, ...] = (2, 4, 8)) -> dict[str, float]:
    """Print how near to ideal trials that sleep come on so many hosts: no time lost between them, nor at the start."""
    print(f"\n{WAVES} trials a host of {epochs} × {epoch_s:g} s, {os.cpu_count()} cores")
    print(f"{'hosts':>6}{'wall s':>9}{'ideal s':>9}{'of ideal':>10}{'driver CPU s':>14}{'load':>7}")
    shares = {}
    for hosts in counts:
        with _cluster(folder / str(hosts), hosts):
            bench = HostBench(folder / str(hosts), hosts)
            run = bench.study(WAVES * hosts, bench.fit(epochs, epoch_s))
        ideal = WAVES * epochs * epoch_s
        shares[hosts] = ideal / run.wall
        print(
            f"{hosts:>6}{run.wall:>9.1f}{ideal:>9.1f}{shares[hosts]:>10.3f}{run.cpu:>14.1f}{os.getloadavg()[0]:>7.1f}",
            flush=True,
        )
    return {f"scaling_{hosts}_hosts": round(share, 3) for hosts, share in shares.items()}


def joining(folder: Path) -> dict[str, float]:
    """Print how long after it has joined a node trains, while trials wait; its prepared data is there."""
    with _cluster(folder, 1) as nodes:
        bench = HostBench(folder, 1)
        fit = bench.fit(30, 1.0)
        joined: list[float] = []

        def join() -> None:
            while not list(fit.times.glob("began-*")):
                time.sleep(0.2)
            time.sleep(5)  # the study is under way
            nodes.add(HOSTS[1])
            joined.append(time.time())

        thread = threading.Thread(target=join, daemon=True)  # else it would keep a process whose study has failed
        thread.start()
        bench.study(4, fit)
        thread.join()
    began = sorted(float(path.read_text()) for path in fit.times.glob("began-*"))
    waited = min(moment for moment in began if moment > joined[0]) - joined[0]
    print(f"\na node that joins trains after {waited:.1f} s (load {os.getloadavg()[0]:.1f})")
    return {"joining_s": round(waited, 1)}


def load(folder: Path, seconds: float = 30.0) -> dict[str, float]:
    """Print what the driver takes of a core while 100 reports a second come in, from fewer trials or more.

    It is what a report takes of a processor, in all threads of the driver, from when all trials train until the first
    ends, times 100: a driver that falls behind spreads the same work out.
    """
    print(f"\n{REPORTS_S} reports a second for {seconds:g} s; records go to SQLite")
    heads = ("reports/s each", 16), ("wall s", 9), ("reports", 9), ("ms/report", 11), ("of a core", 11), ("in loop", 9)
    print(f"{'trials':>7}" + "".join(f"{head:>{width}}" for head, width in heads))
    shares = []
    for trials in LOADS:
        rate = REPORTS_S / trials
        with _cluster(folder / f"load-{trials}", 1, cpus=trials):
            bench = HostBench(folder / f"load-{trials}", trials)
            uri = default_tracking_uri(bench.folder)
            run = bench.study(trials, bench.fit(round(seconds * rate), 1 / rate, trials), uri)
        each = (run.steady[-1] - run.steady[0]) / (len(run.steady) - 1)
        shares.append(each * REPORTS_S)
        print(
            f"{trials:>7}{rate:>16.2f}{run.wall:>9.1f}{len(run.steady):>9}{1000 * each:>11.2f}{shares[-1]:>11.2f}"
            f"{1000 * fmean(run.loop['result']):>9.2f}",
            flush=True,
        )
    return {"driver_cores_100_reports": round(max(shares), 2)}
