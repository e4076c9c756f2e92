"""The masks of benchmarks/preparation.py as the notebook makes them, and the least that any way has to do."""

import json

import geopandas
import numpy as np
import numpy.typing as npt
import rasterio
import shapely
from affine import Affine
from rasterio.features import rasterize

from sn7.catalog import Image

__all__ = ["limit_mask", "notebook_mask"]

Mask = npt.NDArray[np.uint8]


def notebook_mask(image: Image, shape: tuple[int, int], transform: Affine) -> Mask:
    """Return a mask, uint8 `shape`, as the notebook does, from labels in the CRS of the image.

    Corner after corner goes through the inverse transform in Python, and interior rings are filled.
    """
    to_pixel = ~transform
    polygons = []
    for geometry in geopandas.read_file(image.labels).geometry:
        for part in getattr(geometry, "geoms", [geometry]):
            outline = shapely.union_all(part).exterior
            polygons.append(shapely.Polygon([to_pixel @ corner for corner in np.array(outline.coords)]))
    mask: Mask = rasterize(polygons, out_shape=shape, dtype="uint8")
    return mask


def limit_mask(image: Image) -> Mask:
    """Read a GeoTIFF and its labels with the libraries alone, and rasterise once; return the mask, uint8."""
    assert image.labels is not None
    with rasterio.open(image.path) as source:
        source.read()
        shape, transform = source.shape, source.transform
    features = json.loads(image.labels.read_bytes())["features"]
    shapes = [feature["geometry"] for feature in features]
    mask: Mask = rasterize(shapes, out_shape=shape, transform=transform, dtype="uint8")
    return mask
