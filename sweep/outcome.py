"""From the best trials to the ensemble, its predictions, and the summary that a study ends with."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna

from sn7.config import TrainConfig
from sn7.ensemble import save_ensemble
from sn7.errors import StudyInvalid
from sn7.files import write_json
from sn7.predict import PredictionFiles, PredictReport
from sn7.train import read_result
from sweep.crossval import Member, OutOfFold, cross_validate, score_out_of_fold
from sweep.figures import draw_curves, draw_folds
from sweep.final import predict_final
from sweep.leaderboard import Row, best_trials, leaderboard, write_folds, write_leaderboard
from sweep.plan import Plan
from sweep.records import Records
from sweep.report import write_report
from sweep.search import NOTEBOOK
from sweep.summary import headline
from sweep.trial import split_folder

__all__ = ["SUMMARY", "finish"]

ENSEMBLE = "ensemble"
SUMMARY = "summary.json"
Scores = list[tuple[str, OutOfFold]]


def finish(plan: Plan, opened: optuna.Study, results: Path, data: Path, records: Records) -> dict[str, Any]:
    """Cross-validate, build the ensemble, predict the final scenes, write the tables and the report.

    Needs a connected Ray. Returns the summary, which is also written to summary.json, last of all: a folder that
    has it is complete. Raises StudyInvalid where no trial trained to its end.
    """
    best = [_member(plan, trial) for trial in best_trials(opened, plan.study.refit)]
    if not best:
        raise StudyInvalid(
            f"no trial of study {plan.study.name} has trained to its end, so there is no ensemble to build; see the "
            "column error of leaderboard.csv, or give it more time and --resume."
        )
    compared = best + _notebook(plan, opened, best, results)
    failed = _cross_validate(plan, compared, results, records)
    trials = [member.trial for member in best if member.trial not in failed]
    if not trials:
        raise StudyInvalid(f"no configuration could be trained on every fold: {'; '.join(failed.values())}")
    scores = [
        (_name(opened, member.trial), _scored(plan, [member.trial], results))
        for member in compared
        if member.trial not in failed
    ]
    scores.append((ENSEMBLE, _scored(plan, trials, results)))
    ensemble = _save_ensemble(plan, trials, scores[-1][1], results)
    predicted = predict_final(ensemble, data, results / "predictions", plan.study.resources)
    rows = leaderboard(opened)
    summary = _summary(plan, trials, rows, scores, predicted, list(failed.values()))
    _publish(plan, rows, scores, summary, predicted, results, records)
    write_json(results / SUMMARY, summary)
    return summary


def _cross_validate(plan: Plan, members: list[Member], results: Path, records: Records) -> dict[int, str]:
    """Train the members on the folds; return those that failed on one, by trial, with the reason."""
    failed = {}
    folds = cross_validate(members, plan.folds, results, plan.prepared.folder, plan.study.resources)
    for member, fold, error in folds:
        if error:
            failed[member.trial] = f"trial {member.trial}, fold {fold}: {error}"
            records.fold(member.trial, fold, "FAILED", {}, [])
        else:
            records.fold(member.trial, fold, "COMPLETE", *_fold_record(plan, results, member.trial, fold))
    return failed


def _member(plan: Plan, trial: optuna.trial.FrozenTrial) -> Member:
    return Member(trial.number, TrainConfig.from_dict(trial.params, base=plan.study.base))


def _notebook(plan: Plan, opened: optuna.Study, members: Sequence[Member], results: Path) -> list[Member]:
    """Return the notebook recipe if it stands beside the members at no cost: trained on every fold already."""
    return [
        _member(plan, trial)
        for trial in opened.trials
        if trial.user_attrs.get(NOTEBOOK)
        and trial.number not in [member.trial for member in members]
        and all(read_result(split_folder(results, trial.number, split.name)) for split in plan.folds)
    ]


def _name(opened: optuna.Study, trial: int) -> str:
    recipe = " (notebook recipe)" if opened.trials[trial].user_attrs.get(NOTEBOOK) else ""
    return f"trial {trial}{recipe}"


def _scored(plan: Plan, trials: Sequence[int], results: Path) -> OutOfFold:
    return score_out_of_fold(trials, plan.folds, results, plan.prepared)


def _fold_record(plan: Plan, results: Path, trial: int, fold: int) -> tuple[dict[str, float], list[Path]]:
    split = plan.folds[fold]
    alone = score_out_of_fold([trial], [split], results, plan.prepared)  # one fold alone keeps threshold 0.5
    return alone.counts.metrics(), [split_folder(results, trial, split.name) / "history.csv"]


def _save_ensemble(plan: Plan, trials: Sequence[int], scored: OutOfFold, results: Path) -> Path:
    models = [split_folder(results, trial, split.name) / "model" for trial in trials for split in plan.folds]
    fitted = {
        "study": plan.study.name,
        "trials": list(trials),
        "folds": [list(split.validation) for split in plan.folds],
        "data_fingerprint": plan.prepared.fingerprint,
        "out_of_fold": {**scored.counts.metrics(), "dice_by_fold": scored.dice_by_fold},
    }
    save_ensemble(results / ENSEMBLE, models, scored.threshold, fitted)
    return results / ENSEMBLE


def _summary(
    plan: Plan,
    trials: Sequence[int],
    rows: Sequence[Row],
    scores: Scores,
    predicted: PredictReport,
    failed: list[str],
) -> dict[str, Any]:
    winner = rows[0]
    notebook = next((row for row in rows if row["recipe"]), None)
    scored = scores[-1][1]
    return {
        "trials": len(rows),
        "refit": plan.study.refit,
        "data": plan.study.data,
        "winner": winner,
        "notebook": notebook,
        "ensemble": {
            "trials": list(trials),
            "models": len(trials) * len(plan.folds),
            "threshold": scored.threshold,
            "out_of_fold": scored.counts.metrics(),
            "dice_by_fold": scored.dice_by_fold,
        },
        "predicted": len(predicted.written),
        "skipped": [*failed, *predicted.skipped],
    }


def _publish(
    plan: Plan,
    rows: Sequence[Row],
    scores: Scores,
    summary: dict[str, Any],
    predicted: PredictReport,
    results: Path,
    records: Records,
) -> None:
    """Write tables, figures and report, and copy them to MLflow, with the ensemble as a registered model."""
    write_leaderboard(rows, results / "leaderboard.csv")
    folds = write_folds(scores, plan.folds, results / "folds.csv")
    curves = draw_curves(rows, plan.validation[0].name, results)
    pictures = draw_folds(summary["ensemble"]["trials"], plan.folds, plan.prepared, results)
    shown = _first_of_each_scene(predicted)
    previews = [files.preview for files in shown]
    write_report(plan.study, rows, folds, headline(summary), curves, pictures, previews, results / "report.html")
    records.files([results / name for name in ("study.toml", "leaderboard.csv", "folds.csv", "report.html")])
    records.files([curves, *pictures], "figures")
    for files in shown:
        records.files([files.probs, files.polygons, files.preview], f"predictions/{files.probs.parent.name}")
    records.register(results / ENSEMBLE, headline(summary))


def _first_of_each_scene(predicted: PredictReport) -> list[PredictionFiles]:
    """Return the files of one image a scene: all months of all scenes would be gigabytes."""
    scenes: dict[Path, PredictionFiles] = {}
    for files in sorted(predicted.written, key=lambda files: files.probs):
        scenes.setdefault(files.probs.parent, files)
    return list(scenes.values())
