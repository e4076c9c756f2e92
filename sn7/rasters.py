"""GeoTIFF → arrays with their place on the earth.

Images are uint8 R, G, B (and alpha); predictions are probs or a mask. All are georeferenced, on a grid along the axes
of their CRS; anything else is refused with one sentence.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyproj
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from sn7.errors import ImageUnreadable

__all__ = [
    "Grid",
    "RasterImage",
    "RasterProbs",
    "read_grid",
    "read_image",
    "read_probs",
    "read_udm",
    "readable",
    "reproject",
    "require_bands",
    "require_grid",
    "require_place",
    "require_shape",
]


@dataclass(frozen=True)
class Grid:
    """Where the pixels of an image lie."""

    shape: tuple[int, int]
    """Height and width in pixels."""
    transform: Affine
    """Column and row → x and y in units of `crs`."""
    crs: CRS


@dataclass(frozen=True)
class RasterImage:
    """An image in memory."""

    rgb: npt.NDArray[np.uint8]
    """(3, height, width)"""
    alpha: npt.NDArray[np.uint8] | None
    """(height, width), 0 where the image is unusable; None where the file has no alpha band."""
    transform: Affine
    """Column and row → x and y in units of `crs`."""
    crs: CRS
    lon: float
    lat: float
    """Centre, degrees."""
    alpha_marked: bool
    """Whether the file calls its fourth band alpha, where it has one; it is taken for that whatever it is called."""

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.rgb.shape[1], self.rgb.shape[2]


@dataclass(frozen=True)
class RasterProbs:
    """Probs in memory."""

    probs: npt.NDArray[np.float32]
    """(height, width), 0 to 1; NaN where invalid."""
    transform: Affine
    """Column and row → x and y in units of `crs`."""
    crs: CRS
    threshold: float | None
    """That of the model, where the file's tags have it."""
    separation: npt.NDArray[np.float32] | None = None
    """(2, height, width), boundary and contact, 0 to 1, where the file has such bands."""
    pooled: bool = False
    """Whether they are pooled over several months, as the file's tags have it."""


def read_image(path: Path) -> RasterImage:
    """Read a GeoTIFF of 3 (R, G, B) or 4 (R, G, B, alpha) uint8 bands.

    Raises ImageUnreadable where the file is damaged, has other bands, no georeference or a rotated grid.
    """
    with _opened(path) as source:
        require_bands(path, source)
        require_grid(path, source)
        bands = source.read()
        transform, crs = source.transform, source.crs
        lon, lat = _centre(path, source)
        marked = source.count == 3 or source.colorinterp[3] == ColorInterp.alpha
    return RasterImage(bands[:3], bands[3] if len(bands) == 4 else None, transform, crs, lon, lat, marked)


def read_grid(path: Path) -> Grid:
    """Return the grid of a GeoTIFF, of which no pixel is read. Raises ImageUnreadable as `read_image` does."""
    with _opened(path) as source:
        require_grid(path, source)
        return Grid(source.shape, source.transform, source.crs)


def read_probs(path: Path, masks: bool = False) -> RasterProbs:
    """Read the probs that `sn7 predict` wrote: the first band of a GeoTIFF of floats, NaN where invalid.

    With `masks`, bytes are taken, too: 0 and 1, and the file's nodata value where invalid.
    Raises ImageUnreadable where the file is damaged, has other values, no georeference or a rotated grid.
    """
    with _opened(path) as source:
        if source.dtypes[0] not in ("float32", "float64", *(("uint8",) if masks else ())):
            raise ImageUnreadable(
                f"{path} has a first band of {source.dtypes[0]}; wanted probs, float32: give what `sn7 predict` wrote."
            )
        require_grid(path, source)
        probs = source.read(1, out_dtype="float32")
        if source.nodata is not None and not np.isnan(source.nodata):
            probs[probs == np.float32(source.nodata)] = np.nan
        tags = source.tags()
        transform, crs = source.transform, source.crs
        parted = source.descriptions[1:] == ("boundary", "contact")
        separation = source.read((2, 3), out_dtype="float32") if parted else None
    if np.nanmin(probs, initial=0) < 0 or np.nanmax(probs, initial=0) > 1:
        wanted = "probs, 0 to 1, or a mask of 0, 1 and a nodata value" if masks else "probs, 0 to 1"
        raise ImageUnreadable(
            f"{path} has values from {np.nanmin(probs):g} to {np.nanmax(probs):g}; wanted {wanted}: "
            "give what `sn7 predict` wrote."
        )
    return RasterProbs(probs, transform, crs, _number(tags.get("THRESHOLD")), separation, "POOL" in tags)


