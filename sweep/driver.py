"""The stages of a study, one after the other: resolve, prepare, plan, search, finish."""

import argparse
import sys
import uuid
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna

from sn7.errors import DataMissing, NodeUnfit, PreparedInvalid, ResultsConflict
from sn7.files import lock, read_json, require_writable
from sn7.folds import Split
from sn7.prepare import prepare
from sn7.prepared import Prepared, is_prepared, load_prepared
from sn7.storage import is_url, local
from sweep.board import Board, configuration_text
from sweep.book import FULL_DISK, UNFIT, Book
from sweep.budget import Budget
from sweep.cluster import capacity, require_capacity, start_ray, stop_ray
from sweep.disk import full_disk, require_room
from sweep.endings import mend
from sweep.ensembles import SUMMARY
from sweep.final import final_scenes
from sweep.growth import coming
from sweep.journal import JOURNAL, read_header
from sweep.leaderboard import leaderboard, write_leaderboard
from sweep.outcome import finish
from sweep.packing import measured_cost, preflight_text, with_gpu_share
from sweep.plan import Plan, describe, leak_warnings, make_plan
from sweep.provenance import provenance
from sweep.records import Records, default_tracking_uri, open_records, sync
from sweep.search import NOTEBOOK, STATES, earlier_trials, ended_trials, open_optuna
from sweep.server import connect, shown
from sweep.stopping import StopFile, stop_on_signals
from sweep.study import Study, check_study
from sweep.studyfile import check_same_study, load_study, save_study
from sweep.summary import closing
from sweep.terms import MARK, Terms, make_terms
from sweep.trackstage import require_trackable, track_stage
from sweep.trial import Job
from sweep.trials import run_trials

__all__ = ["run_study"]


def run_study(options: argparse.Namespace) -> int:
    """Run the study of the command line (see sweep/run.py) to its end; return 0, or 130 after Ctrl-C.

    Raises an Sn7Error for bad input. Every stage finds what an earlier start has finished.
    """
    if options.sync:
        return _sync(options)
    study = _resolve(options)
    results = options.results.resolve() / study.name
    only_looks = options.dry_run or options.preflight or options.tune_tracks is not None
    if _is_complete(results, study, options.resume or only_looks) and not only_looks:
        _print_summary(results, study, options)
        return 0
    if options.tune_tracks is not None:
        require_trackable(study, results)
    require_writable(options.results.resolve())
    prepared = _prepare(study, options.results.resolve())
    plan = make_plan(study, prepared)
    if options.dry_run:
        print(describe(plan, measured_cost(plan, results)))
        return 0
    for warning in leak_warnings(plan):
        print(warning, file=sys.stderr)
    with lock(results / ".lock"):
        if not options.preflight:
            _check(plan, results, options)
        start_ray(options.address, _terms(plan, results) if options.address else None)
        try:
            if options.preflight:
                print(preflight_text(plan, results))
                return 0
            if options.tune_tracks is not None:
                print(_tune_tracks(plan, results, options))
                return 0
            plan = with_gpu_share(plan, results)
            require_capacity(plan.study)
            done = _run(plan, results, options)
        finally:
            stop_ray()
    if not done:
        return 130
    _print_summary(results, study, options)
    return 0


def _terms(plan: Plan, results: Path) -> Terms:
    """Return what the nodes of a cluster must have in common with this machine."""
    final = () if is_url(plan.study.data) else tuple(str(scene.folder) for scene in final_scenes(plan.study))
    return make_terms(results, plan.prepared.place, final)


def _run(plan: Plan, results: Path, options: argparse.Namespace) -> bool:
    """Search and finish; return False after Ctrl-C."""
    study, stop = plan.study, StopFile(results)
    opened, records = _open(plan, results, options)
    earlier, left_out = earlier_trials(study, results)
    # Models that are judged out of fold are of the last epoch: the best one would be chosen on those very scenes.
    job = Job(
        results, plan.prepared.place, study.base, plan.validation, "last" if plan.validation == plan.folds else "best"
    )
    budget = Budget(study, opened, *plan.later)
    if study.warm_start:
        print(
            f"warm start: {len(earlier)} earlier trials; {len(left_out)} left out",
            *left_out,
            sep="\n  ",
            file=sys.stderr,
        )
    state = "FAILED"
    try:
        cut_off = mend(opened, records, job)
        if cut_off:
            print(f"{cut_off} trials were cut off and go on", file=sys.stderr)
        with stop_on_signals(stop) as asked:
            about = provenance(study, plan.prepared)
            most = capacity(study, coming())
            spare = 1 if options.address and not most else 0  # a cluster of its own does not grow
            records.describe(about)
            book = Book(study, job, opened, earlier, records, _board(plan, opened, budget), budget, about, spare, most)
            _search(book, opened, results)
            if asked():
                state = "INTERRUPTED"
                return False
            stop.clear()
            summary = finish(plan, opened, results, records, budget, book.over or "trials")
        state = "COMPLETE"
        for what in ("out_of_fold", "optimistic"):
            records.measure({f"{what}_{name}": value for name, value in summary["ensemble"][what].items()})
        return True
    except KeyboardInterrupt:
        state = "INTERRUPTED"
        raise
    finally:
        mend(opened, records, job)
        write_leaderboard(leaderboard(opened), results / "leaderboard.csv")
        budget.save()
        waiting = records.close(state)
        if waiting:
            print(f"{waiting} records wait for MLflow in {results}; deliver them with --sync", file=sys.stderr)


