"""From the best trials to the ensemble, its predictions, and the summary that a study ends with."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

import optuna

from sn7.config import TrainConfig
from sn7.ensemble import PLAIN
from sn7.errors import StudyInvalid
from sn7.files import write_json
from sn7.panels import tile_sheet
from sn7.predict import PredictionFiles, PredictReport
from sn7.train import SHOWN, EpochMetrics, read_history, read_result
from sweep.budget import Budget
from sweep.crossval import Member, cross_validate
from sweep.endings import worth
from sweep.ensembles import ENSEMBLE, SUMMARY, Candidate, Candidates, folds_json, gain_sentence, write_ensemble
from sweep.figures import out_of_fold_pictures
from sweep.final import final_scenes, predict_final, why_none
from sweep.fits import Fit
from sweep.footprints import POSTPROCESS, Footprints
from sweep.leaderboard import (
    Row,
    best_trials,
    leaderboard,
    write_folds,
    write_leaderboard,
    write_repeats,
    write_scenes,
)
from sweep.oof import mean_probs
from sweep.plan import Plan
from sweep.postprocess import tune
from sweep.provenance import commit, provenance
from sweep.records import Records
from sweep.repeats import noise_sentence, repeat, repeat_values
from sweep.report import Findings, write_report
from sweep.scoring import Scorer, total
from sweep.search import NOTEBOOK
from sweep.stage import Stage
from sweep.summary import headline, polygon_threshold
from sweep.trial import split_folder

__all__ = ["finish"]


def finish(
    plan: Plan, opened: optuna.Study, results: Path, records: Records, budget: Budget, ended_by: str
) -> dict[str, Any]:
    """Repeat, cross-validate, build the ensemble, predict the final scenes, write the tables and the report.

    Needs a connected Ray. Returns the summary, which is also written to summary.json, last of all: a folder that
    has it is complete. Raises StudyInvalid where no trial trained to its end.
    """
    best = [_member(plan, trial) for trial in best_trials(opened, plan.study.refit)]
    if not best:
        raise StudyInvalid(
            f"no trial of study {plan.study.name} has trained to its end, so there is no ensemble to build; see the "
            "column error of leaderboard.csv, or give it more time and --resume."
        )
    repeats = _repeat(plan, opened, best, results, records, budget)
    compared = best + _notebook(plan, opened, best, results)
    stage = Stage(results, budget)
    scorer = Scorer(results, plan.prepared, stage)
    failed = _cross_validate(plan, compared, records, budget, scorer)
    trials = [member.trial for member in best if member.trial not in failed]
    if not trials:
        raise StudyInvalid(f"no configuration could be trained on every fold: {'; '.join(failed.values())}")
    left = [member for member in compared if member.trial not in failed]
    names = {member.trial: _name(opened, member.trial) for member in left}
    comparison = Candidates(plan, {member.trial: member.config for member in left}, scorer)
    candidates = comparison.compare(trials, names)
    untuned = _untunable([member for member in left if member.trial in trials])
    tuned = None if untuned else _tune(plan, trials, candidates[-1], results, records, stage)
    used = tuned if tuned and tuned.helps else None
    if used:
        candidates = comparison.tuned(candidates, used.selection, used.advice["probs"])
    ensemble = write_ensemble(plan, candidates[-1], used.advice if used else None, results)
    scenes = final_scenes(plan.study)
    predicted = predict_final(ensemble, scenes, plan.study.data, results / "predictions", stage)
    rows = leaderboard(opened)
    summary = {
        **_summary(rows, candidates, used),
        "failed": list(failed.values()),
        "predicted": len(predicted.written),
        "skipped": list(predicted.skipped),
        "warnings": list(predicted.warnings),
        "none_predicted": "" if predicted.written else why_none(plan.study, scenes),
        "limits": plan.study.limits,
        "ended_by": ended_by,
        "spent": asdict(budget.spent),
        "noise": noise_sentence(repeats),
        "postprocess": tuned.to_json() if tuned else None,
        "tuning": tuned.sentence if tuned else untuned,
    }
    _publish(plan, opened, rows, candidates, summary, predicted, repeats, results, records)
    write_json(results / SUMMARY, summary)
    return summary


def _untunable(members: Sequence[Member]) -> str:
    """Return why the way to footprints cannot be tuned on out-of-fold probs, or nothing."""
    separating = [str(member.trial) for member in members if member.config.separation_weight > 0]
    if not separating:
        return ""
    return (
        f"The way to footprints was not tuned: out-of-fold probs are of buildings alone, and trial "
        f"{', '.join(separating)} has outputs for boundary and contact, too, by which its footprints are parted."
    )


def _tune(
    plan: Plan, trials: Sequence[int], chosen: Candidate, results: Path, records: Records, stage: Stage
) -> Footprints | None:
    """Tune the way from the chosen ensemble's probs to footprints, unless the study does not want it."""
    if not plan.study.postprocess.trials:
        return None
    tuned = tune(plan, trials, chosen.selection, chosen.thresholds, results, stage)
    tuned.record(records)
    records.files([results / f"{POSTPROCESS}.csv"])
    return tuned


