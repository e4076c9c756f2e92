"""Outputs → a Cloud Optimized GeoTIFF: tiles and overviews in an order that a few requests over the web can read."""

import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import rasterio
import rasterio.shutil
from rasterio.errors import NotGeoreferencedWarning
from rasterio.windows import Window

from sn7.files import atomic_file
from sn7.predict.raw import RawOutputs

__all__ = ["write_cog"]

BLOCK = 512
ROWS = 64
"""Of a block of the copy without compression: whole blocks of the image's width are held while they are written."""
BANDS = ("probs", "boundary", "contact")
LAYOUT = {
    "BLOCKSIZE": BLOCK,
    "COMPRESS": "DEFLATE",
    "PREDICTOR": "FLOATING_POINT",
    "OVERVIEW_RESAMPLING": "AVERAGE",
    "BIGTIFF": "IF_SAFER",
}


def write_cog(raw: RawOutputs, path: Path, tags: Mapping[str, str | float], scratch: Path) -> None:
    """Write outputs with their CRS, transform, NaN as nodata, names of the bands and `tags`, atomically.

    `scratch` is a folder for a copy without compression, on the way. Raises DiskFull.
    """
    plain = scratch / "plain.tif"
    with warnings.catch_warnings(), atomic_file(path) as temporary:
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # which sn7 says itself, of the image
        _write_plain(raw, plain, tags)
        rasterio.shutil.copy(plain, temporary, driver="COG", **LAYOUT)
        plain.unlink()
        _read_last(temporary)  # GDAL may notice a full disk only as it closes a file, and says nothing


def _write_plain(raw: RawOutputs, path: Path, tags: Mapping[str, str | float]) -> None:
    height, width = raw.shape
    grid = {"height": height, "width": width, "crs": raw.crs, "transform": raw.transform}
    layout = {"tiled": True, "blockxsize": BLOCK, "blockysize": ROWS, "interleave": "band", "BIGTIFF": "IF_SAFER"}
    kind = {"driver": "GTiff", "count": raw.channels, "dtype": "float32", "nodata": np.nan}
    with rasterio.open(path, "w", **kind, **grid, **layout) as target:
        row = 0
        for strip in raw.strips(ROWS):  # whole blocks, so that none is written twice
            target.write(strip, window=Window(0, row, width, strip.shape[1]))
            row += strip.shape[1]
        target.update_tags(**tags)
        for band, name in enumerate(BANDS[: raw.channels], 1):
            target.set_band_description(band, name)
    _read_last(path)


def _read_last(path: Path) -> None:
    """Raise what rasterio raises where the end of a file is missing."""
    with rasterio.open(path) as written:
        for band in written.indexes:
            written.read(band, window=Window(written.width - 1, written.height - 1, 1, 1))
