"""Charts of a data set's numbers: building share per tile, unusable share by scene and month."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from sn7.explore.ground import COLOURS, DPI, FONT, SMALL, TITLE, WIDTH, save, short_name
from sn7.explore.numbers import Surveyed

__all__ = ["draw_building_share", "draw_unusable"]

SCENES = 80
"""Rows in the chart of unusable shares, at most: as many as SpaceNet 7 has scenes."""
MONTHS = 13
"""Names of months along an axis, at most."""


def draw_building_share(found: Surveyed, path: Path) -> None:
    """Write the histogram of the building share per tile, the tiles without a building in a colour of their own."""
    shares = found.tile_shares
    figure = Figure((WIDTH, 4.2), DPI, layout="constrained")
    axes = figure.subplots()
    _draw_bars(axes, found, int(np.count_nonzero(shares == 0)))
    axes.axvline(shares.mean(), color="black", label=f"mean {shares.mean():.1%}")
    axes.axvline(float(np.median(shares)), color="black", linestyle="--", label=f"median {np.median(shares):.1%}")
    counts = f"tiles: {len(shares):,}, side: {found.tile_size} px, labelled images: {len(found.labelled):,}"
    axes.set_title(f"Building share per tile ({counts})", fontsize=TITLE)
    axes.set_xlabel("building share of a tile's valid pixels", fontsize=FONT)
    axes.set_ylabel("tiles", fontsize=FONT)
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.tick_params(labelsize=SMALL)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=FONT, frameon=False)
    save(figure, path)


def _draw_bars(axes: Axes, found: Surveyed, empty: int) -> None:
    counts, edges = found.histogram()
    counts[0] -= empty
    kinds: dict[str, Any] = {"align": "edge", "edgecolor": "white"}
    axes.bar(edges[:-1], counts, np.diff(edges), color=COLOURS[0], label=f"with buildings ({counts.sum():,})", **kinds)
    axes.bar(0, empty, edges[1], counts[0], color=COLOURS[1], label=f"without a building ({empty:,})", **kinds)
    axes.set_xlim(0, edges[-1])


def draw_unusable(found: Surveyed, path: Path) -> None:
    """Write the unusable share of each scene (rows, the worst if there are many) and month; dots: unlabelled."""
    worst = sorted(found.scenes, key=lambda name: -max(image.unusable_share for image in found.scenes[name]))
    names = [name for name in found.scenes if name in set(worst[:SCENES])]
    months = _months(found)
    height = max(0.19 * len(names), 1.0)
    figure = Figure((WIDTH, height + 1.5), DPI, layout="constrained")
    axes = figure.subplots()
    shares, unlabelled = _table(found, names, months)
    most = max(float(np.nanmax(shares)), 1.0)
    cells = axes.pcolormesh(shares, cmap="Blues", norm=PowerNorm(0.5, 0, most), edgecolors="0.9", linewidth=0.5)
    bar = figure.colorbar(cells, ax=axes, aspect=max(15, 7 * height), pad=0.01)
    bar.set_label("% of the pixels", fontsize=FONT)
    bar.ax.tick_params(labelsize=SMALL)
    axes.set_facecolor("0.75")
    axes.fill_between([], [], color="0.75", label="no image")
    axes.plot(
        unlabelled[:, 1] + 0.5, unlabelled[:, 0] + 0.5, "ko", markersize=5, markeredgecolor="white", label="unlabelled"
    )
    _label_table(axes, found, names, months)
    axes.set_title(f"Unusable pixels by scene and month ({len(names)} of {len(found.scenes)} scenes)", fontsize=TITLE)
    figure.legend(loc="outside lower right", ncols=2, fontsize=SMALL, frameon=False)
    save(figure, path)


def _months(found: Surveyed) -> list[str]:
    """Return all months from the first to the last that there is an image of, also those without any."""
    dates = [image.image.date for image in found.images]
    return np.arange(np.datetime64(min(dates)), np.datetime64(max(dates)) + 1).astype(str).tolist()


def _table(
    found: Surveyed, names: list[str], months: list[str]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Return unusable shares in % (scenes, months), NaN without an image, and row and column of unlabelled images."""
    shares, unlabelled = np.full((len(names), len(months)), np.nan), []
    columns = {month: column for column, month in enumerate(months)}
    for row, name in enumerate(names):
        for image in found.scenes[name]:
            column = columns[image.image.date]
            shares[row, column] = 100 * image.unusable_share
            if name in found.training and not image.labelled:
                unlabelled.append((row, column))
    return shares, np.array(unlabelled, np.int64).reshape(-1, 2)


def _label_table(axes: Axes, found: Surveyed, names: list[str], months: list[str]) -> None:
    rows = [short_name(name) + ("" if name in found.training else " (to predict)") for name in names]
    axes.set_yticks(np.arange(len(names)) + 0.5, rows, fontsize=SMALL)
    step = -(-len(months) // MONTHS)
    axes.set_xticks(
        np.arange(len(months))[::step] + 0.5,
        months[::step],
        fontsize=SMALL,
        rotation=45,
        ha="right",
        rotation_mode="anchor",
    )
    axes.tick_params(length=0)
    axes.invert_yaxis()
