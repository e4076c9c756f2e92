"""A data set on disk → scenes and images, checked by names alone.

    DATA/train/<scene>/         images to train on, with labels        (or the scenes directly in DATA)
    DATA/test_public/<scene>/   images to predict only

A scene holds images_masked/ (or images/), labels_match/ (or labels_match_pix/, or labels/), and UDM_masks/
for the images that have one.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from sn7.errors import DataMissing

__all__ = [
    "IMAGE_FOLDERS",
    "LABEL_FOLDERS",
    "Catalog",
    "Image",
    "LabelKind",
    "Scene",
    "read_catalog",
    "read_scene",
]

LabelKind = Literal["labels_match", "labels_match_pix", "labels"]
LABEL_FOLDERS: tuple[LabelKind, ...] = get_args(LabelKind)
"""Folders of label files, the preferred one first."""
IMAGE_FOLDERS = ("images_masked", "images")
"""Folders of images, the preferred one first."""

_IMAGE_NAME = re.compile(r"global_monthly_(\d{4})_(0[1-9]|1[0-2])_mosaic_(.+)\.tif")


@dataclass(frozen=True)
class Image:
    """One monthly image and the files that belong to it."""

    scene: str
    name: str
    """File name without its ending."""
    date: str
    """Year and month, YYYY-MM."""
    path: Path
    labels: Path | None = None
    label_kind: LabelKind | None = None
    """Folder of the label file, which decides how its coordinates are read."""
    udm: Path | None = None
    """Mask of unusable pixels."""


@dataclass(frozen=True)
class Scene:
    """One place: a folder with at least one image."""

    name: str
    folder: Path
    images: tuple[Image, ...]
    """In date order."""


@dataclass(frozen=True)
class Catalog:
    """The scenes of a data set, sorted by name."""

    data: Path
    training: tuple[Scene, ...]
    """Scenes under train/."""
    final: tuple[Scene, ...]
    """Scenes under test_public/, which are predicted only."""


def read_catalog(data: Path) -> Catalog:
    """Return the scenes of a data set; lists folders, opens no file.

    Raises DataMissing where `data` is no folder, holds no scene, or holds a scene without images or with an
    image whose name does not tell its date.
    """
    if not data.is_dir():
        found = "is not a folder" if data.exists() else "does not exist"
        raise DataMissing(f"{data} {found}; give the folder that holds train/ and test_public/, or scenes.")
    train, final = data / "train", data / "test_public"
    split = train.exists() or final.exists()
    catalog = Catalog(data, _read_scenes(train if split else data), _read_scenes(final) if split else ())
    if not catalog.training and not catalog.final:
        raise DataMissing(
            f"{data} holds no scene; wanted folders train/<scene>/images_masked (or images) with GeoTIFFs: "
            "give another folder, or get the data with `sn7 download`."
        )
    return catalog


def read_scene(folder: Path) -> Scene:
    """Return a scene folder's images with their labels and masks, in date order.

    Raises DataMissing where it holds no image, or one whose name does not tell its date.
    """
    images = next(filter(None, (_images(folder / name) for name in IMAGE_FOLDERS)), [])
    if not images:
        raise DataMissing(
            f"{folder} is a scene without images; wanted GeoTIFFs in images_masked/ or images/: "
            "get them with `sn7 download`, or remove the folder."
        )
    labels = {kind: _listing(folder / kind) for kind in LABEL_FOLDERS}
    udms = _listing(folder / "UDM_masks")
    found = [_image(folder.name, path, labels, udms) for path in images]
    return Scene(folder.name, folder, tuple(sorted(found, key=lambda image: (image.date, image.name))))


def _read_scenes(folder: Path) -> tuple[Scene, ...]:
    """Read every scene of a folder; () where nothing in it has an image folder, so looks like a scene."""
    folders = sorted(path for path in _listing(folder).values() if path.is_dir())
    if not any((path / name).is_dir() for path in folders for name in IMAGE_FOLDERS):
        return ()
    return tuple(read_scene(path) for path in folders)


def _listing(folder: Path) -> dict[str, Path]:
    """Return what a folder holds, by name, without hidden files; nothing where there is no such folder."""
    try:
        return {path.name: path for path in folder.iterdir() if not path.name.startswith(".")}
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise DataMissing(f"{folder} cannot be listed ({error.strerror}); wanted a readable folder.") from error


def _images(folder: Path) -> list[Path]:
    return [path for path in _listing(folder).values() if path.suffix.lower() in (".tif", ".tiff")]


def _image(scene: str, path: Path, labels: dict[LabelKind, dict[str, Path]], udms: dict[str, Path]) -> Image:
    match = _IMAGE_NAME.fullmatch(path.name)
    if match is None or match[3] != scene:
        raise DataMissing(
            f"{path} has a name that does not tell its date; wanted "
            f"global_monthly_YYYY_MM_mosaic_{scene}.tif: rename or remove it."
        )
    label_name = f"{path.stem}_Buildings.geojson"
    kind = next((kind for kind in LABEL_FOLDERS if label_name in labels[kind]), None)
    return Image(
        scene=scene,
        name=path.stem,
        date=f"{match[1]}-{match[2]}",
        path=path,
        labels=labels[kind][label_name] if kind else None,
        label_kind=kind,
        udm=udms.get(f"{path.stem}_UDM.tif"),
    )
