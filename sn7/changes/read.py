"""What `sn7 track` wrote → tables of buildings and of their months, scene by scene."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyogrio
from affine import Affine
from pyogrio.errors import DataLayerError, DataSourceError

from sn7.catalog import list_folder
from sn7.errors import TracksInvalid
from sn7.files import read_json
from sn7.tracking.run import ABOUT

__all__ = ["SceneTracks", "read_tracks"]

COLUMNS = ("Id", "first_month", "first_low", "first_high", "new", "mean_prob", "confidence", "area_m2")
"""Columns of the buildings that are needed; what they mean, `sn7.tracking.tables.as_tables` says."""
MONTH_COLUMNS = ("Id", "month", "standing", "presence")


@dataclass(frozen=True, eq=False)
class SceneTracks:
    """The tracks of a scene: n buildings, T months."""

    scene: str
    dates: tuple[str, ...]
    """YYYY-MM, in order."""
    valid_share: npt.NDArray[np.float64]
    """(T,), share of a month's pixels that is valid."""
    buildings: gpd.GeoDataFrame
    """(n,) rows, by Id; months as dates."""
    standing: npt.NDArray[np.bool_]
    """(n, T)"""
    presence: npt.NDArray[np.float64]
    """(n, T), probability that a building, if it is one, stands in a month."""
    shape: tuple[int, int]
    """Height and width of the grid, px."""
    transform: Affine
    """Column and row → x and y in the CRS of the buildings."""


def read_tracks(folder: Path) -> list[SceneTracks]:
    """Return the tracks of the scene, or of the scenes, that `sn7 track` wrote to a folder, by name.

    Raises TracksInvalid where there are none, or what belongs to them is missing or damaged.
    """
    places = [folder, *(path for _, path in sorted(list_folder(folder).items()) if path.is_dir())]
    found = [_read_scene(place) for place in places if (place / ABOUT).is_file()]
    if not found:
        what = "holds no tracks" if folder.is_dir() else "is not a folder" if folder.exists() else "does not exist"
        raise TracksInvalid(f"{folder} {what}; wanted a folder that `sn7 track` wrote, or one of its scenes: track it.")
    return found


def _read_scene(folder: Path) -> SceneTracks:
    try:
        about: dict[str, Any] = read_json(folder / ABOUT)
        scene, months, grid = str(about["scene"]), about["months"], about["grid"]
        if Path(scene).name != scene or scene in ("", ".."):
            raise ValueError(f"the scene {scene!r} leads to another folder")
        dates = tuple(str(month["month"]) for month in months)
        valid_share = np.array([month["valid_share"] for month in months], float)
        package = folder / f"{scene}.gpkg"
        buildings = pyogrio.read_dataframe(package, layer="buildings").sort_values("Id", ignore_index=True)
        table = pyogrio.read_dataframe(package, layer="months").sort_values(["Id", "month"], ignore_index=True)
        transform, shape = Affine.from_gdal(*grid["transform"]), (int(grid["height"]), int(grid["width"]))
    except (OSError, ValueError, KeyError, TypeError, DataLayerError, DataSourceError) as error:
        raise TracksInvalid(
            f"{folder} cannot be read as tracks ({error!r}); wanted {ABOUT} and the GeoPackage that `sn7 track` "
            "wrote beside it: track the scene again."
        ) from error
    _require(package, "buildings", buildings, COLUMNS)
    _require(package, "months", table, MONTH_COLUMNS)
    if len(table) != len(buildings) * len(dates):
        raise TracksInvalid(
            f"{package} has {len(table)} rows of months for {len(buildings)} buildings and {len(dates)} months; "
            "wanted one for each building and month: track the scene again."
        )
    size = len(buildings), len(dates)
    standing, presence = (table[name].to_numpy().reshape(size) for name in ("standing", "presence"))
    return SceneTracks(
        scene, dates, valid_share, buildings, standing.astype(bool), presence.astype(float), shape, transform
    )


def _require(package: Path, layer: str, table: pd.DataFrame, columns: tuple[str, ...]) -> None:
    missing = [name for name in columns if name not in table]
    if missing:
        raise TracksInvalid(
            f"{package} has a layer {layer} without {', '.join(missing)}; wanted what `sn7 track` writes: track the "
            "scene again."
        )
