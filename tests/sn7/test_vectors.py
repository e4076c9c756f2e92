import json
from pathlib import Path

import geopandas as gpd
import numpy as np
import pyarrow.parquet as pq
import pyogrio
import pytest
import shapely

from sn7.vectors import FORMATS, write_polygons

SQUARE = shapely.Polygon(
    [(0, 0), (0, 30), (30, 30), (30, 0)], [[(10, 10), (20, 10), (20, 20), (10, 20)]]
)  # clockwise outside, anticlockwise inside


def table(first_id: int, count: int, crs: int | None = 32631) -> gpd.GeoDataFrame:
    """Return squares with a hole, 100 m apart, near 3° E on the equator."""
    shapes = [shapely.affinity.translate(SQUARE, 500_000 + 100 * i, 1000) for i in range(count)]
    columns = {
        "Id": np.arange(first_id, first_id + count),
        "area_m2": np.full(count, 800.04 if crs else np.nan),
        "mean_prob": np.full(count, 0.812345),
    }
    return gpd.GeoDataFrame(columns, geometry=shapes, crs=crs)


def read(path: Path) -> gpd.GeoDataFrame:
    """Read a file of any of the formats."""
    return gpd.read_parquet(path) if path.suffix == ".parquet" else gpd.read_file(path)


@pytest.mark.parametrize("ending", FORMATS)
def test_tables_come_back(tmp_path: Path, ending: str) -> None:
    """Two tables and an empty one between them are one file, in the CRS that the format has."""
    path = tmp_path / f"x.{ending}"
    tables = [table(1, 3), table(4, 0), table(4, 2)]
    assert write_polygons(iter(tables), path) == 5
    found = read(path)
    assert found["Id"].tolist() == [1, 2, 3, 4, 5]
    assert found["area_m2"].tolist() == [800.0] * 5 and found["mean_prob"].tolist() == [0.8123] * 5
    assert found.crs == (4326 if ending == "geojson" else 32631)
    metres = found.to_crs(32631).geometry
    assert metres.total_bounds == pytest.approx([500_000, 1000, 500_230, 1030], abs=0.02)
    assert [len(polygon.interiors) for polygon in metres] == [1] * 5
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("ending", FORMATS)
def test_no_polygons(tmp_path: Path, ending: str) -> None:
    """An empty table is a file with all columns and no rows."""
    path = tmp_path / f"x.{ending}"
    assert write_polygons([table(1, 0)], path) == 0
    found = read(path)
    assert len(found) == 0
    if ending == "geojson":
        assert json.loads(path.read_text())["features"] == []
    else:
        assert set(found.columns) == {"Id", "area_m2", "mean_prob", "geometry"} and found.crs == 32631


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.filterwarnings("error")
def test_without_a_crs_coordinates_stay(tmp_path: Path, ending: str) -> None:
    """They are no longitudes and latitudes, whatever a reader of GeoJSON says; the area is null."""
    path = tmp_path / f"x.{ending}"
    write_polygons([table(1, 2, crs=None)], path)
    found = read(path)
    assert found.geometry.total_bounds == pytest.approx([500_000, 1000, 500_130, 1030])
    assert found["area_m2"].isna().all()
    if ending != "geojson":
        assert found.crs is None


def test_geojson_is_rfc_7946(tmp_path: Path) -> None:
    """Longitude first, 7 decimals, outer ring anticlockwise and hole clockwise, no crs member."""
    path = tmp_path / "x.geojson"
    write_polygons([table(1, 1)], path)
    written = json.loads(path.read_text())
    assert written["type"] == "FeatureCollection" and "crs" not in written
    (feature,) = written["features"]
    assert feature["properties"] == {"Id": 1, "area_m2": 800.0, "mean_prob": 0.8123}
    outer, hole = (np.array(ring) for ring in feature["geometry"]["coordinates"])
    assert shapely.is_ccw(shapely.linearrings(outer)) and not shapely.is_ccw(shapely.linearrings(hole))
    assert outer[:, 0].min() == pytest.approx(3, abs=1e-7) and 0.008 < outer[:, 1].min() < 0.0095
    assert all(round(value, 7) == value for value in np.concatenate([outer, hole]).ravel())


def test_geoparquet_says_what_it_holds(tmp_path: Path) -> None:
    """Its metadata name the geometry, its kind, the CRS and the bounds."""
    path = tmp_path / "x.parquet"
    write_polygons([table(1, 2)], path)
    geo = json.loads(pq.ParquetFile(path).metadata.metadata[b"geo"])
    column = geo["columns"][geo["primary_column"]]
    assert (geo["version"], column["encoding"], column["geometry_types"]) == ("1.1.0", "WKB", ["Polygon"])
    assert column["crs"]["id"]["code"] == 32631 and column["bbox"] == [500_000, 1000, 500_130, 1030]


def test_a_geopackage_has_one_layer_of_its_name(tmp_path: Path) -> None:
    """Not of the temporary file's."""
    write_polygons([table(1, 1)], tmp_path / "town.gpkg")
    assert pyogrio.list_layers(tmp_path / "town.gpkg").tolist() == [["town", "Polygon"]]


@pytest.mark.parametrize("ending", FORMATS)
def test_an_error_between_tables_leaves_nothing(tmp_path: Path, ending: str) -> None:
    """What their source raises comes through, and neither file nor temporary file stays."""

    def tables():  # type: ignore[no-untyped-def]
        yield table(1, 2)
        raise OSError("read error")

    with pytest.raises(OSError, match="read error"):
        write_polygons(tables(), tmp_path / f"x.{ending}")
    assert list(tmp_path.iterdir()) == []
