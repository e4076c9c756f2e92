"""A scene → the files of the SpaceNet 7 layout: GeoTIFFs and GeoJSONs, named as the real ones."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
import shapely
from affine import Affine
from rasterio import features
from scipy import ndimage

from sn7.sample.place import Grid, Place
from sn7.sample.render import Bytes, Mask, Scene
from sn7.sample.terrain import Floats

__all__ = ["SceneCounts", "write_scene"]

Array = npt.NDArray[np.float64]
Feature = tuple[dict[str, Any], shapely.Polygon]
RADIUS = 6378137.0
"""Of the sphere of EPSG:3857, metres."""
OVERHANG = 2
"""Footprints reach at most this far over the image's border, px; real ones do, by up to 6."""
UNUSABLE = 255
"""Of a UDM mask; usable pixels are 0."""
CLOUD = 246
"""Grey value of a dense cloud in the raw images."""
LON_LAT, METRES = "urn:ogc:def:crs:OGC:1.3:CRS84", "urn:ogc:def:crs:EPSG::3857"


@dataclass(frozen=True)
class SceneCounts:
    """What write_scene wrote."""

    images_with_udm: int
    buildings: int
    footprints: int
    building_pixels: int
    valid_pixels: int


def write_scene(root: Path, scene: Scene, months: int) -> SceneCounts:
    """Write all months of a scene below `root`: in train/, or in test_public/ and test_truth/."""
    clipped = _clipped(scene)
    everyone: set[int] = set()
    footprints, clouded, building, valid = 0, 0, 0, 0
    for month in range(months):
        clouds = scene.clouds(month)
        udm = _udm(scene.grid, clouds)
        standing = {n: shape for n, shape in clipped.items() if scene.town.born[n] <= month}
        labels = {n: shape for n, shape in standing.items() if not _hidden(shape, udm)}
        name = f"global_monthly_{2018 + month // 12}_{month % 12 + 1:02d}_mosaic_{scene.place.scene}"
        _write_images(root, scene, name, scene.image(month), clouds)
        _write_labels(root, scene.place, name, labels, udm)
        everyone |= labels.keys()
        footprints += len(labels)
        clouded += clouds is not None
        valid += int((~udm).sum())
        building += int((_mask(labels, scene.grid) & ~udm).sum())
    return SceneCounts(clouded, len(everyone), footprints, building, valid)


def _clipped(scene: Scene) -> dict[int, shapely.Polygon]:
    """Return, by Id, the footprints of which something can be seen, cut off a little outside the image."""
    width, height = scene.grid.width, scene.grid.height
    town = scene.town.footprints
    visible = shapely.area(shapely.clip_by_rect(town, 0, 0, width, height)) >= 2
    near = shapely.intersection(town, shapely.box(-OVERHANG, -OVERHANG, width + OVERHANG, height + OVERHANG))
    near = shapely.set_precision(near, 1e-6)  # the text keeps six decimals; areas and Ids refer to that
    return {int(n): near[n] for n in np.flatnonzero(visible) if near[n].geom_type == "Polygon"}


def _hidden(footprint: shapely.Polygon, udm: Mask) -> bool:
    """Whether the middle of a footprint is unusable; nobody could draw it, so the labels lack it."""
    middle = footprint.centroid
    row = int(np.clip(middle.y, 0, udm.shape[0] - 1))
    return bool(udm[row, int(np.clip(middle.x, 0, udm.shape[1] - 1))])


def _mask(labels: dict[int, shapely.Polygon], grid: Grid) -> Mask:
    if not labels:
        return np.zeros((grid.height, grid.width), bool)
    return features.rasterize(labels.values(), (grid.height, grid.width), dtype="uint8") > 0


def _udm(grid: Grid, clouds: Floats | None) -> Mask:
    """Return the pixels that clouds make unusable, with a rim around them."""
    if clouds is None:
        return np.zeros((grid.height, grid.width), bool)
    return ndimage.binary_dilation(clouds > 0.02, iterations=2)


