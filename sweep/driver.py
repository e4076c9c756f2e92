"""The stages of a study, one after the other: resolve, prepare, plan, search, finish."""

import argparse
import sys
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna

from sn7.errors import DataMissing, ResultsConflict
from sn7.files import read_json
from sn7.prepare import prepare
from sn7.prepared import Prepared
from sweep.board import Board
from sweep.cluster import start_ray, stop_ray
from sweep.leaderboard import leaderboard, write_leaderboard
from sweep.outcome import SUMMARY, finish
from sweep.plan import Plan, describe, make_plan
from sweep.provenance import provenance
from sweep.records import Records, default_tracking_uri
from sweep.search import STATES, end_interrupted, ended_trials, open_optuna
from sweep.study import Study, check_same_study, check_study, load_study, save_study
from sweep.summary import closing
from sweep.trial import Job
from sweep.trials import run_trials, slots

__all__ = ["run_study"]


def run_study(options: argparse.Namespace) -> int:
    """Run the study of the command line (see sweep/run.py) to its end; return 0, or 130 after Ctrl-C.

    Raises an Sn7Error for bad input. Every stage finds what an earlier start has finished.
    """
    study = _resolve(options)
    results = options.results.resolve() / study.name
    data = Path(study.data)
    if not options.dry_run and _already_there(results, study, options.resume):
        _print_summary(results, study, options)
        return 0
    prepared = _prepare(data, options.results.resolve())
    plan = make_plan(study, prepared)
    if options.dry_run:
        print(describe(plan))
        return 0
    start_ray(options.address)
    try:
        slots(study)  # raises where no trial would ever start, before anything is written
        done = _run(plan, results, data, options)
    finally:
        stop_ray()
    if not done:
        return 130
    _print_summary(results, study, options)
    return 0


def _run(plan: Plan, results: Path, data: Path, options: argparse.Namespace) -> bool:
    """Search and finish; return False after Ctrl-C."""
    study, prepared = plan.study, plan.prepared
    if (results / "study.toml").exists():
        _check_same_data(open_optuna(study, results), prepared, results)
    save_study(study, results / "study.toml")
    opened = open_optuna(study, results)
    opened.set_user_attr("data_fingerprint", prepared.fingerprint)
    uri = options.tracking_uri or default_tracking_uri(options.results)
    records = Records(uri, options.results, study.name, _identity(opened))
    records.describe(provenance(study, prepared))
    interrupted = _end_interrupted(opened, records)
    if interrupted:
        print(f"{interrupted} interrupted trials start again", file=sys.stderr)
    if not _search(plan, opened, results, records):
        return False
    finish(plan, opened, results, data, records)
    return True


def _resolve(options: argparse.Namespace) -> Study:
    """Return the study file's study with the command line's values in place of its own."""
    study = load_study(options.study)
    changes: dict[str, Any] = {
        name: value
        for name, value in (("trials", options.trials), ("max_hours", options.max_hours))
        if value is not None
    }
    if "trials" in changes:
        changes["refit"] = min(study.refit, max(1, options.trials))
    data = str(options.data) if options.data else study.data
    if not data:
        raise DataMissing(f"{options.study} names no data set; give --data DIR, or folder below [data].")
    return check_study(replace(study, data=data, **changes))


def _already_there(results: Path, study: Study, resume: bool) -> bool:
    """Return whether the study is complete; raise ResultsConflict where going on was not asked for, or is wrong."""
    if not (results / "study.toml").exists():
        if results.exists() and any(results.iterdir()):
            raise ResultsConflict(f"{results} exists and holds no study; remove it, or give another --results folder.")
        return False
    check_same_study(results, study)
    if (results / SUMMARY).exists() and read_json(results / SUMMARY)["trials"] >= study.trials:
        return True
    if not resume:
        raise ResultsConflict(f"{results} holds this study, unfinished; go on with --resume, or remove the folder.")
    return False


def _prepare(data: Path, results: Path) -> Prepared:
    """Prepare the data set below results/prepared, or reuse what is there, and say what was left out."""
    if not data.is_dir():
        hint = "make the sample with `sn7 sample data/sample`" if data == Path("data/sample") else "give --data DIR"
        raise DataMissing(f"{data} is no folder; wanted a data set in the SpaceNet 7 layout: {hint}.")
    name = f"{data.resolve().name}-{uuid.uuid5(uuid.NAMESPACE_URL, str(data.resolve())).hex[:8]}"
    done = prepare(data, results / "prepared" / name)
    labelled = len(done.prepared.images) - done.unlabelled
    print(
        f"prepared {labelled} labelled images of {len(done.prepared.scenes)} scenes ({done.written} new, {done.reused} "
        f"reused; {done.unlabelled} unlabelled images left out)",
        file=sys.stderr,
    )
    return done.prepared


def _check_same_data(opened: optuna.Study, prepared: Prepared, results: Path) -> None:
    before = opened.user_attrs.get("data_fingerprint", prepared.fingerprint)
    if before != prepared.fingerprint:
        raise ResultsConflict(
            f"{results} was made with other data (fingerprint {before[:12]}, now {prepared.fingerprint[:12]}); "
            "give that data set, or another --results folder."
        )


def _identity(opened: optuna.Study) -> str:
    if "identity" not in opened.user_attrs:
        opened.set_user_attr("identity", uuid.uuid4().hex)
    return str(opened.user_attrs["identity"])


def _end_interrupted(opened: optuna.Study, records: Records) -> int:
    """End the trials that were cut off, here and in MLflow, and return how many there were."""
    numbers = end_interrupted(opened)
    for number in numbers:
        records.interrupt(number)
    return len(numbers)


def _search(plan: Plan, opened: optuna.Study, results: Path, records: Records) -> bool:
    """Run the missing trials; return False after Ctrl-C."""
    study = plan.study
    job = Job(results, plan.prepared.folder, study.base, plan.validation)
    board = Board(study.trials, plan.trial_epochs + plan.fold_epochs)
    for trial in ended_trials(opened):
        board.catch_up(trial.number, STATES[trial.state], trial.user_attrs.get("dice"), job.steps)
    run_trials(study, job, opened, records, board)
    board.close()
    write_leaderboard(leaderboard(opened), results / "leaderboard.csv")
    stopped = _end_interrupted(opened, records)
    if stopped:
        print(f"interrupted with {stopped} trials running; go on with --resume", file=sys.stderr)
    return not stopped


def _print_summary(results: Path, study: Study, options: argparse.Namespace) -> None:
    ui = f"make ui RESULTS={options.results}" if options.results != Path("results") else "make ui"
    rows = leaderboard(open_optuna(study, results))
    print(closing(read_json(results / SUMMARY), rows, results, options.tracking_uri or ui))