def _repeat(
    plan: Plan, opened: optuna.Study, members: list[Member], results: Path, records: Records, budget: Budget
) -> dict[int, list[float]]:
    """Train the members with further seeds; return the Dice of each with each seed, its own first."""
    study = plan.study
    if study.repeats > 1:
        ended: dict[tuple[int, int], list[tuple[Fit, str]]] = defaultdict(list)

        def told(fit: Fit, epochs: Sequence[EpochMetrics]) -> None:
            records.repeat_begins(fit.trial, fit.config.seed)

        for fit, error in repeat(members, plan.validation, study, results, plan.prepared.place, budget, told):
            ended[fit.trial, fit.config.seed].append((fit, error))
            if len(ended[fit.trial, fit.config.seed]) == len(plan.validation):
                _record_repeat(records, ended[fit.trial, fit.config.seed])
    return {
        member.trial: repeat_values(
            member.trial, float(opened.trials[member.trial].value or 0), plan.validation, study.repeats, results
        )
        for member in members
    }


def _record_repeat(records: Records, fits: Sequence[tuple[Fit, str]]) -> None:
    """Record a configuration with another seed, which has been trained on all splits: the mean over them."""
    first = fits[0][0]
    best = [trained.best for fit, error in fits if not error and (trained := read_result(fit.out))]
    state = "COMPLETE" if len(best) == len(fits) else "FAILED"
    metrics = {"dice": fmean(m.dice for m in best), "iou": fmean(m.iou for m in best)} if best else {}
    if len(fits) == 1:
        metrics |= worth(first.out)
    files = [path for fit, _ in fits for path in _files(fit.out)]
    records.repeat(first.trial, first.config.seed, state, metrics, files)


def _cross_validate(
    plan: Plan, members: list[Member], records: Records, budget: Budget, scorer: Scorer
) -> dict[int, str]:
    """Train the members on the folds; return those that failed on one, by trial, with the reason.

    What a fold is worth out of fold is told when all have been trained: to score one takes cores from the others.
    """
    failed, done = {}, []

    def told(fit: Fit, epochs: Sequence[EpochMetrics]) -> None:
        records.fold_begins(fit.trial, fit.key)
        for metrics in epochs:
            records.fold_epoch(fit.trial, fit.key, metrics.epoch, asdict(metrics))

    folds = cross_validate(members, plan.folds, plan.study, scorer.results, plan.prepared.place, budget, told)
    for fit, error in folds:
        if error:
            failed[fit.trial] = f"trial {fit.trial}, {fit.label}: {error}"
            records.fold(fit.trial, fit.key, "FAILED", {}, [])
            continue
        told(fit, read_history(fit.out))  # what an earlier driver did not come to tell
        records.fold(fit.trial, fit.key, "COMPLETE", worth(fit.out), _files(fit.out))
        done.append(fit)
    alone = scorer.read([({fit.trial: 1.0}, fit.split) for fit in done])
    for fit, scenes in zip(done, alone, strict=True):
        scored = {f"out_of_fold_{name}": value for name, value in total(scenes).counts(0.5).metrics().items()}
        records.fold(fit.trial, fit.key, "COMPLETE", scored, [])
    return failed


