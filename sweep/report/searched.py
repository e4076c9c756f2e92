"""What was searched, and the leaderboard."""

from typing import Any

from optuna.distributions import CategoricalDistribution

from sn7.evaluation import FEWEST
from sweep.report.findings import Findings
from sweep.report.page import Facts, Section, Table, Text

__all__ = ["leaderboard", "searched"]

SHOWN = 20
"""Rows of the leaderboard that are seen at once."""


def searched(findings: Findings) -> Section:
    """Return data, split, what varied and what did not."""
    study, plan = findings.plan.study, findings.plan
    prepared = plan.prepared
    on = (
        f"the mean over {len(plan.folds)} folds"
        if len(plan.validation) > 1
        else f"the scenes of split {study.validation}: {', '.join(plan.validation[0].validation)}"
    )
    facts = Facts(
        {
            **_states(findings),
            "scenes": str(len(prepared.scenes)),
            "images": str(len(prepared.images)),
            "epochs a trial": str(study.base.epochs * len(plan.validation)),
            "folds": str(len(plan.folds)),
        }
    )
    ended = findings.summary["ended_by"]
    early = "" if ended == "trials" else f" The search ended before all trials were done: {ended}."
    words = Text(
        f"Each trial is one configuration, judged by Dice of the building class on {on}. The first trial is the "
        f"notebook recipe, with the fields that this study fixes.{early}"
    )
    fixed = ", ".join(f"{name} = {value}" for name, value in study.train.items())
    return Section(
        "What was searched",
        [
            facts,
            words,
            Table(
                ["field", "range", "notebook recipe", "best trial"],
                [_field(findings, name) for name in findings.fields()],
                caption=f"Fixed in this study: {fixed}." if fixed else "",
            ),
        ],
    )


def _states(findings: Findings) -> dict[str, str]:
    states = [row["state"] for row in findings.rows]
    return {"trials": str(len(states)), **{state.lower(): str(states.count(state)) for state in dict.fromkeys(states)}}


def _field(findings: Findings, name: str) -> list[Any]:
    field = findings.plan.study.space.searched[name]
    when = "".join(f"; where {other} is {' or '.join(map(str, values))}" for other, values in field.when.items())
    by_trial = {row["trial"]: row for row in findings.rows}
    return [
        name,
        _range(field.distribution) + when,
        *(by_trial.get(trial, {}).get(name, "") for trial in (findings.notebook, findings.best)),
    ]


def _range(distribution: Any) -> str:
    if isinstance(distribution, CategoricalDistribution):
        return ", ".join(map(str, distribution.choices))
    scale = " (log)" if distribution.log else ""
    return f"{distribution.low:g} to {distribution.high:g}{scale}"


def leaderboard(findings: Findings) -> Section:
    """Return the trials by Dice, the notebook recipe marked, with what is known of them."""
    fields = findings.fields()
    columns = ["trial", "Dice", "95 % interval", "state", *fields, "best epoch", "epochs", "minutes", "error"]
    rows = [_row(findings, row, fields) for row in findings.rows]
    marks = {i: _mark(findings, row) for i, row in enumerate(findings.rows)}
    used = [i for i, name in enumerate(columns) if i < 2 or any(row[i] not in ("", None) for row in rows)]
    columns, rows = [columns[i] for i in used], [[row[i] for i in used] for row in rows]
    top = [i for i, row in enumerate(findings.rows) if i < SHOWN or row["recipe"]]
    blocks: list[Any] = [
        Text(
            "By Dice at the best epoch and probs of at least 0.5. A choice of the best of many is a little flattered: "
            "what the ensemble is worth stands below, out of fold."
        ),
        Table(columns, [rows[i] for i in top], {at: marks[i] for at, i in enumerate(top)}, _caption(findings)),
    ]
    rest = [i for i in range(len(rows)) if i not in top]
    if rest:
        more = {at: marks[i] for at, i in enumerate(rest)}
        blocks.append(Table(columns, [rows[i] for i in rest], more, folded=f"{len(rest)} more trials"))
    return Section("Leaderboard", blocks)


def _row(findings: Findings, row: dict[str, Any], fields: list[str]) -> list[Any]:
    found = findings.evaluation(row["trial"]) if row["state"] == "COMPLETE" else None
    return [
        str(row["trial"]) + (" notebook recipe" if row["recipe"] else " best" if row["rank"] == 1 else ""),
        row["dice"] if row["dice"] == "" else f"{row['dice']:.3f}",
        f"{found.dice_low:.3f} to {found.dice_high:.3f}" if found and found.dice_low is not None else "",
        row["state"],
        *(row.get(name, "") for name in fields),
        row["best_epoch"],
        row["epochs_trained"],
        row["seconds"] if row["seconds"] == "" else f"{row['seconds'] / 60:.1f}",
        row["error"],
    ]


def _mark(findings: Findings, row: dict[str, Any]) -> str:
    if row["state"] == "FAILED":
        return "failed"
    return "notebook" if row["recipe"] else "best" if row["trial"] == findings.best else ""


def _caption(findings: Findings) -> str:
    found = findings.evaluation(findings.best)
    words = "Yellow: the notebook recipe; blue: the best trial. All columns are in leaderboard.csv."
    if not found:
        return words
    intervals = (
        f"There are no intervals: the validation scenes lie in fewer than {FEWEST} geographic clusters."
        if found.dice_low is None
        else "Intervals are over geographic clusters of validation scenes, drawn with replacement."
    )
    return (
        f"{words} {intervals} The labels' resolution limits Dice to about {found.ceiling_dice:.3f} there (footprints "
        f"at 4 × the resolution, averaged back); at its own best threshold, {found.threshold:.2f}, the best trial has "
        f"{found.threshold_dice:.3f}."
    )
