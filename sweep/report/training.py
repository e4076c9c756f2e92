"""How the trials learned, and how far apart the seeds of one configuration lie."""

from html import escape
from statistics import fmean

import plotly.graph_objects as go

from sn7.history import EpochMetrics
from sweep.board import configuration_text
from sweep.report.findings import Findings
from sweep.report.page import Block, Chart, Section, Text
from sweep.report.style import BEST, NOTEBOOK, OTHER

__all__ = ["learning", "seeds"]


def learning(findings: Findings) -> Section | None:
    """Return Dice and loss over the epochs of all trials; None where no epoch was kept."""
    histories = {row["trial"]: findings.history(row["trial"]) for row in findings.rows}
    if not any(histories.values()):
        return None
    where = "" if len(findings.plan.validation) == 1 else " on the first of the folds"
    return Section(
        "Learning curves",
        [
            Chart(_curves(findings, histories, "dice", "validation Dice"), half=True),
            Chart(_curves(findings, histories, "valid_loss", "validation loss"), half=True),
            Text(f"Every trial{where}, pruned ones to where they were stopped; grey are all but the two named."),
        ],
    )


def _curves(findings: Findings, histories: dict[int, list[EpochMetrics]], metric: str, title: str) -> go.Figure:
    figure = go.Figure()
    order = sorted(findings.rows, key=lambda row: (row["trial"] == findings.best, bool(row["recipe"])))  # best on top
    for row in order:
        trial, history = row["trial"], histories[row["trial"]]
        colour = NOTEBOOK if row["recipe"] else BEST if trial == findings.best else OTHER
        varied = configuration_text({name: row[name] for name in findings.fields() if row.get(name, "") != ""})
        about = f"trial {trial}, {row['state'].lower()}<br>{escape(varied)}"
        figure.add_scatter(
            x=[epoch.epoch for epoch in history],
            y=[getattr(epoch, metric) for epoch in history],
            mode="lines+markers" if len(history) < 5 else "lines",
            line={"color": colour, "width": 1 if colour == OTHER else 3},
            opacity=0.7 if colour == OTHER else 1,
            name=findings.name(trial) + (" (best)" if trial == findings.best else ""),
            showlegend=colour != OTHER and bool(history),
            hovertemplate=f"{about}<br>epoch %{{x}}: %{{y:.3f}}<extra></extra>",
        )
    epochs = findings.plan.study.base.epochs
    return figure.update_xaxes(title="epoch", dtick=1 if epochs <= 10 else None).update_yaxes(title=title)


def seeds(findings: Findings) -> Section | None:
    """Return Dice of the best configurations with each seed; None where nothing was repeated."""
    known = {trial: dice for trial, dice in findings.repeats.items() if len(dice) > 1}
    if not known:
        return None
    figure = go.Figure()
    for trial, (own, *values) in known.items():
        name = findings.name(trial)
        colour = NOTEBOOK if trial == findings.notebook else BEST
        figure.add_scatter(
            x=[own, *values],
            y=[name] * (1 + len(values)),
            mode="markers",
            marker={"color": colour, "size": 10, "symbol": ["circle-open", *["circle"] * len(values)]},
            showlegend=False,
        )
        figure.add_scatter(
            x=[fmean(values)],
            y=[name],
            mode="markers",
            marker={"symbol": "line-ns-open", "size": 22, "color": "#222"},
            showlegend=False,
            hovertemplate="mean %{x:.3f}<extra></extra>",
        )
    figure.update_xaxes(title="Dice on the validation scenes")
    figure.update_yaxes(autorange="reversed")
    figure.update_layout(height=110 + 36 * len(known))
    caption = (
        "A dot is a training with a further seed, the stroke their mean. The ring is the trial itself, which was "
        "chosen for its Dice and is in no mean."
    )
    blocks: list[Block] = [Chart(figure, caption)]
    if findings.summary.get("noise"):
        blocks.insert(0, Text(findings.summary["noise"]))
    return Section("Seeds", blocks)
