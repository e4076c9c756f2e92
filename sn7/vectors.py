"""Polygons → a file, table by table as they come: GeoJSON, GeoPackage or GeoParquet.

GeoJSON is RFC 7946: longitude and latitude (WGS 84) with 7 decimals (1 cm), outer rings anticlockwise, no `crs` member.
The other two keep the CRS of the polygons. Polygons without a CRS keep their coordinates in all three.
"""

import json
import warnings
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

import geopandas as gpd
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyogrio
import pyproj
import shapely

from sn7.files import atomic_file

__all__ = ["FORMATS", "write_geojson", "write_polygons"]

FORMATS = ("geojson", "gpkg", "parquet")
"""Endings of the files."""
_WKB = {"ARROW:extension:name": "geoarrow.wkb"}
_SCHEMA = pa.schema(
    [
        pa.field("Id", pa.int64()),
        pa.field("area_m2", pa.float64()),
        pa.field("mean_prob", pa.float64()),
        pa.field("geometry", pa.binary(), metadata=_WKB),
    ]
)
_DECIMALS = {"area_m2": 1, "mean_prob": 4}


def write_polygons(tables: Iterable[gpd.GeoDataFrame], path: Path) -> int:
    """Write tables as `sn7.polygons` makes them, one at least; return the number of polygons.

    The ending of `path` is one of FORMATS. The file is complete or not there, whatever the tables' source raises.
    """
    coming = iter(tables)
    first = next(coming)
    counted = _Counted(first, coming)
    with atomic_file(path) as temporary:
        try:
            if path.suffix == ".parquet":
                _write_parquet(counted, temporary, first.crs)
            else:
                _write_gdal(counted, temporary, first.crs, path)
        except RuntimeError:
            if counted.error:  # of which Arrow only says that there was one
                raise counted.error from None
            raise
    return counted.count


def write_geojson(polygons: gpd.GeoDataFrame, path: Path) -> None:
    """Write polygons with whatever columns they have as an RFC 7946 FeatureCollection, atomically.

    No polygons give an empty FeatureCollection.
    """
    with atomic_file(path) as temporary:
        polygons.round(_DECIMALS).to_crs(4326).to_file(
            temporary,
            driver="GeoJSON",
            engine="pyogrio",
            geometry_type="Polygon",
            layer=path.stem,
            RFC7946="YES",
        )


class _Counted:
    """The tables, as they are asked for: how many polygons there were, and what their source raised."""

    def __init__(self, first: gpd.GeoDataFrame, rest: Iterator[gpd.GeoDataFrame]) -> None:
        self.first, self.rest, self.count = first, rest, 0
        self.error: BaseException | None = None

    def __iter__(self) -> Iterator[gpd.GeoDataFrame]:
        try:
            for table in chain([self.first], self.rest):
                self.count += len(table)
                yield table
        except BaseException as error:
            self.error = error
            raise


def _write_gdal(tables: Iterable[gpd.GeoDataFrame], temporary: Path, crs: pyproj.CRS | None, path: Path) -> None:
    geojson = path.suffix == ".geojson"
    lonlat = geojson and crs is not None
    batches = (_batch(table.to_crs(4326) if lonlat else table) for table in tables)
    options = {"RFC7946": "YES"} if lonlat else {"COORDINATE_PRECISION": 3} if geojson else {}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="'crs' was not provided", category=UserWarning)
        pyogrio.write_arrow(
            pa.RecordBatchReader.from_batches(_SCHEMA, batches),
            temporary,
            driver="GeoJSON" if geojson else "GPKG",
            layer=path.stem,
            geometry_name="geometry",
            geometry_type="Polygon",
            crs="EPSG:4326" if lonlat else crs.to_wkt() if crs else None,
            **options,
        )


def _write_parquet(tables: Iterable[gpd.GeoDataFrame], temporary: Path, crs: pyproj.CRS | None) -> None:
    """Write GeoParquet 1.1, a row group a table."""
    bounds = np.array([np.inf, np.inf, -np.inf, -np.inf])
    with pq.ParquetWriter(temporary, _SCHEMA.remove_metadata(), compression="zstd") as writer:
        for table in tables:
            if len(table):
                writer.write_batch(_batch(table))
                low, high = bounds[:2], table.total_bounds
                bounds = np.concatenate([np.minimum(low, high[:2]), np.maximum(bounds[2:], high[2:])])
        column = {"encoding": "WKB", "geometry_types": ["Polygon"], "crs": crs.to_json_dict() if crs else None}
        if np.isfinite(bounds).all():
            column["bbox"] = bounds.tolist()
        geo = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}
        writer.add_key_value_metadata({"geo": json.dumps(geo)})


def _batch(table: gpd.GeoDataFrame) -> pa.RecordBatch:
    columns = {name: np.round(table[name].to_numpy(), decimals) for name, decimals in _DECIMALS.items()}
    return pa.RecordBatch.from_arrays(
        [
            pa.array(table["Id"].to_numpy(), pa.int64()),
            *(pa.array(columns[name], pa.float64(), from_pandas=True) for name in _DECIMALS),
            pa.array(shapely.to_wkb(table.geometry.array), pa.binary()),
        ],
        schema=_SCHEMA,
    )
