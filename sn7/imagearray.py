"""One image and its labels → its prepared array and its row of the index."""

import hashlib

import numpy as np
import numpy.typing as npt

from sn7.catalog import Image
from sn7.footprints import Footprints, read_footprints
from sn7.masks import rasterize_mask, to_pixels, valid_mask
from sn7.prepared import CHANNELS, MASK, RGB, SEPARATION, VALID, PreparedImage
from sn7.rasters import RasterImage, read_image, read_udm
from sn7.separation import separation_channels

__all__ = ["image_array"]

Array = npt.NDArray[np.uint8]


def image_array(image: Image, source: str, separation: bool = False) -> tuple[Array, PreparedImage, list[str]]:
    """Return an image's array, uint8 (channels, height, width), its row, and a sentence for each thing left out.

    An image without one usable footprint is unlabelled: its mask is 0 and it is valid nowhere, since nobody
    knows where its buildings are. `source` is the fingerprint that the row will carry.
    Raises ImageUnreadable, LabelsUnreadable.
    """
    raster = read_image(image.path)
    footprints = read_footprints(image.labels, image.label_kind) if image.labels and image.label_kind else None
    array = np.zeros((CHANNELS[separation], *raster.shape), np.uint8)
    array[RGB] = raster.rgb
    if footprints:
        unusable = read_udm(image.udm, raster.shape) if image.udm else None
        grid = raster.shape, raster.transform, raster.crs
        pixels = to_pixels(footprints, *grid)
        array[MASK] = rasterize_mask(pixels, *grid)
        if separation:
            array[SEPARATION] = separation_channels(pixels, *grid)
        array[VALID] = valid_mask(raster.shape, raster.alpha, unusable)
    row = _row(image, raster, array, len(footprints or ()), source)
    return array, row, _left_out(image, footprints, row)


def _row(image: Image, raster: RasterImage, array: Array, footprints: int, source: str) -> PreparedImage:
    a, b, c, d, e, f = raster.transform[:6]
    valid_pixels = int(np.count_nonzero(array[VALID]))
    building_pixels = int(np.count_nonzero(array[MASK] & array[VALID]))
    return PreparedImage(
        scene=image.scene,
        image=image.name,
        date=image.date,
        height=raster.shape[0],
        width=raster.shape[1],
        transform=(a, b, c, d, e, f),
        crs=raster.crs.to_string(),
        lon=raster.lon,
        lat=raster.lat,
        labelled=footprints > 0,
        footprints=footprints,
        valid_share=valid_pixels / array[VALID].size,
        building_share=building_pixels / max(valid_pixels, 1),
        sha256=hashlib.sha256(array.data).hexdigest(),
        source=source,
    )


def _left_out(image: Image, footprints: Footprints | None, row: PreparedImage) -> list[str]:
    where = f"{image.scene}/{image.name}"
    if footprints is None:
        return [f"{where} is unlabelled: it has no label file."]
    defects = f"{footprints.null} null, {footprints.empty} empty, {footprints.other} no polygons"
    if not footprints:
        return [f"{where} is unlabelled: its label file has no usable footprint ({defects})."]
    sentences = []
    if footprints.left_out:
        total = len(footprints) + footprints.left_out
        sentences.append(f"{where}: {footprints.left_out} of {total} footprints left out ({defects}).")
    if row.valid_share == 0:
        sentences.append(f"{where} has footprints but no valid pixel.")
    return sentences
