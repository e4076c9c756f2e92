"""Every image of a data set → the few numbers that tables, charts and the choice of pictures need.

One pass over the files, several at a time, each read once and let go of; what stays is about a kilobyte an image.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np

from sn7.catalog import Image
from sn7.explore.view import View, read_view
from sn7.parallel import each
from sn7.tiles import tile_starts, training_slack

__all__ = ["ImageNumbers", "TileNumbers", "survey"]


class TileNumbers(NamedTuple):
    """A training tile: its first row and column, and how many of its pixels are what."""

    row: int
    col: int
    valid: int
    building: int
    """Of the valid ones."""

    @property
    def share(self) -> float:
        """Share of the valid pixels that are building, 0 to 1."""
        return self.building / self.valid


@dataclass(frozen=True)
class ImageNumbers:
    """What is remembered of an image."""

    image: Image
    shape: tuple[int, int]
    """Height and width in pixels."""
    lon: float
    lat: float
    """Centre, degrees."""
    ground_m: float
    """Width of a pixel on the ground, metres."""
    unusable_share: float
    """Share of the pixels that alpha or UDM makes unusable, 0 to 1."""
    labelled: bool
    footprints: int
    left_out: int
    """Features of the label file that are no usable footprint."""
    valid: int
    """Pixels that are usable and labelled: 0 of an unlabelled image."""
    building: int
    """Of these."""
    tiles: tuple[TileNumbers, ...]
    """The tiles that training cuts from it; none of an unlabelled image."""


def survey(images: Sequence[Image], tile_size: int, workers: int | None = None) -> list[ImageNumbers]:
    """Measure images, in their order, `workers` at a time (default: as many as cores, if there is enough to do).

    Raises ImageUnreadable or LabelsUnreadable at the first file that cannot be read, ConfigError where `workers` is
    below 1.
    """
    return list(each(partial(_measure, tile_size=tile_size), images, workers, "survey"))


def _measure(image: Image, tile_size: int) -> ImageNumbers:
    view = read_view(image)
    valid = view.valid if view.labelled else np.zeros_like(view.valid)
    return ImageNumbers(
        image=image,
        shape=view.shape,
        lon=view.lon,
        lat=view.lat,
        ground_m=view.ground_m,
        unusable_share=view.unusable_share,
        labelled=view.labelled,
        footprints=len(view.footprints or ()),
        left_out=view.footprints.left_out if view.footprints is not None else 0,
        valid=int(np.count_nonzero(valid)),
        building=int(np.count_nonzero(view.mask & valid)),
        tiles=tuple(_tiles(view, tile_size)) if view.labelled else (),
    )


def _tiles(view: View, size: int) -> Iterator[TileNumbers]:
    """Count in the tiles that `sn7.tiles.training_tiles` cuts without overlap; a small remainder is dropped."""
    building = view.mask & view.valid
    rows, cols = (tile_starts(length, size, 0, training_slack(size)) for length in view.shape)
    for row in rows:
        for col in cols:
            window = slice(row, row + size), slice(col, col + size)
            yield TileNumbers(
                row, col, int(np.count_nonzero(view.valid[window])), int(np.count_nonzero(building[window]))
            )
