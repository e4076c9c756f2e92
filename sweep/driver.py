"""The stages of a study, one after the other: resolve, prepare, plan, search, finish."""

import argparse
import sys
import uuid
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import optuna
from mlflow.exceptions import MlflowException

from sn7.errors import ClusterUnavailable, DataMissing, ResultsConflict
from sn7.files import lock, read_json
from sn7.prepare import prepare
from sn7.prepared import Prepared
from sweep.board import Board
from sweep.cluster import start_ray, stop_ray
from sweep.leaderboard import leaderboard, write_leaderboard
from sweep.outcome import SUMMARY, finish
from sweep.plan import Plan, describe, leak_warnings, make_plan
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
    complete = _is_complete(results, study, options.resume or options.dry_run)
    if complete and not options.dry_run:
        _print_summary(results, study, options)
        return 0
    prepared = _prepare(Path(study.data), options.results.resolve())
    plan = make_plan(study, prepared)
    if options.dry_run:
        print(describe(plan))
        return 0
    for warning in leak_warnings(plan):
        print(warning, file=sys.stderr)
    with lock(results / ".lock"):
        start_ray(options.address)
        try:
            slots(study)  # raises where no trial would ever start, before anything is written
            done = _run(plan, results, options)
        finally:
            stop_ray()
    if not done:
        return 130
    _print_summary(results, study, options)
    return 0


def _run(plan: Plan, results: Path, options: argparse.Namespace) -> bool:
    """Search and finish; return False after Ctrl-C."""
    study, prepared = plan.study, plan.prepared
    known = open_optuna(study, results).user_attrs if (results / "optuna.db").exists() else {}
    _check_same_data(known, prepared, results)
    identity = known.get("identity", uuid.uuid4().hex)
    records = _open_records(options, study, identity)
    save_study(study, results / "study.toml")
    opened = open_optuna(study, results)
    opened.set_user_attr("identity", identity)
    opened.set_user_attr("data_fingerprint", prepared.fingerprint)
    state = "FAILED"
    try:
        records.describe(provenance(study, prepared))
        interrupted = _end_interrupted(opened, records)
        if interrupted:
            print(f"{interrupted} interrupted trials start again", file=sys.stderr)
        if not _search(plan, opened, results, records):
            state = "INTERRUPTED"
            return False
        summary = finish(plan, opened, results, Path(study.data), records)
        state = "COMPLETE"
        records.measure({f"out_of_fold_{k}": v for k, v in summary["ensemble"]["out_of_fold"].items()})
        return True
    except KeyboardInterrupt:
        state = "INTERRUPTED"
        raise
    finally:
        records.close(state)


def _open_records(options: argparse.Namespace, study: Study, identity: str) -> Records:
    uri = options.tracking_uri or default_tracking_uri(options.results)
    try:
        return Records(uri, options.results, study.name, identity)
    except MlflowException as error:
        reason = " ".join(str(error).split())[:300]
        raise ClusterUnavailable(f"--tracking-uri {uri} cannot be used ({reason}); wanted an MLflow server.") from error


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
    data = options.data or Path(study.data)
    if data == Path():
        raise DataMissing(f"{options.study} names no data set; give --data DIR, or folder below [data].")
    if not data.is_dir():
        hint = "make the sample with `sn7 sample data/sample`" if data == Path("data/sample") else "give --data DIR"
        raise DataMissing(f"{data} is no folder; wanted a data set in the SpaceNet 7 layout: {hint}.")
    return check_study(replace(study, data=str(data.resolve()), **changes))


def _is_complete(results: Path, study: Study, resume: bool) -> bool:
    """Return whether the study is complete; raise ResultsConflict where going on was not asked for, or is wrong."""
    if not (results / "study.toml").exists():
        if results.exists() and any(path.name != ".lock" for path in results.iterdir()):
            raise ResultsConflict(f"{results} exists and holds no study; remove it, or give another --results folder.")
        return False
    check_same_study(results, study)
    summary = _summary(results)
    if summary["trials"] >= study.trials and (summary["refit"], summary["data"]) == (study.refit, study.data):
        return True
    if not resume:
        raise ResultsConflict(f"{results} holds this study, unfinished; go on with --resume, or remove the folder.")
    return False


def _summary(results: Path) -> dict[str, Any]:
    """Return the summary of a complete study, or one of no trials."""
    path = results / SUMMARY
    try:
        content: dict[str, Any] = read_json(path) if path.exists() else {}
    except ValueError as error:
        raise ResultsConflict(f"{path} cannot be read ({error}); remove it and go on with --resume.") from error
    return {"trials": 0, "refit": 0, "data": "", **content}


def _prepare(data: Path, results: Path) -> Prepared:
    """Prepare the data set below results/prepared, or reuse what is there, and say what was left out."""
    name = f"{data.name}-{uuid.uuid5(uuid.NAMESPACE_URL, str(data)).hex[:8]}"
    done = prepare(data, results / "prepared" / name)
    labelled = len(done.prepared.images) - done.unlabelled
    print(
        f"prepared {labelled} labelled images of {len(done.prepared.scenes)} scenes ({done.written} new, {done.reused} "
        f"reused; {done.unlabelled} unlabelled images left out)",
        file=sys.stderr,
    )
    return done.prepared


def _check_same_data(known: Mapping[str, Any], prepared: Prepared, results: Path) -> None:
    before = known.get("data_fingerprint", prepared.fingerprint)
    if before != prepared.fingerprint:
        raise ResultsConflict(
            f"{results} was made with other data (fingerprint {before[:12]}, now {prepared.fingerprint[:12]}); "
            "give that data set, or another --results folder."
        )


def _end_interrupted(opened: optuna.Study, records: Records) -> int:
    """End the trials that were cut off, here and in MLflow, and return how many there were."""
    numbers = end_interrupted(opened)
    for number in numbers:
        records.interrupt(number)
    return len(numbers)


def _search(plan: Plan, opened: optuna.Study, results: Path, records: Records) -> bool:
    """Run the missing trials; return False after Ctrl-C."""
    study = plan.study
    keep: Literal["best", "last"] = "last" if plan.validation == plan.folds else "best"
    job = Job(results, plan.prepared.folder, study.base, plan.validation, keep)
    board = Board(study.trials, plan.trial_epochs + plan.fold_epochs)
    for trial in ended_trials(opened):
        board.catch_up(trial.number, STATES[trial.state], trial.user_attrs.get("dice"), job.steps)
    ended = run_trials(study, job, opened, records, board)
    board.close()
    write_leaderboard(leaderboard(opened), results / "leaderboard.csv")
    stopped = _end_interrupted(opened, records)
    if not ended:
        print(f"interrupted with {stopped} trials running; go on with --resume", file=sys.stderr)
    elif stopped:
        print(f"max_hours are over; {stopped} trials were cut off and start again with --resume", file=sys.stderr)
    return ended


def _print_summary(results: Path, study: Study, options: argparse.Namespace) -> None:
    ui = f"make ui RESULTS={options.results}" if options.results != Path("results") else "make ui"
    rows = leaderboard(open_optuna(study, results))
    print(closing(_summary(results), rows, results, options.tracking_uri or ui))
