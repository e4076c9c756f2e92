"""What the ensemble gains over its parts and over the notebook recipe, and what that costs whoever predicts with it."""

from html import escape
from typing import Any

import plotly.graph_objects as go

from sn7.evaluation import dice_interval, gain_interval
from sn7.metrics import Counts
from sweep.crossval import OutOfFold
from sweep.ensembles import Candidate
from sweep.report.findings import Findings
from sweep.report.page import Chart, Section, Table, Text
from sweep.report.style import BEST, NOTEBOOK, OTHER

__all__ = ["ensemble"]

COLUMNS = (
    "model",
    "Dice, nested",
    "95 % interval",
    "Dice, optimistic",
    "the ensemble's gain",
    "95 % interval",
    "models",
    "MB",
    "s per km²",
)


def ensemble(findings: Findings) -> Section:
    """Return Dice of each model with its interval over scenes, the ensemble's gain over it, and its cost."""
    chosen = findings.candidates[-1]
    weights = ", ".join(f"trial {trial} with weight {weight:.2f}" for trial, weight in chosen.weights.items())
    words = (
        f"The ensemble is the weighted mean of the probs of {chosen.cost.models} models: {weights}, each trained on "
        f"{len(chosen.scored.folds)} folds. Nested: weights and threshold of each fold are fitted on the others; "
        "optimistic: on the very scenes that are scored, so the difference is what that flatters by. Intervals are "
        "over scenes, and a gain is on the same scenes: it is sure where its interval leaves out 0."
    )
    rows = [_row(candidate, chosen, findings.plan.study.seed) for candidate in findings.candidates]
    return Section(
        "Ensemble",
        [
            Text(words),
            Chart(_chart(findings)),
            Table(COLUMNS, rows, {len(rows) - 1: "best"}, _caption(chosen)),
            Table(*_folds(findings), folded="Fold by fold"),
        ],
    )


def _caption(chosen: Candidate) -> str:
    measured = chosen.cost.seconds_per_km2 is not None
    return "Size and seconds of prediction are of all fold models together" + (
        ", the seconds on a device as the cross-validation ran on." if measured else "."
    )


def _chart(findings: Findings) -> go.Figure:
    figure = go.Figure()
    for candidate in findings.candidates:
        dice = candidate.scored.counts.dice
        low, high = dice_interval(_scenes(candidate.scored), findings.plan.study.seed)
        recipe = list(candidate.weights) == [findings.notebook]
        colour = BEST if candidate is findings.candidates[-1] else NOTEBOOK if recipe else OTHER
        figure.add_scatter(
            x=[dice],
            y=[escape(candidate.name)],
            error_x={"array": [high - dice], "arrayminus": [dice - low], "thickness": 1.5},
            mode="markers",
            marker={"color": colour, "size": 11},
            showlegend=False,
            hovertemplate=f"Dice {dice:.3f}, {low:.3f} to {high:.3f}<extra></extra>",
        )
    figure.update_xaxes(title="Dice, out of fold, all scenes")
    return figure.update_layout(height=110 + 36 * len(findings.candidates))


def _row(candidate: Candidate, chosen: Candidate, seed: int) -> list[Any]:
    low, high = dice_interval(_scenes(candidate.scored), seed)
    cost = candidate.cost
    return [
        candidate.name,
        f"{candidate.scored.counts.dice:.3f}",
        f"{low:.3f} to {high:.3f}",
        f"{candidate.scored.optimistic.dice:.3f}",
        *(_gain(candidate, chosen, seed) if candidate is not chosen else ("", "")),
        cost.models,
        f"{cost.mb:,.0f}",
        "" if cost.seconds_per_km2 is None else f"{cost.seconds_per_km2:.2g}",
    ]


def _gain(candidate: Candidate, chosen: Candidate, seed: int) -> tuple[str, str]:
    low, high = gain_interval(_scenes(chosen.scored), _scenes(candidate.scored), seed)
    gain = chosen.scored.counts.dice - candidate.scored.counts.dice
    return f"{gain:+.3f}", f"{low:+.3f} to {high:+.3f}"


def _scenes(scored: OutOfFold) -> list[Counts]:
    return [counts for _, counts in sorted(scored.by_scene.items())]


def _folds(findings: Findings) -> tuple[list[str], list[list[Any]]]:
    rows = [
        [candidate.name, fold.fold, fold.threshold, *fold.counts.metrics().values()]
        for candidate in findings.candidates
        for fold in candidate.scored.folds
    ]
    return ["model", "fold", "threshold", "Dice", "IoU", "precision", "recall"], rows