def _number(tag: str | None) -> float | None:
    """Return the number that a tag is; None where there is none, or it is no number."""
    try:
        return float(tag) if tag else None
    except ValueError:
        return None


def read_udm(path: Path, shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Read a mask of unusable pixels: bool (height, width), True where its first band is not 0.

    Raises ImageUnreadable where the file is damaged or has not the `shape` of its image.
    """
    with _opened(path) as source:
        require_shape(path, source, shape)
        unusable: npt.NDArray[np.bool_] = source.read(1) != 0
    return unusable


def reproject(points: npt.NDArray[np.float64], source: CRS, target: CRS) -> npt.NDArray[np.float64]:
    """Return points (n, 2) of one CRS in another, x or longitude first; inf where one has no place there."""
    # pyproj, since rasterio's own transform raises private errors for a point outside of a projection
    try:
        transformer = pyproj.Transformer.from_crs(source.to_wkt(), target.to_wkt(), always_xy=True)
    except pyproj.exceptions.ProjError:  # a local CRS, whose place on the earth nobody knows
        return np.full_like(points, np.inf, dtype=np.float64)
    return np.column_stack(transformer.transform(points[:, 0], points[:, 1]))


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Raise ImageUnreadable in place of whatever fails in the block for the sake of the GeoTIFF `path`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)  # require_grid says it, as an error
            yield
    except (RasterioError, OSError, MemoryError) as error:  # damage may make an image larger than any
        # rasterio's own sentence of a failed read is "see previous exception"; some begin with the path, as ours does
        reason = str(error.__cause__ or error).strip().rstrip(".").removeprefix(f"'{path}' ")
        raise ImageUnreadable(f"{path} cannot be read as a GeoTIFF ({reason}); get the file again.") from error


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    with readable(path), rasterio.open(path, driver="GTiff") as source:
        yield source


def require_shape(path: Path, source: Any, shape: tuple[int, int]) -> None:
    """Raise ImageUnreadable where an open mask of unusable pixels has not the `shape` of its image."""
    if source.shape != shape:
        raise ImageUnreadable(
            f"{path} is {_size(source.shape)}; wanted {_size(shape)}, as its image is: get both again."
        )


def require_bands(path: Path, source: Any) -> None:
    """Raise ImageUnreadable where an open GeoTIFF is neither RGB nor RGB and alpha, of uint8."""
    if source.count not in (3, 4) or set(source.dtypes) != {"uint8"}:
        found = f"{source.count} bands of {', '.join(sorted(set(source.dtypes)))}"
        raise ImageUnreadable(f"{path} has {found}; wanted 3 (RGB) or 4 (RGB, alpha) bands of uint8: convert it.")


def require_grid(path: Path, source: Any) -> None:
    """Raise ImageUnreadable where an open GeoTIFF has no CRS, no geotransform, or a grid not along the axes."""
    if source.crs is None or source.transform.is_identity:
        missing = "CRS" if source.crs is None else "geotransform"
        raise ImageUnreadable(
            f"{path} has no {missing}, so its place is unknown; wanted a georeferenced GeoTIFF: "
            "set it with gdal_edit, or get the file again."
        )
    _require_axes(path, source.transform)


def _require_axes(path: Path, transform: Affine) -> None:
    if transform.is_degenerate:
        raise ImageUnreadable(f"{path} has pixels without a width or height; wanted both: get the file again.")
    if transform.b != 0 or transform.d != 0:
        raise ImageUnreadable(
            f"{path} has a rotated grid; wanted rows and columns along the axes: warp it with gdalwarp."
        )


def require_place(path: Path, source: Any) -> bool:
    """Return whether an open GeoTIFF has a place on the earth, which it does not where it has no CRS.

    Raises ImageUnreadable where it has a CRS but no place in it, or a grid that is not along the axes.
    """
    if source.crs is None:
        _require_axes(path, source.transform)
        return False
    require_grid(path, source)
    _centre(path, source)
    return True


def _centre(path: Path, source: Any) -> tuple[float, float]:
    left, bottom, right, top = source.bounds
    centre = np.array([[(left + right) / 2, (bottom + top) / 2]])
    lon, lat = reproject(centre, source.crs, CRS.from_epsg(4326))[0].tolist()
    if 180 < lon <= 360:  # as it is where longitudes are counted from 0 to 360
        lon -= 360
    if not (-180 <= lon <= 180 and -90 <= lat <= 90):
        raise ImageUnreadable(
            f"{path} lies outside its CRS ({source.crs.to_string()}); wanted a place on the earth: get the file again."
        )
    return lon, lat


def _size(shape: tuple[int, int]) -> str:
    return f"{shape[0]} × {shape[1]} px (height × width)"
