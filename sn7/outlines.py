"""Labelled pixels and their probs → outlines between the pixels, by marching squares.

An outline runs where the probs, linear from one pixel's centre to the next, pass the threshold. Between two pixels of
different labels it runs where the excess of their probs over the threshold is equal, so that neighbours share it; along
what is invalid, and along the raster's border, it follows the outer edge of the pixels.
"""

import contourpy
import numpy as np
import numpy.typing as npt
import shapely
from scipy import ndimage

__all__ = ["outlines"]

Labels = npt.NDArray[np.int32]
Field = npt.NDArray[np.float32]

CLEAR = 1e-3
"""Least distance of the field from 0: an outline never meets the centre of a pixel, where it could touch itself."""
ROUNDING = 1e-5
NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))
"""Steps, in rows and columns, to half of a pixel's eight neighbours; the others have it for theirs."""


def outlines(
    labels: Labels, probs: npt.NDArray[np.float32], threshold: float
) -> tuple[npt.NDArray[np.object_], npt.NDArray[np.int64]]:
    """Return polygons with their holes, in pixel coordinates, and the label of each; one for each label.

    `labels` (h, w) are 0 where no building is, each other a 4-connected region of pixels with probs (h, w) of
    `threshold` or more. Pixel coordinates: column and row, the centre of the first pixel is at (0.5, 0.5).
    """
    padded = np.pad(labels, 1)
    field = _field(padded, probs, threshold)
    colours = _colours(padded)
    away = -np.abs(field)
    used = range(1, int(colours.max()) + 1)
    found = [_contours(np.where(colours == colour, field, away), padded) for colour in used]
    if not found:
        return np.empty(0, object), np.empty(0, np.int64)
    polygons, owners = (np.concatenate(parts) for parts in zip(*found, strict=True))
    order = np.argsort(owners, kind="stable")
    return polygons[order], owners[order]


def _field(padded: Labels, probs: npt.NDArray[np.float32], threshold: float) -> Field:
    """Return probs - threshold (h + 2, w + 2), positive exactly where a label is, mirrored where nothing is known."""
    excess = np.pad(probs - np.float32(threshold), 1, constant_values=np.nan)
    unknown = np.isnan(excess)
    # As far below as the highest neighbour is above: the outline then runs half way, along the pixel's edge.
    highest = ndimage.maximum_filter(np.where(padded > 0, excess, 0), 3)
    excess = np.where(unknown, -highest, excess)
    return np.where(padded > 0, np.maximum(excess, CLEAR), np.minimum(excess, -CLEAR))


def _colours(padded: Labels) -> npt.NDArray[np.uint8]:
    """Return a colour from 1 for each label's pixels, another one than that of any label beside it, 0 for no label."""
    beside: dict[int, set[int]] = {}
    for one, other in _touching(padded):
        beside.setdefault(one, set()).add(other)
        beside.setdefault(other, set()).add(one)
    colour_of = np.ones(int(padded.max()) + 1, np.uint8)
    colour_of[0] = 0
    chosen: dict[int, int] = {}
    for label, others in beside.items():
        taken = {chosen.get(other) for other in others}
        chosen[label] = next(colour for colour in range(1, 256) if colour not in taken)
    colour_of[list(chosen)] = list(chosen.values())
    return colour_of[padded]


def _touching(padded: Labels) -> list[list[int]]:
    """Return the pairs of labels of which two pixels are neighbours, corners included."""
    pairs = []
    for down, right in NEIGHBOURS:
        first = padded[: padded.shape[0] - down, max(-right, 0) : padded.shape[1] - max(right, 0)]
        second = padded[down:, max(right, 0) : padded.shape[1] + min(right, 0)]
        differ = (first != second) & (first > 0) & (second > 0)
        pairs.append(np.column_stack([first[differ], second[differ]]))
    return np.unique(np.concatenate(pairs), axis=0).tolist()


def _contours(field: Field, padded: Labels) -> tuple[npt.NDArray[np.object_], npt.NDArray[np.int64]]:
    """Return the polygons of a field's positive parts, in pixel coordinates, and their labels."""
    generator = contourpy.contour_generator(z=field, fill_type=contourpy.FillType.ChunkCombinedOffsetOffset)
    points, rings, polygons = (chunks[0] for chunks in generator.filled(0, np.inf))
    if points is None or rings is None or polygons is None:
        return np.empty(0, object), np.empty(0, np.int64)
    found = shapely.from_ragged_array(
        shapely.GeometryType.POLYGON, points - 0.5, (rings.astype(np.int64), polygons.astype(np.int64))
    )
    # An outer ring's first point lies between two pixels, of which one has the label; contourpy rounds along the edge.
    first = points[rings[polygons[:-1]]]
    low, high = np.floor(first + ROUNDING).astype(int), np.ceil(first - ROUNDING).astype(int)
    inside = field[low[:, 1], low[:, 0]] > 0
    corner = np.where(inside[:, None], low, high)
    return found, padded[corner[:, 1], corner[:, 0]].astype(np.int64)
