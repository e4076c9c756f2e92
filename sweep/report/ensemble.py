"""What the ensemble gains over its parts and over the notebook recipe, and what that costs whoever predicts with it."""

from collections.abc import Iterator
from html import escape
from typing import Any

import plotly.graph_objects as go

from sn7.evaluation import FEWEST, Interval, by_cluster, dice_interval, gain_interval
from sn7.metrics import Counts
from sweep.ensembles import Candidate
from sweep.report.findings import Findings
from sweep.report.page import Chart, Section, Table, Text
from sweep.report.style import BEST, NOTEBOOK, OTHER

__all__ = ["ensemble"]


def ensemble(findings: Findings) -> Section:
    """Return Dice of each model with its interval, the ensemble's gain over it, and its cost."""
    rows = [_row(findings, candidate) for candidate in findings.candidates]
    used = [name for name in rows[0] if any(row[name] != "" for row in rows)]  # of few scenes no intervals
    table = Table(
        used,
        [[row[name] for name in used] for row in rows],
        {len(rows) - 1: "best"},
        _caption(findings.candidates[-1]),
    )
    return Section(
        "Ensemble",
        [
            *(Text(words) for words in _words(findings)),
            Chart(_chart(findings)),
            table,
            Table(*_folds(findings), folded="Fold by fold"),
        ],
    )


def _words(findings: Findings) -> Iterator[str]:
    """Return what the reader has to know: what was averaged, how it was judged, and how far that can be trusted."""
    chosen, folds = findings.candidates[-1], len(findings.plan.folds)
    weights = ", ".join(f"trial {trial} with weight {weight:.2f}" for trial, weight in chosen.weights.items())
    yield (
        f"The ensemble is the weighted mean of the probs of {chosen.cost.models} models: {weights}, each trained "
        f"{folds} times, each time without one of the {folds} folds.{findings.as_tuned}"
    )
    yield (
        "Nested: weights and threshold of each fold are fitted on the others; optimistic: on the very scenes that are "
        f"scored, so the difference is what that flatters by. {_choice(findings)}"
    )
    yield (
        f"There are no intervals: the scenes lie in fewer than {FEWEST} geographic clusters, too few for that."
        if len(_units(findings, chosen)) < FEWEST
        else "Intervals come from drawing geographic clusters of scenes with replacement, for a gain the same ones on "
        "both sides. A gain whose interval holds 0 may be chance."
    )
    for sentence in findings.summary["failed"]:
        yield f"Left out, since it could not be trained on every fold: {sentence}"


def _choice(findings: Findings) -> str:
    """Return what no nesting undoes: configurations were chosen on scenes that are scored here."""
    best, splits = f"the best of {len(findings.rows)} trials", findings.plan.validation
    if len(splits) > 1:
        return (
            f"But the configurations are {best} by Dice on these very scenes, all of them: that flatters both, and any "
            "gain over the notebook recipe."
        )
    scored = len(findings.candidates[-1].scored.by_scene)
    return (
        f"But the configurations are {best} by Dice on the validation scenes, {len(splits[0].validation)} of the "
        f"{scored} that are scored here: that flatters both a little."
    )


def _caption(chosen: Candidate) -> str:
    measured = chosen.cost.seconds_per_km2 is not None
    return (
        "Models, MB and seconds are of all fold models together, as they predict new scenes; Dice is of one fold model "
        "of each configuration, that which did not train on the scene"
        + ("; seconds are those of a device as the cross-validation ran on." if measured else ".")
    )


def _chart(findings: Findings) -> go.Figure:
    figure = go.Figure()
    for candidate in findings.candidates:
        dice = candidate.scored.counts.dice
        interval = dice_interval(_units(findings, candidate), findings.plan.study.seed)
        low, high = interval or (dice, dice)
        recipe = list(candidate.weights) == [findings.notebook]
        colour = BEST if candidate is findings.candidates[-1] else NOTEBOOK if recipe else OTHER
        figure.add_scatter(
            x=[dice],
            y=[escape(candidate.name)],
            error_x={"array": [high - dice], "arrayminus": [dice - low], "thickness": 1.5, "visible": bool(interval)},
            mode="markers",
            marker={"color": colour, "size": 11},
            showlegend=False,
            hovertemplate=f"Dice {', '.join(filter(None, [f'{dice:.3f}', _text(interval, '.3f')]))}<extra></extra>",
        )
    figure.update_xaxes(title="Dice, out of fold, all scenes")
    return figure.update_layout(height=110 + 36 * len(findings.candidates))


def _row(findings: Findings, candidate: Candidate) -> dict[str, Any]:
    """Return the cells of a candidate by the column's name."""
    chosen, seed = findings.candidates[-1], findings.plan.study.seed
    units, cost = _units(findings, candidate), candidate.cost
    gain, gains = "", None
    if candidate is not chosen:
        gain = f"{chosen.scored.counts.dice - candidate.scored.counts.dice:+.3f}"
        gains = gain_interval(_units(findings, chosen), units, seed)
    return {
        "model": candidate.name,
        "Dice, nested": f"{candidate.scored.counts.dice:.3f}",
        "95 % interval": _text(dice_interval(units, seed), ".3f"),
        "Dice, optimistic": f"{candidate.scored.optimistic.dice:.3f}",
        "the ensemble's gain": gain,
        "95 % interval of the gain": _text(gains, "+.3f"),
        "models": cost.models,
        "MB": f"{cost.mb:,.0f}",
        "s per km²": "" if cost.seconds_per_km2 is None else f"{cost.seconds_per_km2:.2g}",
    }


def _text(interval: Interval, style: str) -> str:
    return " to ".join(f"{end:{style}}" for end in interval or ())


def _units(findings: Findings, candidate: Candidate) -> list[Counts]:
    return by_cluster(candidate.scored.by_scene, findings.clusters)


def _folds(findings: Findings) -> tuple[list[str], list[list[Any]]]:
    rows = [
        [candidate.name, fold.fold, fold.threshold, *fold.counts.metrics().values()]
        for candidate in findings.candidates
        for fold in candidate.scored.folds
    ]
    return ["model", "fold", "threshold", "Dice", "IoU", "precision", "recall"], rows
