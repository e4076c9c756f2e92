"""A label file → its footprints, whatever state it is in."""

import gc
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
import shapely
from rasterio.crs import CRS

from sn7.catalog import LabelKind
from sn7.errors import LabelsUnreadable

__all__ = [
    "Footprints",
    "Offsets",
    "collector_paused",
    "packed",
    "read_footprints",
    "read_identified",
    "unpacked",
]

Ring = list[list[float]]
Offsets = npt.NDArray[np.integer[Any]]
STEPS = 1024
"""Of a pixel, to which packed footprints are rounded: what PROJ's versions differ in changes no byte of them."""


@dataclass(frozen=True, eq=False)
class Footprints:
    """The usable footprints of a label file, and how many of its features are none.

    Their corners lie in one array, in the order of the file: to make an object of each takes longer than the mask.
    """

    path: Path
    kind: LabelKind
    crs: CRS | None
    """Of the coordinates; None for pixel coordinates, and for labels_match whose file does not say it."""
    points: npt.NDArray[np.float64]
    """Corners (n, 2): column and row, or x and y, or longitude and latitude."""
    rings: Offsets
    """Ring i is points[rings[i]:rings[i + 1]]."""
    polygons: Offsets
    """Polygon i is the rings from polygons[i] to before polygons[i + 1], the outer one first."""
    starts: Offsets
    """Footprint i is the polygons from starts[i] to before starts[i + 1]."""
    null: int = 0
    """Features without a geometry."""
    empty: int = 0
    """Features whose geometry has no coordinates."""
    other: int = 0
    """Features that are no polygon: points, lines, rings of fewer than four positions."""

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def left_out(self) -> int:
        """Number of features that are not used."""
        return self.null + self.empty + self.other

    @cached_property
    def geometries(self) -> npt.NDArray[np.object_]:
        """Shapely polygons and multipolygons, 2-D, with their interior rings, in the order of the file."""
        offsets = self.rings, self.polygons, self.starts
        several = shapely.from_ragged_array(shapely.GeometryType.MULTIPOLYGON, self.points, offsets)
        return np.where(np.diff(self.starts) == 1, shapely.get_geometry(several, 0), several)


def packed(pixels: Footprints | None) -> npt.NDArray[np.uint8]:
    """Return footprints in pixel coordinates, or none, as bytes: one GEOMETRYCOLLECTION as WKB, uint8 (n,)."""
    found = np.empty(0, object)
    if pixels:
        found = replace(pixels, points=np.round(pixels.points * STEPS) / STEPS).geometries
    return np.frombuffer(shapely.to_wkb(shapely.geometrycollections(found)), np.uint8)


def unpacked(array: npt.NDArray[np.uint8]) -> npt.NDArray[np.object_]:
    """Return the footprints that were packed: shapely polygons and multipolygons (n,), in pixel coordinates."""
    return np.asarray(shapely.get_parts(shapely.from_wkb(array.tobytes())))


@contextmanager
def collector_paused() -> Iterator[None]:
    """Hold Python's cycle collector, also as a decorator: GeoJSON is many lists and no cycle.

    To walk them all, and every imported library's objects, would double the time that reading takes.
    """
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()


@collector_paused()
def read_footprints(path: Path, kind: LabelKind) -> Footprints:
    """Read the footprints of a GeoJSON file from the label folder `kind`.

    Coordinates stay as they are in the file: pixels for labels_match_pix, else those of `crs`. Features that
    are null, empty or no polygon are left out and counted.
    Raises LabelsUnreadable where the file is damaged or is no GeoJSON FeatureCollection.
    """
    return _footprints(path, kind, _parse(path))[0]


@collector_paused()
def read_identified(path: Path, kind: LabelKind) -> tuple[Footprints, list[Any]]:
    """Read footprints as `read_footprints` does, and of each the property Id as it is in the file; None without one."""
    footprints, features = _footprints(path, kind, _parse(path))
    return footprints, [(feature.get("properties") or {}).get("Id") for feature in features]


def _footprints(path: Path, kind: LabelKind, content: dict[str, Any]) -> tuple[Footprints, list[dict[str, Any]]]:
    """Return the footprints of a parsed file, and the features that they come from."""
    crs = _crs(path, kind, content)
    counts = {"null": 0, "empty": 0, "other": 0}
    kept: list[list[list[Ring]]] = []
    features = []
    try:
        for feature in content["features"]:
            polygons, defect = _polygons(feature["geometry"])
            if defect:
                counts[defect] += 1
            else:
                kept.append(polygons)
                features.append(feature)
        found = Footprints(path, kind, crs, *_ragged(kept), counts["null"], counts["empty"], counts["other"])
        return found, features
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise LabelsUnreadable(
            f"{path} has a feature whose geometry is no GeoJSON ({error!r}); wanted polygons of finite "
            "numbers: get the file again."
        ) from error


def _parse(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or error  # without the path once more
        raise LabelsUnreadable(f"{path} cannot be read as GeoJSON ({reason}); get the file again.") from error
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


def _ragged(geometries: list[list[list[Ring]]]) -> tuple[npt.NDArray[np.float64], Offsets, Offsets, Offsets]:
    """Return the points, rings, polygons and starts of Footprints."""
    polygons = list(chain.from_iterable(geometries))
    rings = list(chain.from_iterable(polygons))
    positions = list(chain.from_iterable(rings))
    if set(map(len, positions)) != {2}:
        positions = [position[:2] for position in positions]
    numbers = np.fromiter(chain.from_iterable(positions), np.float64)
    if len(numbers) != 2 * len(positions) or not np.isfinite(numbers).all():
        raise ValueError("a position is not two or three finite numbers")
    return numbers.reshape(-1, 2), _offsets(rings), _offsets(polygons), _offsets(geometries)


def _offsets(groups: list[list[Any]]) -> Offsets:
    return np.cumsum([0, *map(len, groups)])


def _crs(path: Path, kind: LabelKind, content: dict[str, Any]) -> CRS | None:
    if kind == "labels_match_pix":
        return None  # whatever the file or a reader claims, these are pixels
    named = content.get("crs")
    if named is None:
        return CRS.from_user_input("OGC:CRS84") if kind == "labels" else None
    try:
        with rasterio.Env():  # in which PROJ does not print what it raises
            return CRS.from_user_input(named["properties"]["name"])
    except (KeyError, TypeError, ValueError) as error:
        raise LabelsUnreadable(
            f"{path} names a CRS that is not known, {named!r}; wanted an EPSG code: correct it."
        ) from error