def _files(folder: Path) -> list[Path]:
    """Return the history and the pictures of a training."""
    return [path for name in SHOWN if (path := folder / name).exists()]


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


def _summary(rows: Sequence[Row], candidates: Sequence[Candidate], used: Footprints | None) -> dict[str, Any]:
    chosen = candidates[-1]
    return {
        "trials": len(rows),
        "winner": rows[0],
        "notebook": next((row for row in rows if row["recipe"]), None),
        "ensemble": {
            **chosen.to_json(),
            "trials": list(chosen.weights),
            "threshold": chosen.scored.threshold,
            "folds": folds_json(chosen),
            "way": used.advice["probs"] if used else PLAIN,
            "rules": used.advice["rules"] if used else {},
            "out_of_fold": chosen.scored.counts.metrics(),
            "optimistic": chosen.scored.optimistic.metrics(),
            "dice_by_fold": chosen.scored.dice_by_fold,
        },
        "candidates": [candidate.to_json() for candidate in candidates],
        "gain": gain_sentence(candidates),
    }


def _publish(
    plan: Plan,
    opened: optuna.Study,
    rows: Sequence[Row],
    candidates: Sequence[Candidate],
    summary: dict[str, Any],
    predicted: PredictReport,
    repeats: dict[int, list[float]],
    results: Path,
    records: Records,
) -> None:
    """Write tables, figures and report, and copy them to MLflow, with the ensemble as a registered model."""
    write_leaderboard(rows, results / "leaderboard.csv")
    scores = [(candidate.name, candidate.scored) for candidate in candidates]
    write_folds(scores, plan.folds, results / "folds.csv")
    write_scenes(scores, plan.study.seed, results / "scenes.csv")
    tables = ["study.toml", "leaderboard.csv", "folds.csv", "scenes.csv", "report.html"]
    if plan.study.repeats > 1:
        write_repeats(repeats, results / "repeats.csv")
        tables.append("repeats.csv")
    examples = out_of_fold_pictures(
        candidates[-1].scored, lambda weights, image: mean_probs(weights, results, image), plan.prepared
    )
    shown = _first_of_each_scene(predicted)
    findings = Findings(
        plan,
        opened,
        rows,
        candidates,
        summary,
        results,
        repeats,
        examples,
        [files.preview for files in shown],
        provenance(plan.study, plan.prepared),
    )
    write_report(findings, results / "report.html")
    records.files([results / name for name in tables])
    if examples:
        tile_sheet(examples, results / "figures" / "out_of_fold.png")
        records.files([results / "figures" / "out_of_fold.png"], "figures")
    for files in shown:
        records.files([files.probs, files.polygons, files.preview], f"predictions/{files.probs.parent.name}")
    winner = summary["winner"]["trial"]
    records.model(winner, split_folder(results, winner, plan.validation[0].name) / "model")
    made_from = {
        "study": plan.study.name,
        "data_fingerprint": plan.prepared.fingerprint,
        "commit": commit(),
        "threshold": polygon_threshold(summary),
        "probs": summary["ensemble"]["way"],
        "models": summary["ensemble"]["models"],
    }
    records.register(results / ENSEMBLE, headline(summary), made_from)


def _first_of_each_scene(predicted: PredictReport) -> list[PredictionFiles]:
    """Return the files of one image a scene: all months of all scenes would be gigabytes."""
    scenes: dict[Path, PredictionFiles] = {}
    for files in sorted(predicted.written, key=lambda files: files.probs):
        scenes.setdefault(files.probs.parent, files)
    return list(scenes.values())
