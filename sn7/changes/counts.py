"""Tracks → how many buildings, and how much built-up area, there are in each month, with intervals."""

import geopandas as gpd
import numpy as np
import pandas as pd

from sn7.changes.read import SceneTracks

__all__ = ["WIDTH", "growth", "new_buildings"]

WIDTH = 1.96
"""Standard deviations to either side: 95 % of a normal distribution."""


def growth(tracks: SceneTracks) -> pd.DataFrame:
    """Return a row for each month of a scene.

    Columns: scene; month, YYYY-MM; valid_share; buildings, buildings_low, buildings_high; area_m2, area_low, area_high;
    new_buildings and new_area_m2, of those whose first month it is, none in the scene's first one.

    The interval is the count ± 1.96 standard deviations. Its variance sums p (1 - p) over the buildings, of areas
    p (1 - p) area²; p is the probability that the building is one, its mean prob, times that of standing in the month.
    So errors of single buildings count as independent, and false finds as balanced by misses; an error that all share,
    such as the model's, is not in it.
    """
    buildings = tracks.buildings
    area = buildings["area_m2"].to_numpy(float)
    sure = buildings["mean_prob"].to_numpy(float)[:, None] * tracks.presence
    doubt = sure * (1 - sure)
    count, built = tracks.standing.sum(axis=0), (area[:, None] * tracks.standing).sum(axis=0)
    wide, wide_area = WIDTH * np.sqrt(doubt.sum(axis=0)), WIDTH * np.sqrt((doubt * area[:, None] ** 2).sum(axis=0))
    began = tracks.standing & ~np.pad(tracks.standing[:, :-1], ((0, 0), (1, 0)), constant_values=True)
    return pd.DataFrame(
        {
            "scene": tracks.scene,
            "month": list(tracks.dates),
            "valid_share": tracks.valid_share.round(4),
            "buildings": count,
            "buildings_low": (count - wide).clip(0).round(1),
            "buildings_high": (count + wide).round(1),
            "area_m2": built.round(1),
            "area_low": (built - wide_area).clip(0).round(1),
            "area_high": (built + wide_area).round(1),
            "new_buildings": began.sum(axis=0),
            "new_area_m2": (area[:, None] * began).sum(axis=0).round(1),
        }
    )


def new_buildings(tracks: SceneTracks) -> gpd.GeoDataFrame:
    """Return the buildings that were not there in the scene's first month, surest first, with the name of the scene.

    Columns: scene, Id, first_month (of which the first day stands for all), first_low and first_high (the months
    between which it lies with probability 0.95), confidence (that it is a building and new), area_m2, geometry.
    """
    columns = ["Id", "first_month", "first_low", "first_high", "confidence", "area_m2", "geometry"]
    new = tracks.buildings[tracks.buildings["new"].astype(bool)]
    found = new.sort_values(["confidence", "Id"], ascending=[False, True], ignore_index=True)[columns]
    found.insert(0, "scene", tracks.scene)
    return found
