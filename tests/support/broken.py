"""Every defect that a data set can have, each made on one image of a sample; and a sample that has them all."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from damage import (
    ALL,
    Make,
    cut,
    dangling,
    enlarged,
    labels,
    polygon,
    regridded,
    rewritten_image,
    rewritten_labels,
    ring,
    udm_of,
    unlabelled_with_cut_udm,
    unlabelled_with_dangling_udm,
    utm,
    with_feature,
    with_profile,
    without_labels,
)
from lost import (
    copied,
    cut_test_image,
    emptied_labels,
    file_for_folder,
    imageless,
    imageless_udm,
    in_both_parts,
    like_an_image,
    link_to_nowhere,
    nameless,
    no_training,
    only_raw,
    other_ending,
    pixels_of_last_month,
    removed,
    renamed,
    scene_without,
)

from sn7.sample import make_sample

__all__ = ["DEFECTS", "Defect", "break_everything", "first_image", "make_clean"]


@dataclass(frozen=True)
class Defect:
    """One thing to break, and what `sn7 check` has to say of it."""

    kind: str
    consequence: str
    make: Make
    also: tuple[str, ...] = ()
    """Kinds of findings that it brings along."""
    scope: str = "image"
    """What else cannot be broken beside it: "image", the "scene", or the whole "data"."""


def make_clean(out: Path, scenes: int = 2, months: int = 3) -> Path:
    """Write the sample that is to be broken: 64 px, so that it is made and read in a moment."""
    make_sample(out, scenes=scenes, months=months, size=64)
    return out


def first_image(data: Path, scene: int = 0, month: int = 0) -> Path:
    """Return an image of a training scene."""
    return sorted(sorted((data / "train").iterdir())[scene].glob("images_masked/*.tif"))[month]


def break_everything(out: Path, stopping: bool = True) -> list[tuple[Defect, Path]]:
    """Write a sample with every defect but those that leave nothing else; return each with the file it names.

    Without those that are `stopping` a command, it can still be prepared and looked at.
    """
    wanted = [defect for defect in DEFECTS.values() if stopping or not defect.consequence.startswith("stops")]
    scenes = [defect for defect in wanted if defect.scope == "scene"]
    # the first month stays whole, and the one after it has its pixels
    singles = sorted(
        (defect for defect in wanted if defect.scope == "image"), key=lambda defect: defect.kind != "same_pixels"
    )
    make_clean(out, scenes=1 + len(scenes))
    longer = make_clean(out / "longer", scenes=1, months=1 + len(singles))
    shutil.copytree(longer / "train", out / "train", dirs_exist_ok=True)
    shutil.rmtree(longer)
    (long,) = (scene for scene in (out / "train").iterdir() if len(list(scene.glob("images/*"))) > 3)
    places = sorted(long.glob("images_masked/*.tif"))[1:]
    places += [min(scene.glob("images_masked/*.tif")) for scene in sorted((out / "train").iterdir()) if scene != long]
    return [(defect, defect.make(place)) for defect, place in zip(singles + scenes, places, strict=True)]


DEGREES = {"type": "name", "properties": {"name": "EPSG:4326"}}
NOWHERE = {"type": "name", "properties": {"name": "here"}}
HOLE = polygon(ring(2, 2, 8), ring(4, 4, 3))
BOW_TIE = polygon([[2, 2], [9, 9], [9, 2], [2, 9], [2, 2]])
TWO_PARTS = {"type": "MultiPolygon", "coordinates": [[ring(2, 2, 3)], [ring(8, 8, 3)]]}
HIGH = polygon([[*position, 7.5] for position in ring(2, 2, 4)])
EMPTY_LINE: dict[str, Any] = {"type": "LineString", "coordinates": []}
LINE = {"type": "LineString", "coordinates": [[1, 1], [5, 5]]}
STOP, OUT, MENDED, USED, UNREAD = "stops prepare", "left out", "repaired", "used", "not read"

DEFECTS: dict[str, Defect] = {
    # label files
    "null geometry": Defect("null_geometry", OUT, with_feature(None)),
    "null geometry in labels/": Defect("null_geometry", UNREAD, with_feature(None, "labels")),
    "empty polygon": Defect("empty_geometry", OUT, with_feature(polygon())),
    "LINESTRING EMPTY": Defect("empty_geometry", OUT, with_feature(EMPTY_LINE)),
    "a line": Defect("no_polygon", OUT, with_feature(LINE)),
    "MultiPolygon": Defect("multipolygon", USED, with_feature(TWO_PARTS)),
    "interior ring": Defect("interior_rings", MENDED, with_feature(HOLE)),
    "3-D": Defect("three_d", MENDED, with_feature(HIGH)),
    "self-intersection": Defect("self_intersection", MENDED, with_feature(BOW_TIE)),
    "over the border": Defect("outside", MENDED, with_feature(polygon(ring(-6, 20, 9)))),
    "Id twice": Defect("duplicate_id", USED, rewritten_labels(lambda c: c["features"].append(c["features"][0]))),
    "no feature": Defect("no_footprints", OUT, rewritten_labels(lambda c: c["features"].clear())),
    "broken off": Defect("labels_refused", STOP, lambda image: cut(labels(image))),
    "dangling label file": Defect("labels_refused", STOP, lambda image: dangling(labels(image))),
    "broken off labels/": Defect("labels_refused", UNREAD, lambda image: cut(labels(image, "labels"))),
    "broken off UDM of labels/": Defect("labels_refused", UNREAD, lambda image: cut(labels(image, "labels", "UDM"))),
    "unknown CRS": Defect(
        "labels_refused", STOP, rewritten_labels(lambda c: c.update(crs=NOWHERE))
    ),
    "wrong CRS": Defect(
        "footprints_elsewhere", STOP, rewritten_labels(lambda c: c.update(crs=DEGREES)), also=("reprojected",)
    ),
    "no label file": Defect("unlabelled", OUT, without_labels(*ALL)),
    "no labels_match": Defect("other_labels", USED, without_labels("labels_match")),
    "labels/ only": Defect(
        "other_labels", USED, without_labels("labels_match", "labels_match_pix"), also=("reprojected",)
    ),
    "labels without image": Defect("stray_labels", UNREAD, imageless, also=("months_missing",)),
    # images
    "cut image": Defect("image_refused", STOP, cut),
    "uint16": Defect("image_refused", STOP, rewritten_image(lambda bands, _: bands.astype(np.uint16))),
    "one band": Defect("image_refused", STOP, rewritten_image(lambda bands, _: bands[:1])),
    "no CRS": Defect("image_refused", STOP, with_profile(crs=None)),
    "rotated": Defect("image_refused", STOP, regridded(b=1.0, d=1.0)),
    "fourth band not alpha": Defect("alpha_unmarked", USED, with_profile(ALPHA="NO")),
    "no alpha": Defect("no_alpha", USED, rewritten_image(lambda bands, _: bands[:3])),
    "blank": Defect("no_valid_pixel", OUT, rewritten_image(lambda bands, _: np.zeros_like(bands))),
    "1023 rows": Defect("size_1023", USED, enlarged(1023, 1024), also=("mixed_grids",)),
    "1023 columns": Defect("size_1023", USED, enlarged(1024, 1023), also=("mixed_grids",)),
    "a crop": Defect("size", USED, rewritten_image(lambda bands, _: bands[:, :50]), also=("mixed_grids",)),
    "coarser pixels": Defect("other_grid", USED, regridded(a=9.5, e=-9.5), also=("mixed_grids",)),
    "UTM": Defect("other_grid", USED, rewritten_image(utm), also=("mixed_grids", "reprojected")),
    "elsewhere": Defect(
        "displaced", USED, regridded(c=1e5), also=("mixed_grids", "other_labels")
    ),
    "pixels twice": Defect("same_pixels", USED, pixels_of_last_month),
    "dangling image": Defect("image_refused", STOP, dangling),
    "cut raw image": Defect("image_refused", UNREAD, lambda image: cut(image.parents[1] / "images" / image.name)),
    "only in images/": Defect("raw_only", OUT, only_raw, also=("months_missing",)),
    "bad name": Defect(
        "image_name", STOP, lambda image: renamed(image, "x.tif"),
        also=("stray_labels", "stray_udm", "raw_only", "months_missing"),
    ),
    "month twice": Defect("duplicate_month", STOP, copied),
    "month missing": Defect("months_missing", USED, removed),
    # UDM masks
    "UDM of another size": Defect("udm_refused", STOP, udm_of((64, 63))),
    "cut UDM": Defect("udm_refused", STOP, lambda image: cut(udm_of((64, 64))(image))),
    "cut UDM of an unlabelled image": Defect(
        "udm_refused", "stops predict", unlabelled_with_cut_udm, also=("unlabelled",)
    ),
    "dangling UDM of an unlabelled image": Defect(
        "udm_refused", STOP, unlabelled_with_dangling_udm, also=("unlabelled",)
    ),
    "UDM without image": Defect("stray_udm", UNREAD, imageless_udm, also=("months_missing",)),
    "UDM of another ending": Defect("stray_udm", UNREAD, other_ending),
    # scenes
    "link to nowhere": Defect("folder", STOP, link_to_nowhere, scope="scene"),
    "in both parts": Defect("folder", STOP, in_both_parts, scope="scene"),
    "a folder like an image": Defect(
        "folder", STOP, like_an_image, also=("tile_unknown", "months_missing"), scope="scene"
    ),
    "no images": Defect(
        "folder", STOP, scene_without("images", "images_masked"),
        also=("stray_labels", "stray_udm", "months_missing"), scope="scene",
    ),
    "no labels": Defect("scene_unlabelled", STOP, scene_without(*ALL), also=("unlabelled",), scope="scene"),
    "empty labels": Defect("scene_unlabelled", STOP, emptied_labels, also=("no_footprints",), scope="scene"),
    "file for a folder": Defect("folder", STOP, file_for_folder, scope="scene"),
    "name without a tile": Defect("tile_unknown", USED, nameless, scope="scene"),
    "cut test image": Defect("image_refused", "stops predict", cut_test_image, scope="data"),
    "only scenes to predict": Defect("nothing_to_train", STOP, no_training, scope="data"),
}  # fmt: skip
"""By name; each is made on a sample that is whole but for it."""
