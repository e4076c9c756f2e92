"""The figure of a scene's growth: buildings and built-up area by month, with intervals."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.dates import ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sn7.explore.ground import COLOURS, DPI, FONT, SMALL, TITLE, WIDTH, save, short_name

__all__ = ["draw_growth"]

CLOUDY = 0.9
"""Share of valid pixels below which a month is marked."""
HECTARE = 10_000.0
"""m²"""


def draw_growth(table: pd.DataFrame, path: Path) -> None:
    """Write the figure of one scene's table, as `sn7.changes.counts.growth` makes it, as PNG, atomically."""
    figure = Figure((WIDTH, 6.2), DPI, layout="constrained")
    above, below, bars = figure.subplots(3, 1, sharex=True, height_ratios=(4, 4, 2))
    scale = table[["area_m2", "area_low", "area_high"]] / HECTARE
    dates = table["month"].to_numpy("datetime64[M]").astype("datetime64[D]")
    invalid = table["valid_share"].to_numpy() < CLOUDY
    _draw_line(above, dates, table[["buildings", "buildings_low", "buildings_high"]], invalid, COLOURS[0])
    _draw_line(below, dates, scale, invalid, COLOURS[2])
    bars.bar(dates, table["new_buildings"], width=20, color=COLOURS[1])
    above.set_title(f"{short_name(str(table['scene'].iloc[0]))}: buildings and built-up area by month", fontsize=TITLE)
    for axes, label in ((above, "buildings"), (below, "built-up area (ha)"), (bars, "new buildings")):
        axes.set_ylabel(label, fontsize=FONT)
        axes.tick_params(labelsize=SMALL)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in (above, bars):
        axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    bars.xaxis.set_major_formatter(ConciseDateFormatter(bars.xaxis.get_major_locator()))
    above.legend(fontsize=SMALL, frameon=False, loc="upper left")
    save(figure, path)


def _draw_line(axes: Axes, dates: np.ndarray, values: pd.DataFrame, invalid: np.ndarray, colour: str) -> None:
    middle, low, high = (values[name].to_numpy(float) for name in values)
    axes.fill_between(dates, low, high, color=colour, alpha=0.2, linewidth=0, label="95 % interval")
    axes.plot(dates, middle, color=colour, linewidth=1.8, label="tracked")
    axes.plot(dates[~invalid], middle[~invalid], "o", color=colour, markersize=4)
    label = f"less than {CLOUDY:.0%} of the pixels valid"
    axes.plot(dates[invalid], middle[invalid], "o", color=colour, markersize=5, markerfacecolor="white", label=label)
