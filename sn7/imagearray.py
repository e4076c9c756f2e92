"""One image and its labels → its prepared array, its fine labels, its footprints and its row of the index."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sn7.catalog import Image
from sn7.footprints import Footprints, packed, read_footprints
from sn7.masks import oracle_mask, rasterize_mask, refined, to_pixels, valid_mask
from sn7.prepared import CHANNELS, MASK, RGB, SEPARATION, VALID, PreparedImage
from sn7.rasters import RasterImage, read_image, read_udm
from sn7.separation import separation_channels

__all__ = ["ImageArrays", "image_arrays"]

Array = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class ImageArrays:
    """What an image is prepared to."""

    array: Array
    """uint8 (channels, height, width); see sn7.prepared."""
    fine: dict[int, Array]
    """Its labels at each scale, bit-packed uint8 (planes, scale · height, ⌈scale · width / 8⌉)."""
    footprints: Array
    """Its footprints, packed: uint8 (n,)."""
    row: PreparedImage
    left_out: list[str]
    """A sentence for each thing that was not used."""


def image_arrays(image: Image, source: str, separation: bool = False, upscales: Sequence[int] = ()) -> ImageArrays:
    """Return an image's array, its labels at the scales `upscales`, and its row.

    An image without one usable footprint is unlabelled: its mask is 0 and it is valid nowhere, since nobody
    knows where its buildings are. `source` is the fingerprint that the row will carry.
    Raises ImageUnreadable, LabelsUnreadable.
    """
    raster = read_image(image.path)
    footprints = read_footprints(image.labels, image.label_kind) if image.labels and image.label_kind else None
    array = np.zeros((CHANNELS[separation], *raster.shape), np.uint8)
    array[RGB] = raster.rgb
    grid = raster.shape, raster.transform, raster.crs
    pixels, ceiling = None, (0, 0, 0)
    if footprints:
        unusable = read_udm(image.udm, raster.shape) if image.udm else None
        pixels = to_pixels(footprints, *grid)
        array[MASK] = rasterize_mask(pixels, *grid)
        if separation:
            array[SEPARATION] = separation_channels(pixels, *grid)
        array[VALID] = valid_mask(raster.shape, raster.alpha, unusable)
        ceiling = _ceiling(array, oracle_mask(pixels, *grid))
    fine = {scale: _fine_labels(pixels, raster, scale, separation) for scale in upscales}
    checksum = hashlib.sha256(array.data)
    truth = packed(pixels)
    for labels in (*fine.values(), truth):
        checksum.update(labels.data)
    row = _row(image, raster, array, len(footprints or ()), ceiling, checksum.hexdigest(), source)
    return ImageArrays(array, fine, truth, row, _left_out(image, footprints, row))


def _fine_labels(pixels: Footprints | None, raster: RasterImage, scale: int, separation: bool) -> Array:
    """Return labels on the image's grid refined `scale` times, bit-packed; 0 where there are no footprints."""
    height, width = scale * raster.shape[0], scale * raster.shape[1]
    packed = np.zeros((3 if separation else 1, height, -(-width // 8)), np.uint8)
    if pixels:
        mask = rasterize_mask(refined(pixels, scale), (height, width), raster.transform, raster.crs)
        packed[0] = np.packbits(mask, axis=1)
        if separation:
            channels = separation_channels(pixels, raster.shape, raster.transform, raster.crs, scale)
            packed[1:] = np.packbits(channels, axis=2)
    return packed


def _ceiling(array: Array, oracle: Array) -> tuple[int, int, int]:
    """Return the TP, FP and FN of a perfect prediction, over valid pixels."""
    building, found = array[MASK] & array[VALID], oracle & array[VALID]
    true = int(np.count_nonzero(building & found))
    return true, int(np.count_nonzero(found)) - true, int(np.count_nonzero(building)) - true


def _row(
    image: Image,
    raster: RasterImage,
    array: Array,
    footprints: int,
    ceiling: tuple[int, int, int],
    sha256: str,
    source: str,
) -> PreparedImage:
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
        ceiling=ceiling,
        sha256=sha256,
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
