"""The road from 1 to 100 nodes: what the driver and the shared file system are asked for, and which is short first.

    .venv/bin/python benchmarks/road.py [--epoch-s 27] [--epochs 40] [--per-node 2] [--json]      some two minutes

Trials are simulated: the study's book, Optuna's database, the journal and the delivery to an MLflow store are real, and
are told what Tune would tell them, as fast as they take it. What they cost, in seconds of a processor, is then
multiplied by the rate at which real trials would report. Tune's own loop is in `benchmarks/sweep.py load`.
"""

import argparse
import importlib
import io
import json
import sys
import tempfile
import time
import warnings
from contextlib import redirect_stderr
from pathlib import Path

if __name__ == "__main__":
    # This folder holds a sweep.py; the package of that name is the one that is wanted.
    here = str(Path(__file__).parent)
    sys.path.remove(here)
    importlib.import_module("sweep")
    sys.path.append(here)

from sn7.folds import Split
from sn7.history import EpochMetrics
from sweep.board import Board
from sweep.book import Book
from sweep.budget import Budget
from sweep.records import default_tracking_uri, open_records
from sweep.search import open_optuna
from sweep.study import Resources, Study
from sweep.trial import Job, Objective
from sweep.usage import Place
from sweep.versions import versions

NODES = (1, 10, 100)
REPORTS = 6
"""Of each simulated trial; fewer than real ones, since the costs of a report and of a trial are told apart."""
PARAMETERS = 41_240_400
"""Of the notebook's network (FACTS.md): what is written of a trial goes by it."""
MODEL_MB = PARAMETERS * 4 / 1e6
CHECKPOINT_MB = 3 * MODEL_MB
"""Weights and Adam's two moments; one more time the weights where the best epoch was an earlier one."""
HEADS = ("nodes", "reports/s", "a report", "delivered", "a trial", "a core", "models", "checkpoints")
WIDTHS = (6, 11, 10, 11, 10, 12, 11, 12)
SEARCH = {"lr_max": {"loguniform": [1e-4, 1e-2]}, "building_weight": {"uniform": [0.5, 0.9]}}


class Road:
    """A study of simulated trials on so many nodes, and what it took, in seconds of a processor."""

    def __init__(self, folder: Path, nodes: int, per_node: int) -> None:
        self.nodes, self.at_once = nodes, nodes * per_node
        train = {"encoder": "xresnet18", "epochs": REPORTS}
        study = Study(f"road-{nodes}", trials=2 * self.at_once, resources=Resources(cpu=1), train=train, search=SEARCH)
        results = folder / study.name
        opened = open_optuna(study, results)
        self.records = open_records(default_tracking_uri(folder), folder, results, study.name, study.name, False)
        job = Job(results, folder / "prepared", study.base, (Split("random:0", ("one",), ("other",)),))
        there = [{"NodeID": f"n{i}", "Alive": True, "Resources": {"CPU": float(per_node)}} for i in range(nodes)]
        board = Board(study.trials, study.trials * REPORTS)
        self.book = Book(
            study, job, opened, [], self.records, board, Budget(study, opened, 0), {"commit": "c"}, nodes=lambda: there
        )

    def run(self) -> tuple[float, float, float]:
        """Return what a trial costs beside its reports, what a report costs, and what delivering either adds."""
        starts = reports = 0.0
        began = time.process_time()
        attempts = 0
        while not self.book.done:
            now = time.thread_time()
            names = []
            while (values := self.book.next(f"a{attempts}")) is not None:
                names.append(f"a{attempts}")
                attempts += 1
                self.book.started(names[-1])
                place = Place(f"n{values['trial'] % self.nodes}", "host", "default", "x86_64", versions())
                self.book.result(names[-1], {"step": 0, "place": place, "past": ()})
            starts += time.thread_time() - now
            now = time.thread_time()
            self._train(names)
            reports += time.thread_time() - now
            now = time.thread_time()
            for name in names:
                self.book.ended(name)
            starts += time.thread_time() - now
        self.records.close("COMPLETE")
        delivery = time.process_time() - began - starts - reports
        return starts / attempts, reports / attempts / REPORTS, delivery / attempts / REPORTS

    def _train(self, names: list[str]) -> None:
        """Report epoch after epoch of trials that go side by side; none is behind, so none is pruned."""
        objectives = {name: Objective() for name in names}
        for epoch in range(1, REPORTS + 1):
            for name, objective in objectives.items():
                dice = epoch / (REPORTS + 1)
                metrics = EpochMetrics(epoch, 1.0, 1.0, dice, dice / 2, dice, dice, 1e-3, 50.0, 2.0, 100.0, 4)
                objective.add(0, metrics)
                about = {"split": 0, "epoch": metrics, "system": (("cpu", 100.0), ("memory", 1.0)), "kept": False}
                self.book.result(name, {**objective.result(), **about})


def main() -> None:
    """Print the tables, and the driver's shares as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epoch-s", type=float, default=27.0, help="seconds of an epoch (default: the notebook's, 27)")
    parser.add_argument("--epochs", type=int, default=40, help="of a trial (default: %(default)s)")
    parser.add_argument("--per-node", type=int, default=2, help="trials at once on a node (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="the driver's shares of a core as JSON, in the last line")
    options = parser.parse_args()
    print(f"{options.per_node} trials a node, {options.epochs} epochs of {options.epoch_s:g} s each\n")
    print(f"{'':>6}{'':>9}{'milliseconds of a processor':>33}{'driver, of':>12}{'written, MB/s':>23}")
    heads = zip(HEADS, WIDTHS, strict=True)
    print("".join(f"{head:>{width}}" for head, width in heads))
    shares = {}
    for nodes in NODES:
        # Without the board's lines.
        with tempfile.TemporaryDirectory(prefix="sn7-road-") as folder, redirect_stderr(io.StringIO()):
            trial, report, delivery = Road(Path(folder), nodes, options.per_node).run()
        rate = nodes * options.per_node / options.epoch_s
        share = rate * (report + delivery) + rate / options.epochs * trial
        # Half of the epochs are a new best one; checkpoints as often as a twentieth of the time at 1 GB/s allows.
        checkpoints = min(1.0, options.epoch_s / (20 * CHECKPOINT_MB / 1000))
        shares[f"driver_cores_{nodes}_nodes"] = round(share, 4)
        print(
            f"{nodes:>6}{rate:>11.2f}{1000 * report:>10.1f}{1000 * delivery:>11.1f}{1000 * trial:>10.1f}{share:>12.3f}"
            f"{rate * MODEL_MB / 2:>11.0f}{rate * CHECKPOINT_MB * checkpoints:>12.0f}",
            flush=True,
        )
    if options.json:
        print(json.dumps(shares))


if __name__ == "__main__":
    warnings.filterwarnings("ignore", category=FutureWarning)
    main()
