"""The tables of benchmarks/sweep.py, which is what to run."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import fmean, median, quantiles

from hosts import joining, load, scaling
from runs import Bench, mlflow_server

from sweep.cluster import start_ray, stop_ray
from sweep.records import default_tracking_uri

__all__ = ["main"]

PARTS = ("search", "overhead", "report", "scaling", "joining", "load")
SCALING_EPOCHS = 15
"""Of a trial whose scaling is measured: two minutes, where real ones take some twenty."""
EPOCHS, EPOCH_S = 5, 0.2
"""Of a trial whose overhead is measured."""
REPORTS, REPORT_TRIALS, STOCK_REPORTS, STOCK_TRIALS = 20, 6, 5, 2
"""Epochs of a trial whose reports are measured, and trials; fewer where each takes about a second."""


def main(description: str | None) -> None:
    """Print the tables, and the ratios."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=PARTS, metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--rounds", type=int, default=3, help="of study and bare Tuner (default: %(default)s)")
    parser.add_argument("--trials", type=int, default=8, help="of each in a round (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="the ratios as JSON, in the last line")
    parser.add_argument("--epoch-s", type=float, default=8.0, help="of an epoch in scaling (default: %(default)g)")
    options = parser.parse_args()
    if wrong := set(options.parts) - set(PARTS):
        parser.error(f"{', '.join(wrong)}: wanted {', '.join(PARTS)}")
    ratios: dict[str, float] = {}
    if "search" in options.parts:
        ratios |= search()
    if {"overhead", "report"} & set(options.parts):
        start_ray(None)
        try:
            with tempfile.TemporaryDirectory(prefix="sn7-bench-") as folder:
                bench = Bench(Path(folder))
                if "overhead" in options.parts:
                    ratios |= overhead(bench, options.rounds, options.trials)
                if "report" in options.parts:
                    ratios |= report(bench)
        finally:
            stop_ray()
    with tempfile.TemporaryDirectory(prefix="sn7-bench-") as folder:
        if "scaling" in options.parts:
            ratios |= scaling(Path(folder), SCALING_EPOCHS, options.epoch_s)
        if "joining" in options.parts:
            ratios |= joining(Path(folder, "joining"))
        if "load" in options.parts:
            ratios |= load(Path(folder, "load"))
    if options.json:
        print(json.dumps(ratios))


def search() -> dict[str, float]:
    """Run benchmarks/search.py and pass its table on."""
    command = [sys.executable, str(Path(__file__).with_name("search.py")), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.returncode)  # it has said why
    *table, last = done.stdout.splitlines()
    print(*table, sep="\n", flush=True)
    found = json.loads(last)
    return {name: found[name] for name in ("epochs_vs_grid", "epochs_vs_random")}


def overhead(bench: Bench, rounds: int, trials: int) -> dict[str, float]:
    """Print what a trial costs in a study and under a bare Tuner, and where the study's event loop spends it."""
    store = default_tracking_uri(bench.folder)
    bench.study(1, bench.fit(1, 0.0), store)  # makes the store's schema, and starts Ray's first workers
    bench.bare(1, bench.fit(1, 0.0))
    ours, bare = [], []
    for number in range(1, rounds + 1):
        ours.append(bench.study(trials, bench.fit(EPOCHS, EPOCH_S), store))
        bare.append(bench.bare(trials, bench.fit(EPOCHS, EPOCH_S)))
        print(f"round {number}: study {ours[-1].wall:.1f} s, bare {bare[-1].wall:.1f} s", file=sys.stderr)
    difference = median(run.beyond for run in ours) - median(run.beyond for run in bare)
    load = os.getloadavg()[0]
    print(f"\n{rounds} rounds of {trials} trials of {EPOCHS} × {EPOCH_S} s, {bench.at_once} at once, load {load:.1f}")
    print(f"{'wall seconds a trial beyond its sleeping':40}{'median':>8}{'lowest':>8}{'highest':>9}{'driver CPU':>12}")
    for name, runs in (("study, with MLflow's records", ours), ("bare Tuner", bare)):
        beyond, cpu = [run.beyond for run in runs], median(run.cpu for run in runs) / trials
        print(f"{name:40}{median(beyond):>8.2f}{min(beyond):>8.2f}{max(beyond):>9.2f}{cpu:>12.2f}")
    print(f"{'difference of the medians':40}{difference:>8.2f}")
    print(f"\n{'in the event loop of the study':40}{'calls':>8}{'mean ms':>9}{'s a trial':>11}")
    for name in ours[0].loop:
        calls = [seconds for run in ours for seconds in run.loop[name]]
        print(f"  {name:38}{len(calls):>8}{1000 * fmean(calls):>9.1f}{sum(calls) / rounds / trials:>11.3f}")
    return {"overhead_s_per_trial": round(difference, 3)}


def report(bench: Bench) -> dict[str, float]:
    """Print what a report costs, with records and without, and with Ray's own MLflow callback."""
    with mlflow_server(bench.folder / "server") as uri:
        runs = {
            "bare Tuner": bench.bare(REPORT_TRIALS, bench.fit(REPORTS, EPOCH_S)),
            "study, without records": bench.study(REPORT_TRIALS, bench.fit(REPORTS, EPOCH_S)),
            "study, MLflow server": bench.study(REPORT_TRIALS, bench.fit(REPORTS, EPOCH_S), uri),
            "Ray's MLflowLoggerCallback": bench.bare(STOCK_TRIALS, bench.fit(STOCK_REPORTS, EPOCH_S), uri),
        }
    print(f"\nmilliseconds a report of an epoch, load {os.getloadavg()[0]:.1f}")
    places = ("loop: mean", "trial: mean")
    print(f"{'':32}{'reports':>8}" + "".join(f"{place:>14}{'median':>8}{'95 %':>8}" for place in places))
    for name, run in runs.items():
        print(f"{name:32}{len(run.reports):>8}{_cells(run.loop['result'])}{_cells(run.reports)}")
    return {"report_ms": round(1000 * fmean(runs["study, MLflow server"].loop["result"]), 2)}


def _cells(seconds: list[float]) -> str:
    if not seconds:
        return f"{'–':>14}{'–':>8}{'–':>8}"
    return f"{1000 * fmean(seconds):>14.1f}{1000 * median(seconds):>8.1f}{1000 * quantiles(seconds, n=20)[-1]:>8.1f}"
