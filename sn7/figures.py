"""Pictures for people: polygons over their image."""

from pathlib import Path

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import shapely
from affine import Affine
from PIL import Image, ImageDraw

from sn7.panels import save_picture

__all__ = ["preview"]

_OUTLINE = (255, 235, 0)  # yellow stands out from vegetation, soil and roofs, also for the colour-blind


def preview(rgb: npt.NDArray[np.uint8], polygons: gpd.GeoDataFrame, transform: Affine, path: Path) -> None:
    """Write the image, uint8 RGB (3, h, w), with the outlines of its polygons, as PNG, atomically.

    `transform` is the image's; the polygons are in the same CRS. Small images are enlarged 2 to 4 times, so
    that an outline is thinner than the pixels along which it runs.
    """
    height, width = rgb.shape[1:]
    scale = min(max(round(2048 / max(height, width)), 1), 4)
    picture = Image.fromarray(np.ascontiguousarray(rgb.transpose(1, 2, 0)))
    picture = picture.resize((width * scale, height * scale), Image.Resampling.NEAREST)
    draw = ImageDraw.Draw(picture)
    for ring in shapely.get_rings(polygons.geometry.affine_transform((~transform).to_shapely()).array):
        corners = np.minimum(np.rint(shapely.get_coordinates(ring) * scale), (picture.width - 1, picture.height - 1))
        draw.line(corners.ravel().tolist(), fill=_OUTLINE, width=1)
    save_picture(picture, path)
