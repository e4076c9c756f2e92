"""One image and its files → facts and findings: the work of one process."""

import hashlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sn7.catalog import LABEL_FOLDERS
from sn7.check.findings import Finding, Reader, attempt, finding
from sn7.check.grids import Grid, examine_grid
from sn7.check.inventory import ImageFiles
from sn7.check.labels import examine_labels
from sn7.footprints import read_footprints
from sn7.masks import rasterize_mask, valid_mask
from sn7.rasters import RasterImage, read_image, read_udm

__all__ = ["ImageReport", "examine_image"]

Array = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class ImageReport:
    """What is known of an image after its files were read."""

    files: ImageFiles
    grid: Grid | None
    """None where the image cannot be used."""
    unusable_share: float | None
    """Share of the pixels with alpha 0 or under the UDM, 0 to 1; None where image or UDM cannot be used."""
    footprints: int | None
    """Usable ones of the label file that counts; 0 without labels, None where that file cannot be used."""
    building_share: float | None
    """Share of the usable pixels that are building, 0 to 1; None where unlabelled or a file cannot be used."""
    pixels: str
    """Fingerprint of R, G and B; "" where image or UDM cannot be used, or no pixel is usable."""
    findings: tuple[Finding, ...]


def examine_image(files: ImageFiles) -> ImageReport:
    """Read an image and all its files; whatever is wrong with them is among the findings, no error is raised."""
    findings: list[Finding] = []
    path = files.image.path
    raster = attempt(findings, "image_refused", path, files.reader, lambda: read_image(path))
    count, mask = _labels(files, raster, findings)
    valid = _valid(files, raster, count, findings) if raster else None
    for other in files.unread:
        kind = "image_refused" if other.suffix == ".tif" else "labels_refused"
        attempt(findings, kind, other, None, partial(_read, other))
    usable = int(valid.sum()) if valid is not None else 0
    return ImageReport(
        files=files,
        grid=examine_grid(files.image, raster, findings) if raster else None,
        unusable_share=1 - usable / valid.size if valid is not None else None,
        footprints=count,
        building_share=int((mask & valid).sum()) / max(usable, 1) if mask is not None and valid is not None else None,
        pixels=hashlib.sha256(raster.rgb.data).hexdigest() if raster and usable else "",
        findings=tuple(findings),
    )


def _read(path: Path) -> object:
    return read_image(path) if path.suffix == ".tif" else read_footprints(path, "labels")


def _labels(files: ImageFiles, raster: RasterImage | None, findings: list[Finding]) -> tuple[int | None, Array | None]:
    """Return the number of footprints that count, None where their file cannot be used, and their mask if any."""
    image, training = files.image, files.part == "train"
    if image.labels is None:
        findings.append(finding("unlabelled" if training else "to_predict", image.path))
    count: int | None = 0
    mask = None
    for kind, path in files.labels.items():
        used = training and kind == image.label_kind
        footprints = examine_labels(path, kind, raster, "prepare" if used else None, findings)
        if used:
            count = len(footprints) if footprints is not None else None
        if used and footprints and raster:
            rasterise = partial(rasterize_mask, footprints, raster.shape, raster.transform, raster.crs)
            mask = attempt(findings, "footprints_elsewhere", path, "prepare", rasterise)
    if training and image.label_kind not in (LABEL_FOLDERS[0], None):
        findings.append(finding("other_labels", image.path, f"{image.label_kind}/"))
    return count, mask


def _valid(files: ImageFiles, raster: RasterImage, count: int | None, findings: list[Finding]) -> Array | None:
    """Return which pixels alpha and UDM leave; None where the UDM cannot be used."""
    udm, unusable = files.image.udm, None
    labelled = count != 0 or files.part == "test_public"
    if udm:
        # prepare wants the UDM of an unlabelled image to be there, but does not read it; predict and explore do
        reader: Reader = files.reader if labelled or not udm.exists() else "predict"
        unusable = attempt(findings, "udm_refused", udm, reader, lambda: read_udm(udm, raster.shape))
        if unusable is None:
            return None
    valid = valid_mask(raster.shape, raster.alpha, unusable)
    if labelled and not valid.any():
        findings.append(finding("no_valid_pixel", files.image.path))
    return valid
