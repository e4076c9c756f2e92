"""Pictures for people: polygons over their image."""

from pathlib import Path

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import shapely
from affine import Affine
from PIL import Image, ImageDraw

from sn7.panels import save_picture

__all__ = ["LONGEST", "Preview"]

LONGEST = 4096
"""Longest side, px, of a preview."""
_OUTLINE = (255, 235, 0)  # yellow stands out from vegetation, soil and roofs, also for the colour-blind


class Preview:
    """An image with the outlines of its polygons, drawn table by table as they come."""

    def __init__(self, rgb: npt.NDArray[np.uint8], shape: tuple[int, int], transform: Affine) -> None:
        """Take an image of `shape` in, uint8 RGB (3, h, w), itself or smaller, with the transform of the whole one.

        Small images are enlarged 2 to 4 times, so that an outline is thinner than the pixels along which it runs.
        """
        height, width = rgb.shape[1:]
        scale = min(max(round(LONGEST / 2 / max(height, width)), 1), 4)
        picture = Image.fromarray(np.ascontiguousarray(rgb.transpose(1, 2, 0)))
        self._picture = picture.resize((width * scale, height * scale), Image.Resampling.NEAREST)
        self._draw = ImageDraw.Draw(self._picture)
        self._end = (self._picture.width - 1, self._picture.height - 1)
        to_picture = Affine.scale(self._picture.width / shape[1], self._picture.height / shape[0])
        self._to_picture = (to_picture @ ~transform).to_shapely()

    def draw(self, polygons: gpd.GeoDataFrame) -> None:
        """Draw polygons, in the CRS of the image, with their holes."""
        for ring in shapely.get_rings(polygons.geometry.affine_transform(self._to_picture).array):
            corners = np.minimum(np.rint(shapely.get_coordinates(ring)), self._end)
            self._draw.line(corners.ravel().tolist(), fill=_OUTLINE, width=1)

    def save(self, path: Path) -> None:
        """Write the picture as PNG, atomically."""
        save_picture(self._picture, path)
