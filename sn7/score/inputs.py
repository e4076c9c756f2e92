"""Truth or predictions on disk → files by scene and month, and tracks in pixel coordinates.

Names tell the scene and the month, so a data set, one scene of it, its labels alone and what `sn7 predict` or
`sn7 track` writes are all read alike:

    FOLDER/(train/)(<scene>/)labels_match/<image>_Buildings.geojson    or labels_match_pix/, or labels/
    FOLDER/(train/)(<scene>/)<image>.geojson                           longitude and latitude, or the CRS that it names
    FOLDER/(train/)(<scene>/)<image>.tif                               probs or mask
    FOLDER/(train/)(<scene>/)images_masked/, images/, UDM_masks/       what is valid, and the grid
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import shapely
from affine import Affine
from rasterio.crs import CRS

from sn7.catalog import IMAGE_FOLDERS, LABEL_FOLDERS, LabelKind, list_folder, parse_image_name
from sn7.challenge import Tracks, read_csv
from sn7.errors import DataMissing, TracksInvalid
from sn7.footprints import read_identified
from sn7.masks import to_pixels
from sn7.rasters import Grid, read_grid
from sn7.xyz import TILE_PIXELS, image_scale, scene_tile

__all__ = ["MonthFiles", "SceneTracks", "Source", "find_sources", "scene_grid", "scene_tracks"]

OF_A_SCENE = (*LABEL_FOLDERS, *IMAGE_FOLDERS, "UDM_masks")
"""Folders that are part of a scene, and no scenes themselves."""


@dataclass
class MonthFiles:
    """What lies in a folder of one month of a scene."""

    footprints: Path | None = None
    kind: LabelKind = "labels"
    """How the coordinates of the footprints are to be read."""
    raster: Path | None = None
    """Probs or mask."""
    image: Path | None = None
    udm: Path | None = None


@dataclass(frozen=True)
class Source:
    """A scene of the truth or of the predictions."""

    place: Path
    """The folder or CSV that it was found in."""
    months: Mapping[str, MonthFiles]
    """By date; without any in a CSV."""
    tracks: Tracks | None = None
    """Of a CSV."""


def find_sources(place: Path) -> dict[str, Source]:
    """Return the scenes of a folder or of a challenge CSV, by name.

    Raises DataMissing where there is no such folder or file or none of an image in it, TracksInvalid where a name does
    not parse, or two files are of the same month.
    """
    if place.is_file() and place.suffix.lower() == ".csv":
        return {scene: Source(place, {}, tracks) for scene, tracks in read_csv(place).items()}
    if not place.is_dir():
        found = "is neither a folder nor a CSV" if place.exists() else "does not exist"
        raise DataMissing(f"{place} {found}; give a folder of scenes, a scene's folder, or a challenge CSV.")
    root = place / "train" if (place / "train").is_dir() else place
    scenes: dict[str, dict[str, MonthFiles]] = {}
    below = (path for path in list_folder(root).values() if path.is_dir() and path.name not in OF_A_SCENE)
    for folder in (root, *sorted(below)):
        _add_folder(scenes, folder)
    used = {name: months for name, months in scenes.items() if any(m.footprints or m.raster for m in months.values())}
    if not used:
        raise DataMissing(
            f"{place} holds no footprints and no probs; wanted GeoJSONs or GeoTIFFs named as images, "
            "global_monthly_YYYY_MM_mosaic_<scene>, there or in a folder a scene: give another folder."
        )
    return {scene: Source(place, dict(sorted(months.items()))) for scene, months in sorted(used.items())}


def _add_folder(scenes: dict[str, dict[str, MonthFiles]], folder: Path) -> None:
    """Add the files of a folder, and of its folders of labels and images, to their months."""
    for kind in LABEL_FOLDERS:
        for path in _files(folder / kind, "_Buildings.geojson"):
            month = _month(scenes, path, path.name.removesuffix("_Buildings.geojson"))
            if month.footprints is None:  # the first of the folders is the preferred one
                month.footprints, month.kind = path, kind
    own_kind: LabelKind = next((kind for kind in LABEL_FOLDERS if kind == folder.name), "labels")
    for path in _files(folder, ".geojson"):
        if not path.name.endswith("_UDM.geojson"):
            month = _month(scenes, path, path.stem.removesuffix("_Buildings"))
            _require_one(month.footprints, path)
            month.footprints, month.kind = path, own_kind
    for path in _files(folder, ".tif"):
        month = _month(scenes, path, path.stem.removesuffix("_mask"))
        _require_one(month.raster, path)
        month.raster = path
    for name in reversed(IMAGE_FOLDERS):
        for path in _files(folder / name, ".tif"):
            _month(scenes, path, path.stem).image = path
    for path in _files(folder / "UDM_masks", "_UDM.tif"):
        _month(scenes, path, path.stem.removesuffix("_UDM")).udm = path


def _files(folder: Path, ending: str) -> Iterator[Path]:
    return (path for name, path in sorted(list_folder(folder).items()) if name.endswith(ending))


def _month(scenes: dict[str, dict[str, MonthFiles]], path: Path, name: str) -> MonthFiles:
    found = parse_image_name(name)
    if found is None:
        raise TracksInvalid(
            f"{path} has a name that tells neither scene nor month; wanted global_monthly_YYYY_MM_mosaic_<scene>"
            f"{path.suffix}: rename or remove it."
        )
    scene, date = found
    return scenes.setdefault(scene, {}).setdefault(date, MonthFiles())


def _require_one(before: Path | None, path: Path) -> None:
    if before is not None:
        raise TracksInvalid(f"{before} and {path} are of the same month; wanted one of them: remove the other.")


def scene_grid(scene: str, *months: MonthFiles | None) -> Grid:
    """Return the grid of a month's image: that of the image or raster of the first that has one, else the scene's tile.

    A raster that is finer than the images, as `sn7 predict --fine` writes it, is brought to their pixels.
    Raises DataMissing where there is neither, ImageUnreadable.
    """
    for files in months:
        if files and files.image:
            return read_grid(files.image)
        if files and files.raster:
            return _in_image_pixels(scene, read_grid(files.raster))
    tile = scene_tile(scene)
    if tile is None:
        raise DataMissing(
            f"scene {scene} has no image and no probs, and its name ends with no tile, so that its pixels are unknown; "
            "wanted one of these: put its images beside the truth."
        )
    return Grid((TILE_PIXELS, TILE_PIXELS), tile.transform, CRS.from_epsg(3857))


def _in_image_pixels(scene: str, grid: Grid) -> Grid:
    scale = image_scale(scene, grid.transform, grid.crs)
    height, width = (max(1, round(side * scale)) for side in grid.shape)
    return Grid((height, width), grid.transform @ Affine.scale(1 / scale), grid.crs)


@dataclass(frozen=True)
class SceneTracks:
    """The tracks of a scene, and what is to be said of them."""

    tracks: Tracks
    identified: bool
    """Whether each footprint has an Id."""
    left_out: int
    """Features that are no polygon, or null."""
    unlabelled: int
    """Months whose file has not one usable footprint."""


def scene_tracks(scene: str, source: Source | None, other: Source | None, truth: bool) -> SceneTracks:
    """Return the tracks of a scene in pixel coordinates; `other` is the opposite side, for the grid.

    Of the `truth`, a month without one usable footprint is left out: it is unlabelled, as in `sn7 prepare`.
    Raises LabelsUnreadable, ImageUnreadable, DataMissing (no grid), TracksInvalid (an id twice, or no whole number).
    """
    if source is None or source.tracks is not None:
        return SceneTracks(source.tracks if source and source.tracks else Tracks.of(scene, {}), True, 0, 0)
    months: dict[str, tuple[list[int], list[shapely.Geometry]]] = {}
    left_out, unlabelled, identified = 0, 0, True
    for date, files in source.months.items():
        if files.footprints is None:
            continue
        footprints, ids = read_identified(files.footprints, files.kind)
        left_out += footprints.left_out
        if truth and not len(footprints):
            unlabelled += 1
            continue
        if files.kind != "labels_match_pix" and len(footprints):
            grid = scene_grid(scene, files if truth else None, other.months.get(date) if other else None, files)
            footprints = to_pixels(footprints, grid.shape, grid.transform, grid.crs)
        if None in ids:
            identified, ids = False, list(range(len(ids)))
        months[date] = (_whole(files.footprints, ids), footprints.geometries.tolist())
    try:
        tracks = Tracks.of(scene, months)
    except TracksInvalid as error:
        raise TracksInvalid(f"{source.place}: {error}") from error
    return SceneTracks(tracks, identified, left_out, unlabelled)


def _whole(path: Path, ids: list[object]) -> list[int]:
    for number in ids:
        if isinstance(number, bool) or not isinstance(number, int | float) or number % 1 != 0:  # nor NaN, nor infinite
            raise TracksInvalid(f"{path} has the Id {number!r}; wanted whole numbers: correct it.")
    return [int(number) for number in ids]  # type: ignore[call-overload]
