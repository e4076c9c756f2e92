"""Buildings → tables with a place on the earth: a row a building, a row a building and month, footprints by month."""

from dataclasses import dataclass

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pandas as pd
from affine import Affine
from rasterio.crs import CRS

from sn7.ground import ground_m2
from sn7.tracking.track import Buildings

__all__ = ["LON_LAT", "Tables", "as_tables"]

LON_LAT = 4326
SURE = 0.95
"""Probability that the months from first_low to first_high have."""


@dataclass(frozen=True, eq=False)
class Tables:
    """What is written of a scene's buildings."""

    buildings: gpd.GeoDataFrame
    """A row each, in the CRS of the probs; columns: see `as_tables`."""
    months: pd.DataFrame
    """A row for each building and month: Id, month, mean_prob (NaN where not valid), seen, standing, presence."""
    footprints: dict[str, gpd.GeoDataFrame]
    """By month, YYYY-MM: what stands, in longitude and latitude."""


def as_tables(found: Buildings, transform: Affine, crs: CRS) -> Tables:
    """Return the tables of a scene's buildings, whose pixels lie at `transform` in `crs`.

    Columns of a building: Id; first_month and last_month, the first of the month as dates; new, whether it was not
    there in the scene's first month; gone, whether it is not in its last; first_low and first_high, the months between
    which the first one lies with probability 0.95; months_seen; months_bridged, in which it stands and is not seen;
    mean_prob, over the months in which it stands; confidence, of being a building, and where it is new, of being new;
    area_m2, true ground area.
    """
    standing = _standing(found)
    buildings = gpd.GeoDataFrame(
        _columns(found, standing), geometry=_place(found.outlines, transform, crs).array, crs=crs
    )
    buildings["area_m2"] = ground_m2(buildings.geometry).round(1)
    return Tables(buildings, _months(found, standing), _footprints(found, buildings, transform, crs))


def _standing(found: Buildings) -> npt.NDArray[np.bool_]:
    month = np.arange(len(found.tracks.months))
    standing: npt.NDArray[np.bool_] = (month >= found.first[:, None]) & (month <= found.last[:, None])
    return standing


def _columns(found: Buildings, standing: npt.NDArray[np.bool_]) -> dict[str, npt.NDArray[np.generic]]:
    dates = np.array(found.tracks.months, "datetime64[M]").astype("datetime64[D]")
    probs = np.where(standing, np.nan_to_num(found.probs), 0).sum(axis=1)
    mean = probs / np.maximum((standing & np.isfinite(found.probs)).sum(axis=1), 1)
    new = found.first > 0
    low, high = _first_between(found)
    return {
        "Id": found.ids,
        "first_month": dates[found.first].astype("datetime64[ms]"),
        "last_month": dates[found.last].astype("datetime64[ms]"),
        "new": new,
        "gone": found.last < len(dates) - 1,
        "first_low": dates[low].astype("datetime64[ms]"),
        "first_high": dates[high].astype("datetime64[ms]"),
        "months_seen": found.seen.sum(axis=1),
        "months_bridged": (standing & ~found.seen).sum(axis=1),
        "mean_prob": mean.round(4),
        "confidence": (mean * np.where(new, 1 - found.presence[:, 0], 1)).round(4),
    }


def _first_between(found: Buildings) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return the months in which the probability of having been built passes 0.025 and 0.975; around `first`."""
    built = np.maximum.accumulate(found.presence, axis=1)
    low, high = ((built >= share).argmax(axis=1) for share in ((1 - SURE) / 2, (1 + SURE) / 2))
    never = built[:, -1:].max(axis=1, initial=0) < (1 + SURE) / 2
    high = np.where(never, len(found.tracks.months) - 1, high)
    return np.minimum(low, found.first), np.maximum(high, found.first)


def _months(found: Buildings, standing: npt.NDArray[np.bool_]) -> pd.DataFrame:
    dates = found.tracks.months
    return pd.DataFrame(
        {
            "Id": np.repeat(found.ids, len(dates)),
            "month": np.tile(np.array(dates, object), len(found.ids)),
            "mean_prob": found.probs.ravel().astype(float).round(4),
            "seen": found.seen.ravel(),
            "standing": standing.ravel(),
            "presence": found.presence.ravel().astype(float).round(4),
        }
    )


def _footprints(
    found: Buildings, buildings: gpd.GeoDataFrame, transform: Affine, crs: CRS
) -> dict[str, gpd.GeoDataFrame]:
    """Return what stands in each month; an outline that is one for many months is reprojected once."""
    tracks = found.tracks
    _, first, place = np.unique([id(shape) for shape in tracks.geometry], return_index=True, return_inverse=True)
    outlines = _place(tracks.geometry[first], transform, crs).to_crs(LON_LAT).array
    about = buildings.drop(columns="geometry")
    for name in ("first_month", "last_month", "first_low", "first_high"):
        about[name] = about[name].dt.strftime("%Y-%m")
    row = tracks.ids - 1
    probs, seen = found.probs[row, tracks.month].astype(float).round(4), found.seen[row, tracks.month]
    months = {}
    for month, date in enumerate(tracks.months):
        rows = np.flatnonzero(tracks.month == month)
        table = about.iloc[row[rows]][["Id", "first_month", "last_month", "new", "confidence", "area_m2"]]
        columns = {"seen": seen[rows], "mean_prob": probs[rows]}
        months[date] = gpd.GeoDataFrame(
            table.assign(**columns).reset_index(drop=True), geometry=outlines[place[rows]], crs=LON_LAT
        )
    return months


def _place(outlines: npt.NDArray[np.object_], transform: Affine, crs: CRS) -> gpd.GeoSeries:
    return gpd.GeoSeries(outlines, crs=crs).affine_transform(transform.to_shapely())
