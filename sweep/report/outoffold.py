"""What models are worth on scenes that they did not see: scene by scene, over thresholds, against their own probs."""

from html import escape

import numpy as np
import plotly.graph_objects as go

from sn7.metrics import BINS, ThresholdCurve
from sweep.report.findings import Findings, short_names
from sweep.report.page import Chart, Section, Table, Text
from sweep.report.style import BEST, NOTEBOOK, OTHER
from sweep.scoring import OutOfFold

__all__ = ["calibration", "scenes", "thresholds"]

GROUPS = 16
"""Ranges of probs in which a calibration curve is averaged."""
LEAST = 100
"""Pixels that a range needs to be shown."""


def scenes(findings: Findings) -> Section:
    """Return the ensemble's Dice on each scene, with intervals, the notebook recipe beside it where it is known."""
    figure = go.Figure()
    found = [scene for fold in _ensemble(findings).folds for scene in fold.scenes]
    counts = _ensemble(findings).by_scene
    order = sorted(found, key=lambda scene: counts[scene.scene].dice)
    names = {scene: escape(name) for scene, name in short_names([scene.scene for scene in found]).items()}
    shown = _shown(findings)
    for number, (name, scored, colour) in enumerate(shown):
        beside = 0.15 * (2 * number - len(shown) + 1)  # so that one does not hide the other
        known = {s.scene: (s, fold.threshold) for fold in scored.folds for s in fold.scenes}
        dice = [scored.by_scene[scene.scene].dice for scene in order]
        intervals = [known[scene.scene][0].interval(known[scene.scene][1], findings.plan.study.seed) for scene in order]
        ends = [interval or (value, value) for value, interval in zip(dice, intervals, strict=True)]
        figure.add_scatter(
            x=dice,
            y=[at + beside for at in range(len(order))],
            error_x={
                "array": [high - value for value, (_, high) in zip(dice, ends, strict=True)],
                "arrayminus": [value - low for value, (low, _) in zip(dice, ends, strict=True)],
                "thickness": 1.2,
                "width": 3,
            },
            mode="markers",
            marker={"color": colour, "size": 9},
            name=name,
            customdata=[[escape(scene.scene), low, high] for scene, (low, high) in zip(order, ends, strict=True)],
            hovertemplate="%{customdata[0]}<br>%{x:.3f}, %{customdata[1]:.3f} to %{customdata[2]:.3f}<extra></extra>",
        )
    figure.add_scatter(
        x=[scene.ceiling.dice for scene in order],
        y=list(range(len(order))),
        mode="markers",
        marker={"symbol": "line-ns-open", "size": 12, "color": "#555"},
        name="limit of the labels' resolution",
        hovertemplate="%{x:.3f}<extra></extra>",
    )
    figure.update_xaxes(title="Dice, out of fold", range=[0, 1.02])
    figure.update_yaxes(tickvals=list(range(len(order))), ticktext=[names[scene.scene] for scene in order])
    figure.update_layout(height=150 + 30 * len(order))
    return Section(
        "Scene by scene",
        [
            Text(
                "Each scene is predicted by models of the last epoch that did not train on it, at a threshold fitted "
                "on the other folds. The bars are 95 % intervals: of a scene cut into 8 × 8 blocks, blocks are drawn "
                "with all their months, since pixels and months beside each other are no further evidence. They say "
                f"nothing of other scenes.{findings.as_tuned}"
            ),
            Chart(figure),
            Table(*_scene_table(findings), folded="The same as a table"),
        ],
    )


def _scene_table(findings: Findings) -> tuple[list[str], list[list[object]]]:
    columns = ["scene", "fold", "images", "threshold", "Dice", "IoU", "precision", "recall", "limit"]
    rows: list[list[object]] = [
        [scene.scene, fold.fold, len(scene.images), fold.threshold, *counts.metrics().values(), scene.ceiling.dice]
        for fold in _ensemble(findings).folds
        for scene in fold.scenes
        for counts in [scene.curve.counts(fold.threshold)]
    ]
    return columns, sorted(rows, key=lambda row: str(row[0]))


