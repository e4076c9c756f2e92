"""find_changes: tracks on disk → what was built when.

OUT/changes.gpkg              layer new_buildings: first month, its interval, confidence, area
OUT/growth.csv                buildings and built-up area of each scene and month, with intervals
OUT/<scene>/growth.png        the same as a figure
OUT/<scene>/place.png         the place that grows most, in several months; not where nothing is new
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd
import pandas as pd
from tqdm import tqdm

from sn7.catalog import IMAGE_FOLDERS, read_catalog, read_scene
from sn7.changes.charts import draw_growth
from sn7.changes.counts import growth, new_buildings
from sn7.changes.place import draw_growing_place
from sn7.changes.read import SceneTracks, read_tracks
from sn7.files import atomic_file

__all__ = ["ChangesReport", "find_changes"]

LON_LAT = 4326
DATES = ("first_month", "first_low", "first_high")


@dataclass(frozen=True)
class ChangesReport:
    """What went in and what came out."""

    growth: pd.DataFrame
    """All scenes' months."""
    new: int
    """New buildings."""
    without_images: tuple[str, ...]
    """Scenes that are drawn on plain ground, since there is no image of them."""
    unchanged: tuple[str, ...]
    """Scenes without a new building."""


def find_changes(tracks: Path, out: Path, images: Path | None = None) -> ChangesReport:
    """Write what was built when in the scene, or the scenes, that `sn7 track` wrote to the folder `tracks`.

    `images` is a data set, or a scene of one, whose images are drawn below the footprints.
    Raises TracksInvalid, DataMissing or ImageUnreadable.
    """
    scenes = read_tracks(tracks)
    pictures = _images(images) if images else {}
    tables = [growth(scene) for scene in scenes]
    unchanged = []
    for scene, table in tqdm(list(zip(scenes, tables, strict=True)), desc="changes", unit="scene", disable=None):
        draw_growth(table, out / scene.scene / "growth.png")
        if scene.buildings["new"].any():
            draw_growing_place(scene, pictures.get(scene.scene, {}), out / scene.scene / "place.png")
        else:
            unchanged.append(scene.scene)
    layer = _layer(scenes)
    with atomic_file(out / "changes.gpkg") as temporary:
        temporary.unlink()  # GDAL would take the empty file for a damaged package
        kept = layer.astype(dict.fromkeys(DATES, "date32[day][pyarrow]"))
        kept.to_file(temporary, layer="new_buildings", engine="pyogrio", geometry_type="Unknown", use_arrow=True)
    whole = pd.concat(tables, ignore_index=True)
    with atomic_file(out / "growth.csv") as temporary:
        whole.to_csv(temporary, index=False)
    missing = tuple(scene.scene for scene in scenes if scene.scene not in pictures) if images else ()
    return ChangesReport(whole, len(layer), missing, tuple(unchanged))


def _layer(scenes: list[SceneTracks]) -> gpd.GeoDataFrame:
    """Return the new buildings of all scenes, in their CRS where it is one, else in longitude and latitude."""
    crs = scenes[0].buildings.crs if len({scene.buildings.crs for scene in scenes}) == 1 else LON_LAT
    found = [new_buildings(scene).to_crs(crs) for scene in scenes]
    return gpd.GeoDataFrame(pd.concat(found, ignore_index=True), crs=crs)


def _images(data: Path) -> Mapping[str, Mapping[str, Path]]:
    """Return the images of a data set, or of a scene, by scene and month."""
    if any((data / name).is_dir() for name in IMAGE_FOLDERS):
        scenes = [read_scene(data)]
    else:
        catalog = read_catalog(data)
        scenes = [*catalog.training, *catalog.final]
    return {scene.name: {image.date: image.path for image in scene.images} for scene in scenes}
