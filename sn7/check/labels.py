"""One label file → counts and findings."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from sn7.catalog import LabelKind
from sn7.check.findings import Finding, Reader, attempt, finding
from sn7.footprints import Footprints, read_footprints
from sn7.masks import to_pixels
from sn7.rasters import RasterImage

__all__ = ["examine_labels"]

BORDER = 0.01
"""Footprints that reach less than this over the border, px, end at it but for rounding."""


def examine_labels(
    path: Path, kind: LabelKind, raster: RasterImage | None, reader: Reader, findings: list[Finding]
) -> Footprints | None:
    """Return the footprints of a label file, in pixel coordinates where its image could be read.

    None where they cannot be used. What is found is added to `findings`: of a file that no command reads only
    what would be left out or refused, since the same footprints lie in the file that is read.
    """
    footprints = attempt(findings, "labels_refused", path, reader, lambda: read_footprints(path, kind))
    if footprints is None:
        return None
    found = _left_out(footprints)
    if not len(footprints):
        found["no_footprints"] = (f"{footprints.left_out} features", 1)
    elif reader == "prepare":
        found |= _shapes(footprints) | _features(path)
        if raster and footprints.crs and footprints.crs != raster.crs:
            found["reprojected"] = (f"{footprints.crs.to_string()} → {raster.crs.to_string()}", len(footprints))
    placed = footprints
    if raster:
        moved = attempt(findings, "footprints_elsewhere", path, reader, lambda: _placed(footprints, raster))
        if moved is None:
            return None
        placed = moved
        if reader == "prepare":
            found |= _outside(placed, raster.shape)
    findings += [finding(name, path, *about, reader=reader) for name, about in found.items() if about[1]]
    return placed


Found = dict[str, tuple[str, int]]
"""Kind → what exactly, and how many of the features."""


def _placed(footprints: Footprints, raster: RasterImage) -> Footprints:
    return to_pixels(footprints, raster.shape, raster.transform, raster.crs)


def _left_out(footprints: Footprints) -> Found:
    total = f"of {len(footprints) + footprints.left_out} features"
    counts = {
        "null_geometry": footprints.null,
        "empty_geometry": footprints.empty,
        "no_polygon": footprints.other,
    }
    return {kind: (f"{count} {total}", count) for kind, count in counts.items()}


def _shapes(footprints: Footprints) -> Found:
    """Return what is unusual about the shapes themselves."""
    geometries, total = footprints.geometries, f"of {len(footprints)} footprints"
    counts = {
        "multipolygon": np.diff(footprints.starts) > 1,
        "interior_rings": np.diff(footprints.polygons[footprints.starts]) > np.diff(footprints.starts),
        "self_intersection": ~shapely.is_valid(geometries),
    }
    return {kind: (f"{count} {total}", count) for kind, which in counts.items() if (count := int(which.sum()))}


def _outside(footprints: Footprints, shape: tuple[int, int]) -> Found:
    """Return which footprints, in pixel coordinates, reach over the border of an image of `shape`."""
    if not len(footprints):
        return {}
    bounds = shapely.bounds(footprints.geometries)
    low, high = bounds[:, :2], bounds[:, 2:] - np.array(shape[::-1])
    beyond = np.maximum(-low, high).max(axis=1)
    count = int((beyond > BORDER).sum())
    return {"outside": (f"{count} of {len(footprints)} footprints, by up to {beyond.max():.1f} px", count)}


def _features(path: Path) -> Found:
    """Return what only the features themselves tell: heights, and Ids that are given twice."""
    features: list[dict[str, Any]] = json.loads(path.read_bytes())["features"]
    high = sum(_has_height(feature["geometry"]) for feature in features)
    about = [feature.get("properties") for feature in features]
    ids = Counter(str(fields["Id"]) for fields in about if isinstance(fields, dict) and fields.get("Id") is not None)
    shared = [name for name, count in ids.items() if count > 1]
    return {
        "three_d": (f"{high} of {len(features)} features", high),
        "duplicate_id": (f"Id {', '.join(shared[:3])}{' …' * (len(shared) > 3)}", len(shared)),
    }


def _has_height(geometry: dict[str, Any] | None) -> bool:
    """Whether the first position of a geometry has three numbers."""
    position = (geometry or {}).get("coordinates")
    while isinstance(position, list) and position and isinstance(position[0], list):
        position = position[0]
    return isinstance(position, list) and len(position) > 2
