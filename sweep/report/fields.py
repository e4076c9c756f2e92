"""Which fields matter: Optuna's own plots of the search."""

from html import escape
from typing import Any

import optuna
import plotly.graph_objects as go
from optuna import visualization
from optuna.trial import TrialState
from plotly.colors import sample_colorscale

from sweep.report.findings import Findings
from sweep.report.page import Block, Chart, Section, Text
from sweep.report.style import BEST, NOTEBOOK, OTHER, OTHER_LIGHT

__all__ = ["fields"]

FEW = 10
"""Complete trials below which importances are mostly chance."""
NUMBERS: dict[str, Any] = {"target": lambda trial: trial.number, "target_name": "trial"}
"""Makes Optuna draw trials' numbers in place of Dice, which tells what it has drawn in which order: where a field has
numbers to choose from, it sorts by these."""
LOG_TICKS = [digit * 10.0**power for power in range(-9, 10) for digit in (1, 2, 5)]


def fields(findings: Findings) -> Section | None:
    """Return history, parallel coordinates, slices and importances; None where no field varies."""
    names = [name for name in findings.fields() if any(name in trial.params for trial in _complete(findings))]
    if not names:
        return None
    wide = 120 * (len(names) + 1)
    blocks: list[Block] = [
        Chart(_history(findings), "Dice of each complete trial in the order they began, and the best so far."),
        Chart(
            _parallel(findings, names),
            "Parallel coordinates: a line is a complete trial, the bluer the higher its Dice; thick are the best trial "
            "and, orange, the notebook recipe.",
            min_width=wide,
        ),
        Chart(_slices(findings, names), "Dice over each field, in the same colours.", min_width=190 * len(names)),
        *_importances(findings),
    ]
    return Section("The search", blocks)


def _complete(findings: Findings) -> list[optuna.trial.FrozenTrial]:
    return findings.opened.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def _history(findings: Findings) -> go.Figure:
    figure = visualization.plot_optimization_history(findings.opened, target_name="Dice")
    figure.update_traces(marker={"color": BEST, "size": 8}, line={"color": OTHER})
    figure.update_traces(name="best so far", selector={"name": "Best Value"})
    recipe = [trial for trial in _complete(findings) if trial.number == findings.notebook]
    figure.add_scatter(
        x=[trial.number for trial in recipe],
        y=[trial.value for trial in recipe],
        mode="markers",
        marker={"color": NOTEBOOK, "size": 12, "symbol": "diamond"},
        name="notebook recipe",
    )
    return figure.update_xaxes(title="trial", dtick=1 if len(findings.rows) <= 10 else None)


def _parallel(findings: Findings, names: list[str]) -> go.Figure:
    figure = visualization.plot_parallel_coordinate(findings.opened, params=names, target_name="Dice")
    numbered = visualization.plot_parallel_coordinate(findings.opened, params=names, **NUMBERS)
    heights = [line.y[0] for line in numbered.data if line.mode == "lines"]
    by_height = dict(zip(sorted(heights), _complete(findings), strict=True))
    trials = [by_height[height] for height in heights]
    values = [float(trial.value or 0) for trial in trials]
    worst, top = min(values), max(values)
    figure.data = [trace for trace in figure.data if trace.mode == "lines"]  # Dice is the first axis: no colour bar
    for trial, value, line in zip(trials, values, figure.data, strict=True):
        share = (value - worst) / (top - worst or 1)
        (colour,) = sample_colorscale([OTHER_LIGHT, BEST], [share])
        line.update(line={"color": colour, "width": 3.5 if trial.number == findings.best else 1.5}, opacity=1)
        if trial.number == findings.notebook:
            line.update(line={"color": NOTEBOOK, "width": 3.5})
    return figure.update_layout(margin={"t": 10, "l": 40})


def _slices(findings: Findings, names: list[str]) -> go.Figure:
    figure = visualization.plot_slice(findings.opened, params=names, target_name="Dice")
    numbered = visualization.plot_slice(findings.opened, params=names, **NUMBERS)
    colours = {findings.best: BEST, findings.notebook: NOTEBOOK}
    for trace, drawn in zip(figure.data, (trace.y for trace in numbered.data), strict=True):
        trace.update(
            marker={
                "showscale": False,
                "colorscale": None,
                "color": [colours.get(number, OTHER) for number in drawn],
                "size": [12 if number in colours else 8 for number in drawn],
            },
            text=[escape(findings.name(number)) for number in drawn],
            hovertemplate="%{text}<br>%{x}: %{y:.3f}<extra></extra>",
        )
    for axis in figure.select_xaxes(selector={"type": "log"}):
        axis.update(tickvals=LOG_TICKS, ticktext=[f"{value:g}" for value in LOG_TICKS])
    return figure


def _importances(findings: Findings) -> list[Block]:
    """Return the chart of importances, or why there is none."""
    trials = _complete(findings)
    if len(trials) < FEW:
        return [
            Text(
                f"Importances of the fields are left out: with {len(trials)} complete trials they would be chance "
                f"(shown from {FEW} on)."
            )
        ]
    if len({trial.value for trial in trials}) == 1:
        return [Text("Importances of the fields are left out: all complete trials have the same Dice.")]
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=findings.plan.study.seed)
    figure = visualization.plot_param_importances(findings.opened, evaluator=evaluator, target_name="Dice")
    always = [name for name in findings.fields() if all(name in trial.params for trial in trials)]
    left_out = [name for name in findings.fields() if name not in always]
    note = f" Left out, since they vary only under a condition: {', '.join(left_out)}." if left_out else ""
    figure.update_traces(marker={"color": BEST})
    figure.update_layout(height=90 + 34 * max(1, len(always)))
    figure.update_xaxes(title="share of the variance of Dice", range=[0, 1.15 * max(figure.data[0].x)])
    figure.update_yaxes(title=None)
    return [
        Chart(
            figure,
            f"Importance (fANOVA over {len(trials)} complete trials): the share of Dice's variance that a field "
            f"explains. Which of two similar ones is ahead is chance below some dozens of trials.{note}",
        )
    ]
