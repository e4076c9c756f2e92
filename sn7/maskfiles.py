"""The masks of a prepared data set as GeoTIFFs, to look at in QGIS."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import rasterio
from affine import Affine
from tqdm import tqdm

from sn7.files import atomic_file, require_writable
from sn7.prepared import MASK, VALID, PreparedImage, load_prepared

__all__ = ["NODATA", "MaskFiles", "write_masks"]

NODATA = 255
"""Of pixels that are not valid."""
COLOURS = {0: (38, 38, 46), 1: (255, 159, 28), NODATA: (150, 150, 150)}
"""Background, building, and what is not valid where a viewer does not hide it."""
LAYOUT = {"compress": "deflate", "tiled": True, "blockxsize": 256, "blockysize": 256}


@dataclass(frozen=True)
class MaskFiles:
    """What a run of `write_masks` did."""

    written: tuple[Path, ...]
    scenes: int
    """Scenes of the masks written."""
    unlabelled: int
    """Images left out: nobody knows where their buildings are."""


def write_masks(prepared: str | Path, out: Path) -> MaskFiles:
    """Write OUT/<scene>/<image>_mask.tif for each labelled image of a prepared folder or URL, in place of older ones.

    uint8 on the image's own grid: 0 background, 1 building, NODATA where the image is not valid.
    Raises PreparedInvalid, FolderUnwritable, DiskFull.
    """
    source = load_prepared(prepared)
    require_writable(out)
    labelled = [image for image in source.images if image.labelled]
    paths = [out / image.scene / f"{image.image}_mask.tif" for image in labelled]
    jobs = zip(labelled, paths, strict=True)
    for image, path in tqdm(jobs, total=len(paths), desc="masks", unit="image", disable=None):
        pixels = source.pixels(image)
        _write(path, image, np.where(pixels[VALID] == 1, pixels[MASK], NODATA).astype(np.uint8))
    return MaskFiles(tuple(paths), len({image.scene for image in labelled}), len(source.images) - len(labelled))


def _write(path: Path, image: PreparedImage, mask: npt.NDArray[np.uint8]) -> None:
    place = {"height": image.height, "width": image.width, "crs": image.crs, "transform": Affine(*image.transform)}
    kind = {"driver": "GTiff", "count": 1, "dtype": "uint8", "nodata": NODATA}
    with atomic_file(path) as temporary, rasterio.open(temporary, "w", **kind, **place, **LAYOUT) as raster:
        raster.write(mask, 1)
        raster.write_colormap(1, COLOURS)
        raster.set_band_description(1, "mask")
        raster.update_tags(VALUES=f"0 background, 1 building, {NODATA} not valid")
