"""Footprints → mask and valid rasters on the grid of an image."""

import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely
from affine import Affine
from rasterio.crs import CRS
from rasterio.features import rasterize
from rasterio.transform import array_bounds

from sn7.catalog import LabelKind
from sn7.errors import LabelsUnreadable
from sn7.rasters import reproject

__all__ = ["Footprints", "rasterize_mask", "read_footprints", "valid_mask"]

Ring = list[list[float]]


@dataclass(frozen=True, eq=False)
class Footprints:
    """The usable footprints of a label file, and how many of its features are none."""

    path: Path
    kind: LabelKind
    crs: CRS | None
    """Of the coordinates; None for pixel coordinates, and for labels_match whose file does not say it."""
    geometries: npt.NDArray[np.object_]
    """Shapely polygons and multipolygons, 2-D, with their interior rings, in the order of the file."""
    null: int = 0
    """Features without a geometry."""
    empty: int = 0
    """Features whose geometry has no coordinates."""
    other: int = 0
    """Features that are no polygon: points, lines, rings of fewer than four positions."""

    def __len__(self) -> int:
        return len(self.geometries)

    @property
    def left_out(self) -> int:
        """Number of features that are not used."""
        return self.null + self.empty + self.other


def read_footprints(path: Path, kind: LabelKind) -> Footprints:
    """Read the footprints of a GeoJSON file from the label folder `kind`.

    Coordinates stay as they are in the file: pixels for labels_match_pix, else those of `crs`. Features that
    are null, empty or no polygon are left out and counted.
    Raises LabelsUnreadable where the file is damaged or is no GeoJSON FeatureCollection.
    """
    content = _parse(path)
    counts = {"null": 0, "empty": 0, "other": 0}
    kept: list[list[list[Ring]]] = []
    try:
        for feature in content["features"]:
            polygons, defect = _polygons(feature["geometry"])
            if defect:
                counts[defect] += 1
            else:
                kept.append(polygons)
        geometries = _build(kept)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise LabelsUnreadable(
            f"{path} has a feature whose geometry is no GeoJSON ({error!r}); wanted polygons of finite "
            "numbers: get the file again."
        ) from error
    return Footprints(path, kind, _crs(path, kind, content), geometries, **counts)


def rasterize_mask(
    footprints: Footprints, shape: tuple[int, int], transform: Affine, crs: CRS
) -> npt.NDArray[np.uint8]:
    """Return an image's mask, uint8 (height, width): 1 where a pixel's centre lies in a footprint, else 0.

    `transform` and `crs` are the image's; footprints in another CRS are reprojected.
    Raises LabelsUnreadable where there are footprints, but elsewhere than the image.
    """
    pixels = footprints.kind == "labels_match_pix"
    grid = Affine.identity() if pixels else transform
    geometries = footprints.geometries
    if not pixels and footprints.crs is not None and footprints.crs != crs:
        source = footprints.crs
        geometries = shapely.transform(geometries, lambda points: reproject(points, source, crs))
    if not len(geometries):
        return np.zeros(shape, np.uint8)
    _check_place(footprints.path, geometries, array_bounds(*shape, grid))
    # Part by part: GDAL fills all rings of one geometry by even-odd, so overlapping parts would cancel out.
    polygons = _geojson(shapely.get_parts(geometries))
    mask: npt.NDArray[np.uint8] = rasterize(polygons, out_shape=shape, transform=grid, dtype="uint8")
    return mask


def valid_mask(
    shape: tuple[int, int], alpha: npt.NDArray[np.uint8] | None, unusable: npt.NDArray[np.bool_] | None
) -> npt.NDArray[np.uint8]:
    """Return uint8 (height, width): 0 where `alpha` is 0 or `unusable` (the UDM) is True, else 1."""
    valid = np.ones(shape, np.uint8)
    if alpha is not None:
        valid[alpha == 0] = 0
    if unusable is not None:
        valid[unusable] = 0
    return valid


