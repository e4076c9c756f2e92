"""Folders of predictions → the months of each scene, on the grid of its probs."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from affine import Affine
from rasterio.crs import CRS

from sn7.catalog import list_folder, parse_image_name
from sn7.errors import DataMissing, MonthsInvalid
from sn7.footprints import read_footprints
from sn7.masks import to_pixels
from sn7.rasters import RasterProbs, read_probs
from sn7.tracking.months import Months
from sn7.xyz import TILE_PIXELS, image_scale, scene_tile

__all__ = ["SceneFiles", "SceneMonths", "find_scenes", "read_months"]

ENDINGS = (".tif", ".geojson")
"""Of predictions, the preferred one first."""


@dataclass(frozen=True)
class SceneFiles:
    """The predictions of a scene: files of one kind, a month each, in order."""

    scene: str
    folder: Path
    months: dict[str, Path]
    """By date, YYYY-MM."""
    left_out: tuple[Path, ...] = ()
    """Maps that `sn7 predict --pool` made of all months; they have the scene's name."""


@dataclass(frozen=True)
class SceneMonths:
    """The months of a scene and where its pixels lie."""

    months: Months
    transform: Affine
    """Column and row → x and y in units of `crs`."""
    crs: CRS
    threshold: float | None
    """That of the model, where the probs carry it."""
    pooled: bool = False
    """Whether probs of a month are pooled with those of other months."""

    @property
    def image_scale(self) -> float:
        """Side of a pixel of the probs in pixels of the scene's images; see `sn7.xyz.image_scale`."""
        return image_scale(self.months.scene, self.transform, self.crs)


def find_scenes(folder: Path) -> list[SceneFiles]:
    """Return the scene whose predictions a folder holds, or the scenes of the folders in it; opens no file.

    Of a scene, the probs (.tif) are taken, or the polygons (.geojson) where there are no probs.
    Raises DataMissing where there is neither, MonthsInvalid where a file's name does not tell its scene and month, or
    a scene has a month twice, or fewer than two.
    """
    if not folder.is_dir():
        found = "is not a folder" if folder.exists() else "does not exist"
        raise DataMissing(f"{folder} {found}; give the folder of a scene that `sn7 predict` wrote, or its parent.")
    scenes = [files for place in [folder, *_folders(folder)] if (files := _scene(place))]
    if not scenes:
        raise DataMissing(
            f"{folder} holds no predictions; wanted probs (.tif) or polygons (.geojson) of a scene's months, named "
            "global_monthly_YYYY_MM_mosaic_<scene>: predict them with `sn7 predict`."
        )
    where: dict[str, Path] = {}
    for files in scenes:
        if files.scene in where:
            raise MonthsInvalid(
                f"{where[files.scene]} and {files.folder} both hold months of scene {files.scene}; wanted each scene "
                "in one folder: give one of the two."
            )
        where[files.scene] = files.folder
    return scenes


def _folders(folder: Path) -> list[Path]:
    return [path for _, path in sorted(list_folder(folder).items()) if path.is_dir()]


def _scene(folder: Path) -> SceneFiles | None:
    files = [path for _, path in sorted(list_folder(folder).items()) if path.is_file()]
    kinds = ([path for path in files if path.suffix == ending] for ending in ENDINGS)
    chosen = next(filter(None, kinds), [])
    if not chosen:
        return None
    months: dict[str, Path] = {}
    scenes: dict[str, Path] = {}
    pooled = tuple(path for path in chosen if path.stem == folder.absolute().name)
    for path in (path for path in chosen if path not in pooled):
        parsed = parse_image_name(path.stem.removesuffix("_Buildings"))
        if parsed is None:
            raise MonthsInvalid(
                f"{path} has a name that does not tell its scene and month; wanted "
                f"global_monthly_YYYY_MM_mosaic_<scene>{path.suffix}: rename or remove it."
            )
        scene, date = parsed
        if scenes.setdefault(scene, path) and len(scenes) > 1:
            one, other = list(scenes.values())[:2]
            raise MonthsInvalid(
                f"{one} and {other.name} are of two scenes; wanted the months of one scene in a folder: part them."
            )
        if date in months:
            raise MonthsInvalid(
                f"{months[date]} and {path.name} are of one month, {date}; wanted each month once: remove one of them."
            )
        months[date] = path
    if len(months) < 2:
        found = f"one month, {next(iter(months))}" if months else "a map pooled over the months and no month"
        raise MonthsInvalid(
            f"{folder} has {found}; wanted two months at least, since a track leads from one to another: predict more "
            "images of the scene."
        )
    return SceneFiles(next(iter(scenes)), folder, dict(sorted(months.items())), pooled)


def read_months(files: SceneFiles) -> SceneMonths:
    """Read the predictions of a scene.

    Raises ImageUnreadable or LabelsUnreadable where a file cannot be read, MonthsInvalid where the grids of two months
    differ, or where nothing but polygons tells where a scene without a tile in its name lies.
    """
    if next(iter(files.months.values())).suffix == ".geojson":
        return _read_polygons(files)
    paths = list(files.months.values())
    first = read_probs(paths[0])
    probs, separation = [first.probs], None if first.separation is None else np.nan_to_num(first.separation)
    pooled = first.pooled
    for path in paths[1:]:
        raster = read_probs(path)
        _require_one_grid(path, raster, paths[0], first)
        probs.append(raster.probs)
        pooled |= raster.pooled
        if separation is not None and raster.separation is not None:
            separation += np.nan_to_num(raster.separation)
    months = Months.of_probs(files.scene, list(files.months), probs, separation)
    return SceneMonths(months, first.transform, first.crs, first.threshold, pooled)


def _require_one_grid(path: Path, raster: RasterProbs, first_path: Path, first: RasterProbs) -> None:
    for name, found, wanted in (
        ("bands", _bands(raster), _bands(first)),
        ("size", _size(raster.probs), _size(first.probs)),
        ("CRS", raster.crs.to_string(), first.crs.to_string()),
        ("geotransform", _grid(raster.transform), _grid(first.transform)),
    ):
        if found != wanted:
            raise MonthsInvalid(
                f"{path} has the {name} {found}, but {first_path.name} {wanted}; wanted one grid for all months of a "
                "scene: predict it again from images of one grid."
            )


def _bands(raster: RasterProbs) -> str:
    return "probs" if raster.separation is None else "probs, boundary and contact"


def _size(probs: npt.NDArray[np.float32]) -> str:
    return " × ".join(map(str, probs.shape)) + " px (height × width)"


def _grid(transform: Affine) -> str:
    return ", ".join(f"{value:.6f}" for value in transform.to_gdal())


def _read_polygons(files: SceneFiles) -> SceneMonths:
    tile = scene_tile(files.scene)
    if tile is None:
        raise MonthsInvalid(
            f"{files.folder} holds polygons alone, and the scene's name, {files.scene}, does not end with its tile "
            "(_X_Y_ZOOM); wanted the one or probs (.tif), whose grid tells: predict its probs, too."
        )
    shape, crs = (TILE_PIXELS, TILE_PIXELS), CRS.from_epsg(3857)
    polygons = [
        to_pixels(read_footprints(path, "labels"), shape, tile.transform, crs).geometries
        for path in files.months.values()
    ]
    months = Months.of_polygons(files.scene, list(files.months), polygons, shape)
    return SceneMonths(months, tile.transform, crs, None)
