"""Axes for pictures of the ground: pixels as they are, a title, a scale bar; legible when 830 px wide."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from sn7.files import atomic_file

__all__ = [
    "COLOURS",
    "DPI",
    "FONT",
    "INVALID",
    "SMALL",
    "TITLE",
    "WIDTH",
    "mask_picture",
    "new_sheet",
    "save",
    "scale_bar",
    "short_name",
    "show",
]

WIDTH = 9.0
"""Of a figure, inches: 830 px wide, a point of type is 1.3 px."""
TITLE, FONT, SMALL = 12, 9.5, 8.5
"""Sizes of type, points."""
DPI = 150
INVALID = 128
"""Grey of pixels that are unusable, unlabelled or not there."""
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9")
"""Okabe and Ito's, which the colour-blind tell apart."""


def short_name(scene: str) -> str:
    """Return a scene's name without what all names share: 1615E-1205N_6460_3370 of L15-1615E-1205N_6460_3370_13."""
    return scene.removeprefix("L15-").removesuffix("_13")


def new_sheet(count: int, columns: int, title: str, head: float) -> tuple[Figure, list[Axes]]:
    """Return a figure with `count` square panels in rows of `columns`, each with room for `head` inches of title.

    Fewer panels than columns are as wide as half the figure at most.
    """
    columns = max(1, min(columns, count))
    rows, side = -(-count // columns), min(WIDTH / columns, WIDTH / 2)
    figure = Figure((side * columns, rows * (side + head) + 0.5), DPI, layout="compressed")
    figure.suptitle(title, fontsize=TITLE)
    axes = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for spare in axes[count:]:
        spare.set_axis_off()
    return figure, axes[:count]


def show(axes: Axes, pixels: npt.NDArray[np.uint8], title: str) -> None:
    """Draw an image, uint8 RGB (3, h, w), without ticks, below its title."""
    axes.imshow(pixels.transpose(1, 2, 0), interpolation_stage="rgba")
    axes.set_title(title, fontsize=SMALL, pad=3)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def mask_picture(mask: npt.NDArray[np.uint8], valid: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return a mask as uint8 RGB (3, h, w): building white, background black, invalid grey."""
    grey = np.where(valid > 0, mask * np.uint8(255), np.uint8(INVALID))
    return np.repeat(grey[None], 3, axis=0)


def scale_bar(axes: Axes, ground_m: float) -> None:
    """Draw a bar of a round length, at most 0.4 of the width, at the lower left of an image of `ground_m` a pixel."""
    right, low = axes.get_xlim()[1], axes.get_ylim()[0]
    metres = round_length(0.4 * right * ground_m)
    start, height = 0.04 * right, low - 0.06 * abs(low - axes.get_ylim()[1])
    axes.plot(
        [start, start + metres / ground_m],
        [height, height],
        color="white",
        linewidth=2.5,
        solid_capstyle="butt",
        path_effects=[withStroke(linewidth=4.5, foreground="black")],
    )
    label = f"{metres / 1000:g} km" if metres >= 1000 else f"{metres:g} m"
    outline = [withStroke(linewidth=2.5, foreground="black")]
    axes.annotate(
        label, (start, height), (0, 4), textcoords="offset points", color="white", size=SMALL, path_effects=outline
    )


def round_length(longest: float) -> float:
    """Return the greatest 1, 2 or 5 times a power of ten that is at most `longest`."""
    power: float = 10.0 ** np.floor(np.log10(longest))
    return next(step * power for step in (5, 2, 1) if step * power <= longest * (1 + 1e-9))


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, atomically."""
    with atomic_file(path) as temporary:
        figure.savefig(temporary, format="png", bbox_inches="tight", pad_inches=0.06)