def _tune_tracks(plan: Plan, results: Path, options: argparse.Namespace) -> str:
    """Tune the rules of tracking for a complete study, with records of it; return what a person should read."""
    _, records = _open(plan, results, options)
    try:
        with stop_on_signals(StopFile(results)):
            return track_stage(plan, results, records, options.tune_tracks)
    finally:
        records.close(records.study_state or "COMPLETE")  # the study's, whatever became of the tuning


def _check(plan: Plan, results: Path, options: argparse.Namespace) -> None:
    """Raise what can be known before Ray is started and the study begun: conflicts, no server, a full disk."""
    if (results / "optuna.db").exists():
        _check_same_data(open_optuna(plan.study, results).user_attrs, plan, results)
    elif options.tracking_uri:  # one that has begun has a journal, and can wait for its server
        connect(options.tracking_uri, plan.study.name, "", _artifacts(plan.study, options))
    earlier_trials(plan.study, results)
    warning = require_room(plan, results)
    if warning:
        print(warning, file=sys.stderr)


def _artifacts(study: Study, options: argparse.Namespace) -> Path:
    """Return the folder of the study's artefacts where no server keeps them."""
    return Path(options.results.resolve() / "mlartifacts" / study.name)


def _open(plan: Plan, results: Path, options: argparse.Namespace) -> tuple[optuna.Study, Records]:
    """Open the study's database and records."""
    study, journal = plan.study, results / JOURNAL
    begun = journal.exists() and journal.stat().st_size > 0
    save_study(study, results / "study.toml")  # first, so that a start that is cut off here can be resumed
    opened = open_optuna(study, results)
    known = read_header(results)["identity"] if begun else opened.user_attrs.get("identity")
    identity = known or uuid.uuid4().hex
    for name, value in (
        ("identity", identity),
        ("data_fingerprint", plan.prepared.fingerprint),
        ("splits", _splits((*plan.validation, *plan.folds))),
    ):
        opened.set_user_attr(name, value)
    uri = options.tracking_uri or default_tracking_uri(options.results)
    records = open_records(uri, options.results.resolve(), results, study.name, identity, resumed=begun)
    return opened, records


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
    data = options.data or study.data
    if not data:
        raise DataMissing(f"{options.study} names no data set; give --data, or folder below [data].")
    if not is_url(data):
        if not Path(data).is_dir():
            hint = "make the sample with `sn7 sample data/sample`" if data == "data/sample" else "give --data"
            raise DataMissing(f"{data} is no folder; wanted a data set in the SpaceNet 7 layout: {hint}.")
        data = str(Path(data).resolve())
    if isinstance(study.folds, str):
        changes["folds"] = str(Path(study.folds).resolve())  # from wherever it is resumed
    return check_study(replace(study, data=data, **changes))


def _is_complete(results: Path, study: Study, resume: bool) -> bool:
    """Return whether the study is complete; raise ResultsConflict where going on was not asked for, or is wrong."""
    if not (results / "study.toml").exists():
        if results.is_dir() and any(not path.name.startswith(UNSTARTED) for path in results.iterdir()):
            raise ResultsConflict(f"{results} exists and holds no study; remove it, or give another --results folder.")
        return False
    check_same_study(results, study)
    if _summary(results).get("limits") == study.limits:
        return True
    if not resume:
        raise ResultsConflict(f"{results} holds this study, unfinished; go on with --resume, or remove the folder.")
    return False


UNSTARTED = (".lock", MARK, "preflight.json", "forecast.json", "earlier.json", ".tmp-")
"""What a study's folder may have before the study was started; the last is what a kill leaves half written."""


def _summary(results: Path) -> dict[str, Any]:
    """Return the summary of a complete study, or an empty one."""
    path = results / SUMMARY
    try:
        content: dict[str, Any] = read_json(path) if path.exists() else {}
    except ValueError as error:
        raise ResultsConflict(f"{path} cannot be read ({error}); remove it and go on with --resume.") from error
    return content


