"""The trials of a study by Dice (leaderboard.csv), and how each model did fold by fold (folds.csv)."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna

from sn7.folds import Split
from sweep.endings import ERROR, FAILURES, PREEMPTED
from sweep.scoring import OutOfFold
from sweep.search import ATTRIBUTES, NOTEBOOK, STATES
from sweep.tables import write_table

__all__ = ["Row", "best_trials", "leaderboard", "write_folds", "write_leaderboard", "write_repeats", "write_scenes"]

Row = dict[str, Any]


def leaderboard(opened: optuna.Study) -> list[Row]:
    """Return one row a trial that has begun: COMPLETE ones by Dice, then PRUNED ones by Dice, then FAILED, PREEMPTED.

    `rank` counts COMPLETE trials only, since a pruned one was not given the same number of epochs. `preempted` and
    `failures` count the attempts that it took besides its last.
    """
    order = list(STATES.values())
    trials = sorted(
        (trial for trial in opened.get_trials(deepcopy=False) if trial.datetime_start is not None),
        key=lambda t: (order.index(STATES[t.state]), -t.user_attrs.get("dice", -1), t.number),
    )
    fields = list(dict.fromkeys(name for trial in trials for name in trial.params))
    return [_row(position, trial, fields) for position, trial in enumerate(trials, 1)]


def _row(position: int, trial: optuna.trial.FrozenTrial, fields: list[str]) -> Row:
    state = STATES[trial.state]
    return {
        "rank": position if state == "COMPLETE" else "",
        "trial": trial.number,
        "recipe": "notebook" if trial.user_attrs.get(NOTEBOOK) else "",
        "state": state,
        **{name: trial.user_attrs.get(name, "") for name in ATTRIBUTES},
        **{name: trial.params.get(name, "") for name in fields},  # a conditional field is not there for all
        "preempted": trial.user_attrs.get(PREEMPTED, 0),
        "failures": trial.user_attrs.get(FAILURES, 0),
        "error": trial.user_attrs.get(ERROR, "") if state == "FAILED" else "",
    }


def best_trials(opened: optuna.Study, count: int) -> list[optuna.trial.FrozenTrial]:
    """Return the `count` best COMPLETE trials, best first."""
    numbers = [row["trial"] for row in leaderboard(opened) if row["state"] == "COMPLETE"][:count]
    return [opened.trials[number] for number in numbers]


def write_leaderboard(rows: Sequence[Row], path: Path) -> None:
    """Write leaderboard.csv, atomically."""
    write_table(path, rows)


def write_folds(scores: Iterable[tuple[str, OutOfFold]], splits: Sequence[Split], path: Path) -> list[Row]:
    """Write folds.csv and return its rows: one for each model and fold, at the threshold fitted on the others."""
    rows: list[Row] = [
        {
            "model": name,
            "fold": score.fold,
            "scenes": " ".join(splits[score.fold].validation),
            "threshold": round(score.threshold, 4),
            **{metric: round(value, 6) for metric, value in score.counts.metrics().items()},
        }
        for name, scored in scores
        for score in scored.folds
    ]
    write_table(path, rows)
    return rows


def write_scenes(scores: Iterable[tuple[str, OutOfFold]], seed: int, path: Path) -> None:
    """Write scenes.csv: a row a model and scene, at the threshold fitted on the other folds, with a 95 % interval.

    The interval is left out where too little of a scene is valid.
    """
    rows: list[Row] = []
    for name, scored in scores:
        for fold in scored.folds:
            for scene in fold.scenes:
                low, high = scene.interval(fold.threshold, seed) or (None, None)
                metrics = scene.curve.counts(fold.threshold).metrics()
                rows.append(
                    {
                        "model": name,
                        "scene": scene.scene,
                        "fold": fold.fold,
                        "images": len(scene.images),
                        "threshold": round(fold.threshold, 4),
                        **{metric: round(value, 6) for metric, value in metrics.items()},
                        "dice_low": "" if low is None else round(low, 6),
                        "dice_high": "" if high is None else round(high, 6),
                        "ceiling_dice": round(scene.ceiling.dice, 6),
                    }
                )
    write_table(path, rows)


def write_repeats(values: Mapping[int, Sequence[float]], path: Path) -> None:
    """Write repeats.csv: a row a trial and seed; run 0 is the trial's own, by which it was chosen."""
    write_table(
        path, [{"trial": t, "run": run, "dice": dice} for t, dices in values.items() for run, dice in enumerate(dices)]
    )
