"""A picture of a training: loss and Dice over the epochs, Dice over the threshold.

Apart from `figures`, so that a training can draw it on a node that has no geospatial library.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sn7.files import atomic_file
from sn7.history import EpochMetrics
from sn7.metrics import BINS, ThresholdCurve

__all__ = ["draw_curves"]


def draw_curves(history: Sequence[EpochMetrics], curve: ThresholdCurve, path: Path) -> None:
    """Write losses, validation metrics and the threshold curve of the kept epoch as PNG, atomically."""
    figure = Figure(figsize=(12, 3.6), dpi=100, layout="constrained")
    loss, metrics, threshold = figure.subplots(1, 3)
    _over_epochs(loss, history, {"training": "train_loss", "validation": "valid_loss"})
    loss.set(title="Loss", xlabel="epoch")
    _over_epochs(metrics, history, {name: name.lower() for name in ("Dice", "precision", "recall")})
    best = max(history, key=lambda epoch: epoch.dice)
    metrics.axvline(best.epoch, color="0.5", linewidth=0.8, linestyle=":")
    metrics.set(title=f"Validation, best Dice {best.dice:.3f} at epoch {best.epoch}", xlabel="epoch", ylim=(0, 1))
    _over_thresholds(threshold, curve)
    for axes in (loss, metrics, threshold):
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    with atomic_file(path) as temporary:
        figure.savefig(temporary, format="png")


def _over_epochs(axes: Axes, history: Sequence[EpochMetrics], lines: dict[str, str]) -> None:
    epochs = [epoch.epoch for epoch in history]
    marker = "." if len(epochs) < 3 else ""
    for label, name in lines.items():
        axes.plot(epochs, [getattr(epoch, name) for epoch in history], label=label, marker=marker)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _over_thresholds(axes: Axes, curve: ThresholdCurve) -> None:
    best = curve.best_threshold()
    axes.plot(np.arange(BINS) / BINS, curve.dice(), label="Dice")
    axes.axvline(0.5, color="0.5", linewidth=0.8, linestyle=":", label=f"0.5: {curve.counts(0.5).dice:.3f}")
    axes.axvline(best, color="tab:orange", linewidth=0.8, label=f"{best:.2f}: {curve.counts(best).dice:.3f}")
    axes.set(title="Dice over the threshold, kept epoch", xlabel="threshold on probs", xlim=(0, 1), ylim=(0, 1))
