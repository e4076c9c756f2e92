"""A map of a data set's scenes, coloured by fold, with the clusters that folds keep together."""

from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from string import ascii_uppercase

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from sn7.explore.ground import COLOURS, DPI, FONT, SMALL, TITLE, WIDTH, save, short_name
from sn7.explore.numbers import Surveyed
from sn7.folds import CLUSTER_KM

__all__ = ["draw_map"]

MARKERS = ("o", "s", "^", "D", "v")
"""Of folds, so that they differ by more than colour."""
GREY = "0.5"
"""Of scenes to predict, which lie below the others."""
MARGIN = 5.0
"""Degrees between the outermost scenes and the border, at least."""
LINES, NAMES = 14, 4
"""Clusters listed, and scenes of each, at most; numbers.json has all."""


def draw_map(found: Surveyed, path: Path) -> None:
    """Write the map on a graticule of longitude and latitude; letters mark clusters of several scenes, listed below."""
    places = {name: (images[0].lon, images[0].lat) for name, images in found.scenes.items()}
    west, east, south, north = _extent(list(places.values()))
    together = dict(zip(_letters(), (names for names in found.clusters if len(names) > 1), strict=False))
    groups, listing = list(_groups(found)), _listing(together)
    below = 0.2 * max(len(groups), 1 + listing.count("\n"))
    height = WIDTH * (north - south) / (east - west)
    figure = Figure((WIDTH, height + below + 0.3), DPI, layout="constrained")
    axes, notes = figure.subplots(2, 1, height_ratios=[height, below])
    for label, colour, marker, names in groups:
        lons, lats = np.transpose([places[name] for name in names])
        axes.plot(
            lons,
            lats,
            marker,
            color=colour,
            markersize=8,
            markeredgecolor="white",
            label=label,
            zorder=2 + (colour != GREY),
        )
    for letter, names in together.items():
        axes.annotate(letter, places[names[0]], (5, 4), textcoords="offset points", size=FONT, weight="bold")
    axes.set(xlim=(west, east), ylim=(south, north), aspect="equal")
    axes.set_title(_title(found), fontsize=TITLE)
    _graticule(axes)
    notes.set_axis_off()
    notes.legend(*axes.get_legend_handles_labels(), loc="upper left", fontsize=SMALL, frameon=False)
    notes.text(0.4, 0.97, listing, va="top", fontsize=SMALL, linespacing=1.4)
    save(figure, path)


def _title(found: Surveyed) -> str:
    folds = f"in {len(found.folds)} folds" if found.folds else "no folds, which take two clusters with labels"
    scenes, clusters = len(found.training), len(found.clusters)
    return f"{scenes} scene{'s' * (scenes != 1)} to train on: {clusters} cluster{'s' * (clusters != 1)}, {folds}"


def _groups(found: Surveyed) -> Iterator[tuple[str, str, str, list[str]]]:
    """Yield label, colour, marker and scenes of each group of points that there is."""
    for number, fold in enumerate(found.folds):
        pixels = sum(found.building_pixels(name) or 0 for name in fold)
        label = f"fold {number}: {len(fold)} scene{'s' * (len(fold) != 1)}, {pixels:,} building px"
        yield label, COLOURS[number], MARKERS[number], fold
    loose = sorted(found.training.difference(*found.folds))
    if loose:
        yield f"in no fold ({len(loose)})", "black", "P", loose
    final = [scene.name for scene in found.catalog.final]
    if final:
        yield f"to predict ({len(final)})", GREY, "X", final


def _extent(places: Sequence[tuple[float, float]]) -> tuple[float, float, float, float]:
    """Return west, east, south and north in degrees: all places, a margin, and 0.3 to 0.55 times as high as wide."""
    low, high = np.min(places, axis=0), np.max(places, axis=0)
    centre, half = (low + high) / 2, (high - low) / 2 * 1.05 + MARGIN
    width = max(half[0], half[1] / 0.55)
    height = max(half[1], width * 0.3)
    return centre[0] - width, centre[0] + width, centre[1] - height, centre[1] + height


def _graticule(axes: Axes) -> None:
    for axis, ends in ((axes.xaxis, "WE"), (axes.yaxis, "SN")):
        axis.set_major_locator(MaxNLocator(8, steps=[1, 1.5, 3, 6, 10]))
        axis.set_major_formatter(FuncFormatter(lambda value, _, ends=ends: _degrees(value, ends)))
    axes.tick_params(labelsize=SMALL)
    axes.grid(color="0.85", linewidth=0.8)
    axes.set_axisbelow(True)


def _degrees(value: float, ends: str) -> str:
    return f"{abs(value):g}° {ends[int(value > 0)]}" if round(value, 6) else "0°"


def _letters() -> Iterator[str]:
    """Yield A to Z, then AA to ZZ."""
    yield from ascii_uppercase
    yield from map("".join, product(ascii_uppercase, repeat=2))


def _listing(together: dict[str, list[str]]) -> str:
    """Return one line for each cluster of several scenes."""
    if not together:
        return f"No two scenes to train on within {CLUSTER_KM:g} km of each other."
    lines = [f"Scenes within {CLUSTER_KM:g} km of each other, never in two folds:"]
    for letter, names in list(together.items())[:LINES]:
        more = f" and {len(names) - NAMES} more" * (len(names) > NAMES)
        lines.append(f"{letter}  {', '.join(map(short_name, names[:NAMES]))}{more}")
    if len(together) > LINES:
        lines.append(f"and {len(together) - LINES} more clusters, in numbers.json")
    return "\n".join(lines)
