"""What can be wrong with a file of a data set, and what that leads to."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from sn7.errors import Sn7Error

__all__ = ["CONSEQUENCES", "KINDS", "Consequence", "Finding", "Reader", "attempt", "finding"]

T = TypeVar("T")
Consequence = Literal["stops prepare", "stops predict", "left out", "repaired", "used", "not read"]
Reader = Literal["prepare", "predict"] | None
"""The command that reads a file; None for a file that no command reads."""

CONSEQUENCES: dict[Consequence, str] = {
    "stops prepare": "`sn7 prepare` refuses the data set until this is mended",
    "stops predict": "`sn7 predict` and `sn7 explore` stop at this; training is not concerned",
    "left out": "counted by no loss and no metric",
    "repaired": "used after a correction",
    "used": "harmless: used as it is",
    "not read": "no command reads the file",
}
"""Each with what it means, the gravest first."""

KINDS: dict[str, tuple[Consequence, str]] = {
    "nothing_to_train": ("stops prepare", "no scene to train on"),
    "folder": ("stops prepare", "folder that is no scene, is one twice, or cannot be listed"),
    "image_name": ("stops prepare", "image whose name does not tell its month"),
    "duplicate_month": ("stops prepare", "second image of a month"),
    "image_refused": ("stops prepare", "image that cannot be used"),
    "udm_refused": ("stops prepare", "UDM mask that cannot be used"),
    "labels_refused": ("stops prepare", "label file that cannot be read"),
    "footprints_elsewhere": ("stops prepare", "footprints elsewhere than their image"),
    "scene_unlabelled": ("stops prepare", "scene to train on without one usable footprint"),
    "unlabelled": ("left out", "image without a label file: unlabelled, so invalid everywhere"),
    "no_footprints": ("left out", "label file without one usable footprint"),
    "no_valid_pixel": ("left out", "image without one valid pixel"),
    "raw_only": ("left out", "month that is in images/ but not in images_masked/"),
    "to_predict": ("left out", "image without labels in test_public/, to predict only"),
    "null_geometry": ("left out", "features without a geometry"),
    "empty_geometry": ("left out", "features whose geometry is empty"),
    "no_polygon": ("left out", "features that are no polygon"),
    "outside": ("repaired", "footprints that reach over the image's border: cut off there"),
    "self_intersection": ("repaired", "footprints with crossing lines: filled by even-odd"),
    "interior_rings": ("repaired", "footprints with courtyards: kept open"),
    "three_d": ("repaired", "footprints with heights: flattened"),
    "reprojected": ("repaired", "footprints in another CRS than their image: reprojected"),
    "multipolygon": ("used", "footprints of several parts: every part counts"),
    "duplicate_id": ("used", "Ids that several footprints of a month share"),
    "other_labels": ("used", "labels_match/ lacks the image: the next label folder counts"),
    "alpha_unmarked": ("used", "fourth band taken for alpha, though the file does not call it so"),
    "no_alpha": ("used", "image without alpha: valid but for its UDM"),
    "same_pixels": ("used", "image with the pixels of another month"),
    "size_1023": ("used", "image with 1023 px in one dimension, as published"),
    "size": ("used", "image of another size than its tile"),
    "tile_unknown": ("used", "scene whose name tells no place: not to be checked"),
    "other_grid": ("used", "image on another grid than its tile's"),
    "displaced": ("used", "image that lies elsewhere than its scene's name says"),
    "mixed_grids": ("used", "image on another grid than most of its scene"),
    "months_missing": ("used", "scene without some months of the data set"),
    "stray_labels": ("not read", "label file whose name is no image's: wanted <image>_Buildings.geojson"),
    "stray_udm": ("not read", "UDM mask whose name is no image's: wanted <image>_UDM.tif"),
}
"""Each with its consequence, if a command reads the file, and a heading."""


@dataclass(frozen=True)
class Finding:
    """One thing about one file, or folder, that a user may want to know."""

    kind: str
    """One of KINDS."""
    consequence: Consequence
    path: Path
    found: str
    """What exactly; "" where the kind says it all."""
    count: int = 1
    """Number of features, or months, concerned; 1 where it is the file."""


def finding(kind: str, path: Path, found: str = "", count: int = 1, reader: Reader = "prepare") -> Finding:
    """Return a finding about a file that the command `reader` reads."""
    consequence = KINDS[kind][0]
    if reader is None:
        consequence = "not read"
    elif reader == "predict" and consequence == "stops prepare":
        consequence = "stops predict"
    return Finding(kind, consequence, path, found, count)


def attempt(findings: list[Finding], kind: str, path: Path, reader: Reader, call: Callable[[], T]) -> T | None:
    """Return what `call` does with a file; where it raises a Sn7Error, add that to the findings and return None."""
    try:
        return call()
    except Sn7Error as error:
        findings.append(finding(kind, path, str(error).removeprefix(f"{path} "), reader=reader))
        return None