def _write_images(root: Path, scene: Scene, name: str, rgb: Bytes, clouds: Floats | None) -> None:
    udm = _udm(scene.grid, clouds)
    if clouds is not None:
        rgb = np.rint(rgb + clouds * (CLOUD - rgb.astype(np.float32))).astype(np.uint8)
    raw = np.concatenate([rgb, np.full((1, *udm.shape), 255, np.uint8)])
    folder = root / ("train" if scene.place.split == "train" else "test_public") / scene.place.scene
    transform = scene.place.transform
    _write_tiff(folder / "images_masked" / f"{name}.tif", np.where(udm, np.uint8(0), raw), transform)
    if scene.place.split == "train":
        _write_tiff(folder / "images" / f"{name}.tif", raw, transform)
        if udm.any():
            mask = np.where(udm, np.uint8(UNUSABLE), np.uint8(0))
            _write_tiff(folder / "UDM_masks" / f"{name}_UDM.tif", mask[None], transform)


def _write_tiff(path: Path, bands: Bytes, transform: Affine) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = bands.shape
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        dtype="uint8",
        count=count,
        height=height,
        width=width,
        crs="EPSG:3857",
        transform=transform,
        compress="deflate",
        predictor=2,
        interleave="pixel",
        photometric="RGB" if count == 4 else "MINISBLACK",
        **({"alpha": "yes"} if count == 4 else {}),
    ) as file:
        file.write(bands)


def _write_labels(root: Path, place: Place, name: str, labels: dict[int, shapely.Polygon], udm: Mask) -> None:
    a, _, left, _, e, top, *_ = place.transform
    to_metres = np.array([a, e]), np.array([left, top])

    def metres(xy: Array) -> Array:
        return xy * to_metres[0] + to_metres[1]

    def lon_lat(xy: Array) -> Array:
        x, y = np.moveaxis(metres(xy) / RADIUS, -1, 0)
        return np.degrees(np.stack([x, np.arctan(np.sinh(y))], -1))

    area = {n: shape.area * a * a for n, shape in labels.items()}
    full = [({"Id": n, "area": round(area[n], 6)}, shape) for n, shape in labels.items()]
    if place.split == "test":
        _write_geojson(
            root / "test_truth" / place.scene / "labels_match" / f"{name}_Buildings.geojson",
            full,
            metres,
            METRES,
        )
        return
    folder = root / "train" / place.scene
    pixels = [({**about, "image_fname": f"{name}.tif"}, shape) for about, shape in full]
    plain = [({"Id": n}, shape) for n, shape in labels.items()]
    _write_geojson(folder / "labels_match" / f"{name}_Buildings.geojson", full, metres, METRES)
    _write_geojson(folder / "labels_match_pix" / f"{name}_Buildings.geojson", pixels, lambda xy: xy, None)
    _write_geojson(folder / "labels" / f"{name}_Buildings.geojson", plain, lon_lat, LON_LAT)
    _write_geojson(folder / "labels" / f"{name}_UDM.geojson", list(_udm_shapes(udm)), lon_lat, LON_LAT)


def _udm_shapes(udm: Mask) -> Iterator[Feature]:
    for geometry, _ in features.shapes(udm.astype(np.uint8), mask=udm):
        yield {}, shapely.Polygon(geometry["coordinates"][0], geometry["coordinates"][1:])


def _write_geojson(path: Path, content: list[Feature], project: Callable[[Array], Array], crs: str | None) -> None:
    """Write one feature a line; without `crs` there is no such member, as in labels_match_pix/."""
    path.parent.mkdir(parents=True, exist_ok=True)
    decimals = 12 if crs == LON_LAT else 6
    lines = []
    for about, shape in content:
        rings = [shape.exterior, *shape.interiors]
        coordinates = [np.round(project(np.asarray(ring.coords)), decimals).tolist() for ring in rings]
        geometry = {"type": "Polygon", "coordinates": coordinates}
        lines.append(json.dumps({"type": "Feature", "properties": about, "geometry": geometry}))
    head = '{\n"type": "FeatureCollection",\n'
    if crs:
        head += '"crs": ' + json.dumps({"type": "name", "properties": {"name": crs}}) + ",\n"
    path.write_text(head + '"features": [\n' + ",\n".join(lines) + "\n]\n}\n", encoding="utf-8")
