"""Geometries in whatever CRS → their true area on the ground."""

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import shapely
from pyproj import Transformer

__all__ = ["ground_m2"]

EQUAL_AREA = "+proj=cea +ellps=WGS84"
"""Of true area on the WGS 84 ellipsoid, everywhere; the metres of EPSG:3857 are 1/cos(latitude) too long."""


def ground_m2(geometries: gpd.GeoSeries) -> npt.NDArray[np.float64]:
    """Return the area of each geometry, m²: they have a CRS, and lie around one place, the antimeridian or another."""
    if not len(geometries):
        return np.empty(0)
    left, bottom, right, top = geometries.total_bounds
    to_lonlat = Transformer.from_crs(geometries.crs, 4326, always_xy=True)
    lon, _ = to_lonlat.transform((left + right) / 2, (bottom + top) / 2)
    # The projection is torn apart opposite of lon_0, and with it what would lie there.
    areas: npt.NDArray[np.float64] = shapely.area(geometries.to_crs(f"{EQUAL_AREA} +lon_0={lon:.6f}").array)
    return areas