def _parse(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise LabelsUnreadable(f"{path} cannot be read as GeoJSON ({error}); get the file again.") from error
    features = content.get("features") if isinstance(content, dict) else None
    if not isinstance(features, list) or content.get("type") != "FeatureCollection":
        found = f"a {content.get('type')!r}" if isinstance(content, dict) else f"a {type(content).__name__}"
        raise LabelsUnreadable(
            f"{path} holds {found}; wanted a FeatureCollection with a list of features: get the file again."
        )
    return content


def _polygons(geometry: dict[str, Any] | None) -> tuple[list[list[Ring]], str]:
    """Return the polygons of a GeoJSON geometry as lists of rings, or no polygon and which defect it has."""
    if geometry is None:
        return [], "null"
    coordinates = geometry.get("coordinates", geometry.get("geometries"))
    kind = geometry["type"]
    if not coordinates:
        return [], "empty"
    if kind not in ("Polygon", "MultiPolygon"):
        return [], "other"
    parts = [coordinates] if kind == "Polygon" else coordinates
    polygons = [rings for rings in parts if rings and rings[0]]
    if any(len(ring) < 4 for rings in polygons for ring in rings):
        return [], "other"
    return polygons, "" if polygons else "empty"


def _build(geometries: list[list[list[Ring]]]) -> npt.NDArray[np.object_]:
    """Build all geometries at once; one by one would take several times the rasterising."""
    if not geometries:
        return np.empty(0, object)
    polygons = [polygon for geometry in geometries for polygon in geometry]
    rings = [ring for polygon in polygons for ring in polygon]
    points = np.array([position[:2] for ring in rings for position in ring], np.float64)
    if points.ndim != 2 or not np.isfinite(points).all():
        raise ValueError("a position is not two or three finite numbers")
    outlines = np.asarray(shapely.linearrings(points, indices=_owners(rings)))
    parts = np.asarray(shapely.polygons(outlines, indices=_owners(polygons)))
    multipolygons = np.asarray(shapely.multipolygons(parts, indices=_owners(geometries)))
    counts = np.array([len(geometry) for geometry in geometries])
    return np.where(counts == 1, parts[np.cumsum(counts) - counts], multipolygons)


def _owners(groups: list[list[Any]]) -> npt.NDArray[np.int64]:
    return np.repeat(np.arange(len(groups)), [len(group) for group in groups])


def _geojson(polygons: npt.NDArray[np.object_]) -> list[dict[str, Any]]:
    """Return polygons as GeoJSON, all at once: shapely's own way takes five times the rasterising."""
    _, points, (ring_starts, polygon_starts) = shapely.to_ragged_array(polygons)
    positions = points.tolist()
    rings = [positions[start:end] for start, end in pairwise(ring_starts.tolist())]
    return [{"type": "Polygon", "coordinates": rings[start:end]} for start, end in pairwise(polygon_starts.tolist())]


def _crs(path: Path, kind: LabelKind, content: dict[str, Any]) -> CRS | None:
    if kind == "labels_match_pix":
        return None  # whatever the file or a reader claims, these are pixels
    named = content.get("crs")
    if named is None:
        return CRS.from_user_input("OGC:CRS84") if kind == "labels" else None
    try:
        return CRS.from_user_input(named["properties"]["name"])
    except (KeyError, TypeError, ValueError) as error:
        raise LabelsUnreadable(
            f"{path} names a CRS that is not known, {named!r}; wanted an EPSG code: correct it."
        ) from error


def _check_place(path: Path, geometries: npt.NDArray[np.object_], image: tuple[float, float, float, float]) -> None:
    left, bottom, right, top = shapely.total_bounds(geometries).tolist()
    x_low, x_high, y_low, y_high = *sorted(image[::2]), *sorted(image[1::2])
    # Infinite bounds: a footprint lies outside of the image's projection, so its coordinates are of another.
    finite = np.isfinite([left, bottom, right, top]).all()
    if not (finite and left < x_high and right > x_low and bottom < y_high and top > y_low):
        raise LabelsUnreadable(
            f"{path} has {len(geometries)} footprints, but not on its image: they span x {left:.6g} … "
            f"{right:.6g}, y {bottom:.6g} … {top:.6g}, the image x {x_low:.6g} … {x_high:.6g}, "
            f"y {y_low:.6g} … {y_high:.6g}; wanted the same coordinates: correct the file or get it again."
        )