def thresholds(findings: Findings) -> Section:
    """Return Dice over the threshold: of all folds together, and of each."""
    scored, figure = _ensemble(findings), go.Figure()
    at = np.arange(BINS) / BINS
    for fold in scored.folds:
        figure.add_scatter(
            x=at,
            y=fold.curve.dice(),
            line={"color": OTHER, "width": 1},
            name="each fold",
            showlegend=fold is scored.folds[0],
        )
    figure.add_scatter(
        x=[fold.threshold for fold in scored.folds],
        y=[fold.counts.dice for fold in scored.folds],
        mode="markers",
        marker={"color": OTHER, "size": 9},
        name="fitted on the other folds",
    )
    for name, model, colour in _shown(findings):
        figure.add_scatter(x=at, y=_curve(model).dice(), line={"color": colour, "width": 3}, name=f"{name}, all folds")
    if all(fold.weights == findings.candidates[-1].weights for fold in scored.folds):  # else it is of another curve
        figure.add_vline(x=scored.threshold, line={"color": BEST, "width": 1, "dash": "dash"})
    figure.update_xaxes(title="threshold on probs", range=[0, 1])
    figure.update_yaxes(title="Dice", rangemode="tozero")
    figure.update_layout(height=400)
    words = (
        f"Fitted on all folds, the ensemble's threshold is {scored.threshold:.2f}: Dice {scored.optimistic.dice:.3f} "
        "there is optimistic, since the same scenes chose it. Nested, each fold with what was fitted on the others "
        f"(dots), it is {scored.counts.dice:.3f}.{findings.as_tuned}"
    )
    return Section("Dice over the threshold", [Text(words), Chart(figure)])


def calibration(findings: Findings) -> Section:
    """Return how many pixels of each prob are buildings."""
    figure = go.Figure()
    figure.add_scatter(
        x=[0, 1], y=[0, 1], mode="lines", line={"color": OTHER, "dash": "dot"}, name="as promised", hoverinfo="skip"
    )
    errors = []
    for name, scored, colour in _shown(findings):
        probs, share, pixels = _reliability(_curve(scored))
        enough = pixels >= LEAST
        errors.append(f"{name} {np.average(abs(probs - share), weights=pixels):.3f}" if pixels.any() else "")
        figure.add_scatter(
            x=probs[enough],
            y=share[enough],
            customdata=pixels[enough],
            mode="lines+markers",
            line={"color": colour, "width": 2},
            name=name,
            hovertemplate="probs %{x:.2f}: %{y:.1%} of %{customdata:,} pixels are building<extra></extra>",
        )
    figure.update_xaxes(title="mean prob", range=[0, 1])
    figure.update_yaxes(title="share of buildings", range=[0, 1])
    figure.update_layout(height=400)
    words = (
        "Of the pixels with a prob of 0.7, seven in ten should be building. A loss that weights buildings lifts all "
        "probs; the threshold makes up for that, a sum of probs would not. Mean distance over all pixels: "
        f"{', '.join(errors)}."
    )
    return Section("Calibration", [Text(words), Chart(figure)])


def _reliability(curve: ThresholdCurve) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return mean prob, share of building pixels, and number of pixels of each range of probs."""
    building = curve.building.reshape(GROUPS, -1).astype(float)
    pixels = building + curve.background.reshape(GROUPS, -1)
    centres = ((np.arange(BINS) + 0.5) / BINS).reshape(GROUPS, -1)
    total = pixels.sum(axis=1)
    some = np.maximum(total, 1)
    return (pixels * centres).sum(axis=1) / some, building.sum(axis=1) / some, total


def _ensemble(findings: Findings) -> OutOfFold:
    return findings.candidates[-1].scored


def _curve(scored: OutOfFold) -> ThresholdCurve:
    return sum((fold.curve for fold in scored.folds), start=ThresholdCurve.empty())


def _shown(findings: Findings) -> list[tuple[str, OutOfFold, str]]:
    """Return what is drawn with its colour: the notebook recipe, where it was cross-validated, then the ensemble."""
    *others, chosen = findings.candidates
    recipe = [(other.name, other.scored, NOTEBOOK) for other in others if list(other.weights) == [findings.notebook]]
    return [*recipe, (chosen.name, chosen.scored, BEST)]
