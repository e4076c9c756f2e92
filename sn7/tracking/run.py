"""track_folder: predictions on disk → tracked footprints on disk.

OUT/<scene>/<image>.geojson   the footprints of a month: longitude and latitude
OUT/<scene>/<scene>.gpkg      layers buildings (one row each, first and last month) and months (a row a month)
OUT/<scene>/track.json        months, their valid share, and the rules
OUT/tracks.csv                the challenge's CSV, of all scenes
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import pyogrio
import shapely
from tqdm import tqdm

from sn7.challenge import Tracks, image_name, write_csv
from sn7.errors import ResultsConflict
from sn7.files import atomic_dir, write_json
from sn7.tracking.config import FLOOR, TrackConfig
from sn7.tracking.read import SceneFiles, SceneMonths, find_scenes, read_months
from sn7.tracking.tables import Tables, as_tables
from sn7.tracking.track import Buildings, track
from sn7.vectors import write_geojson

__all__ = ["ABOUT", "SceneReport", "TrackReport", "track_folder"]

ABOUT = "track.json"
DATES = ("first_month", "last_month", "first_low", "first_high")
"""Columns of the buildings that are dates."""


@dataclass(frozen=True)
class SceneReport:
    """What was found in a scene."""

    scene: str
    months: int
    buildings: int
    new: int
    footprints: int
    bridged: int
    """Footprints of months in which the building is not seen."""
    invalid_share: float
    """Share of all pixels of all months that is not valid."""
    threshold: float
    left_out: tuple[Path, ...]
    """Files that are no month's."""
    pooled: bool
    """Whether its probs were pooled over months before, which tracking does itself."""


@dataclass(frozen=True)
class TrackReport:
    """What went in and what came out."""

    scenes: tuple[SceneReport, ...]


def track_folder(predictions: Path, out: Path, rules: Mapping[str, Any] | None = None) -> TrackReport:
    """Track the scene, or each of the scenes, whose predictions a folder holds; write each complete or not at all.

    `rules` are fields of TrackConfig. Where they do not say a threshold, it is the one that the model was fitted with,
    which its probs carry, else the default.
    Raises ConfigError, DataMissing and MonthsInvalid before anything is written where rules or file names are wrong,
    ResultsConflict where other files are in a place that tracks are to take.
    """
    TrackConfig.from_dict(rules or {})
    scenes = find_scenes(predictions)
    for files in scenes:
        _require_free(out / files.scene)
    reports: list[SceneReport] = []
    months = sum(len(files.months) for files in scenes)
    with tqdm(total=months, desc="track", unit="month", disable=None) as bar:
        write_csv(out / "tracks.csv", _track_each(scenes, out, rules or {}, reports, bar))
    return TrackReport(tuple(reports))


def _require_free(folder: Path) -> None:
    """Raise ResultsConflict where a folder holds something else than a scene's tracks, which would be lost."""
    if folder.exists() and not (folder / ABOUT).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise ResultsConflict(
            f"{folder} exists and holds no tracks; wanted a new folder, or tracks to replace: give another OUT."
        )


def _track_each(
    scenes: Sequence[SceneFiles], out: Path, rules: Mapping[str, Any], reports: list[SceneReport], bar: "tqdm[NoReturn]"
) -> Iterator[Tracks]:
    for files in scenes:
        read = read_months(files)
        base = TrackConfig() if read.threshold is None else TrackConfig(threshold=min(max(read.threshold, FLOOR), 0.99))
        config = TrackConfig.from_dict(rules, base)
        found = track(read.months, config)
        tables = as_tables(found, read.transform, read.crs)
        _write_scene(out / files.scene, files, read, config, tables, bar)
        reports.append(_report(files, read, found, config))
        yield _in_image_pixels(found.tracks, read.image_scale)


def _in_image_pixels(tracks: Tracks, scale: float) -> Tracks:
    return tracks if scale == 1 else replace(tracks, geometry=shapely.transform(tracks.geometry, lambda xy: xy * scale))


def _write_scene(
    folder: Path, files: SceneFiles, read: SceneMonths, config: TrackConfig, tables: Tables, bar: "tqdm[NoReturn]"
) -> None:
    with atomic_dir(folder) as temporary:
        for date, footprints in tables.footprints.items():
            write_geojson(footprints, temporary / f"{image_name(files.scene, date)}.geojson")
            bar.update()
        package = temporary / f"{files.scene}.gpkg"
        # through Arrow, which keeps dates without a time of day; unknown, since a polygon that is given may have parts
        dates = tables.buildings.astype(dict.fromkeys(DATES, "date32[day][pyarrow]"))
        dates.to_file(package, layer="buildings", engine="pyogrio", geometry_type="Unknown", use_arrow=True)
        pyogrio.write_dataframe(tables.months, package, layer="months", use_arrow=True)
        write_json(temporary / ABOUT, _about(files, read, config, tables))


def _about(files: SceneFiles, read: SceneMonths, config: TrackConfig, tables: Tables) -> dict[str, object]:
    valid = read.months.valid_share
    height, width = read.months.shape
    months = [
        {"month": date, "from": path.name, "valid_share": round(float(share), 6), "footprints": len(table)}
        for (date, path), share, table in zip(files.months.items(), valid, tables.footprints.values(), strict=True)
    ]
    return {
        "format": 1,
        "scene": files.scene,
        "months": months,
        "buildings": len(tables.buildings),
        "grid": {"height": height, "width": width, "transform": list(read.transform.to_gdal())},
        "rules": config.to_dict(),
    }


def _report(files: SceneFiles, read: SceneMonths, found: Buildings, config: TrackConfig) -> SceneReport:
    tracks = found.tracks
    return SceneReport(
        scene=tracks.scene,
        months=len(tracks.months),
        buildings=len(found.ids),
        new=int((found.first > 0).sum()),
        footprints=len(tracks),
        bridged=int((~found.seen[tracks.ids - 1, tracks.month]).sum()),
        invalid_share=1 - float(read.months.valid_share.mean()),
        threshold=config.threshold,
        left_out=files.left_out,
        pooled=read.pooled,
    )