def _prepare(study: Study, results: Path) -> Prepared:
    """Prepare the data set below results/prepared, or reuse what is there, and say what was left out.

    It gets the labels that the study's configurations can ask for, in a folder of its own for each choice of them, so
    that no study changes another one's. A prepared set is taken as it is; from a URL each node then fetches it for
    itself. Raises PreparedInvalid where it lacks such labels.
    """
    place, separation, upscales = study.data, study.separation, study.upscales
    data = local(place)
    if is_prepared(data):
        prepared = load_prepared(place)
        prepared.require_labels(upscales, separation)
        return prepared
    if any(data.glob("*/*.npy")):
        raise PreparedInvalid(f"{place} is an unfinished prepared set; wait for its `sn7 prepare`, or run it again.")
    name = f"{data.name}-{uuid.uuid5(uuid.NAMESPACE_URL, place).hex[:8]}"
    labels = ["separation"] * separation + [f"x{scale}" for scale in upscales]
    done = prepare(data, results / "prepared" / "-".join([name, *labels]), None, separation, upscales)
    labelled = len(done.prepared.images) - done.unlabelled
    print(
        f"prepared {labelled} labelled images of {len(done.prepared.scenes)} scenes ({done.written} new, {done.reused} "
        f"reused; {done.unlabelled} unlabelled images left out)",
        file=sys.stderr,
    )
    return done.prepared


def _check_same_data(known: Mapping[str, Any], plan: Plan, results: Path) -> None:
    before, now = known.get("data_fingerprint", ""), plan.prepared.fingerprint
    if before and before != now:
        raise ResultsConflict(
            f"{results} was made with other data (fingerprint {before[:12]} there, {now[:12]} here); "
            "give that data set, or another --results folder."
        )
    splits = _splits((*plan.validation, *plan.folds))
    for name, scenes in known.get("splits", {}).items():
        here = splits.get(name)
        if here != scenes:
            raise ResultsConflict(
                f"{results} was made with another split ({name} validates on {', '.join(scenes)} there, "
                f"{', '.join(here) if here else 'is missing'} here); give another --results folder."
            )


def _splits(splits: tuple[Split, ...]) -> dict[str, list[str]]:
    return {split.name: list(split.validation) for split in splits}


def _board(plan: Plan, opened: optuna.Study, budget: Budget) -> Board:
    """Return the board with what earlier starts have done."""
    board = Board(plan.study.trials, plan.trial_epochs, spent=lambda: str(budget.spent))
    for trial in opened.trials:
        if trial.datetime_start is not None:
            dice = max(trial.intermediate_values.values(), default=None)
            ended = trial.state.is_finished()
            steps = plan.trial_epochs // plan.study.trials if ended else len(trial.intermediate_values)
            board.catch_up(trial.number, STATES[trial.state], dice, steps, configuration_text(trial.params))
            if trial.user_attrs.get(NOTEBOOK):
                board.notebook = trial.number
    return board


def _search(book: Book, opened: optuna.Study, results: Path) -> None:
    """Run the missing trials, and say why the search has ended before all were done."""
    try:
        run_trials(book.study, book.job, book)
    finally:
        book.board.close()
    if book.over == FULL_DISK:
        raise full_disk(results)
    if book.over == UNFIT:
        raise NodeUnfit(f"a node that has joined {book.unfit}; then go on with --resume.")
    ended = len(ended_trials(opened))
    waiting = sum(trial.datetime_start is not None for trial in opened.trials) - ended
    if book.over or waiting:
        print(
            f"the search has ended after {ended} of {book.study.trials} trials"
            + (f" ({book.over})" if book.over else "")
            + (f"; {waiting} were cut off and go on with --resume" if waiting else ""),
            file=sys.stderr,
        )


def _sync(options: argparse.Namespace) -> int:
    """Deliver what the records of a study still lack; return 1 where some could not be delivered."""
    study = load_study(options.study)
    root = options.results.resolve()
    uri = options.tracking_uri or default_tracking_uri(options.results)
    if not (root / study.name / "records.jsonl").exists():
        raise ResultsConflict(f"{root / study.name} has no records; run the study first, or give its --results folder.")
    delivered = sync(uri, root, root / study.name, study.name)
    print(delivered)
    return 0 if not delivered.waiting else 1


def _print_summary(results: Path, study: Study, options: argparse.Namespace) -> None:
    ui = f"make ui RESULTS={options.results}" if options.results != Path("results") else "make ui"
    place = shown(options.tracking_uri) if options.tracking_uri else ui
    rows = leaderboard(open_optuna(study, results))
    print(closing(_summary(results), rows, results, place))
