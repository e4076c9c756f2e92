"""A data set on disk → scenes and images, checked by names alone.

    DATA/train/<scene>/         images to train on, with labels        (or the scenes directly in DATA)
    DATA/test_public/<scene>/   images to predict only

A scene holds images_masked/ (or images/), labels_match/ (or labels_match_pix/, or labels/), and UDM_masks/
for the images that have one.
"""

import re
import stat
from collections.abc import Callable
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
    "Refuse",
    "Scene",
    "image_date",
    "list_folder",
    "parse_image_name",
    "read_catalog",
    "read_scene",
]

LabelKind = Literal["labels_match", "labels_match_pix", "labels"]
LABEL_FOLDERS: tuple[LabelKind, ...] = get_args(LabelKind)
"""Folders of label files, the preferred one first."""
IMAGE_FOLDERS = ("images_masked", "images")
"""Folders of images, the preferred one first."""
Refuse = Callable[[Path, DataMissing], None]
"""Called with a file or folder that cannot be used and why; what it returns from is left out of the catalog."""

_IMAGE_NAME = re.compile(r"global_monthly_(\d{4})_(0[1-9]|1[0-2])_mosaic_(.+)")


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
    """One place: a folder with its images."""

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


def _raise(_: Path, error: DataMissing) -> None:
    raise error


def read_catalog(data: Path, refuse: Refuse = _raise) -> Catalog:
    """Return the scenes of a data set; lists folders, opens no file.

    Raises DataMissing where `data` is no folder, cannot be listed or holds no scene. Where it holds a scene without
    images or in both parts, an image whose name does not tell its date, a folder that cannot be listed or a link to
    nowhere, `refuse` is called, which raises the same.
    """
    if not data.is_dir():
        found = "is not a folder" if data.exists() else "does not exist"
        raise DataMissing(f"{data} {found}; give the folder that holds train/ and test_public/, or scenes.")
    train, final = data / "train", data / "test_public"
    split = not {train.name, final.name}.isdisjoint(list_folder(data))
    training = _read_scenes(train if split else data, refuse)
    catalog = Catalog(data, training, _not_in(training, _read_scenes(final, refuse), refuse) if split else ())
    if not catalog.training and not catalog.final:
        raise DataMissing(
            f"{data} holds no scene; wanted folders train/<scene>/images_masked (or images) with GeoTIFFs: "
            "give another folder, or get the data with `sn7 download`."
        )
    return catalog


def read_scene(folder: Path, refuse: Refuse = _raise) -> Scene:
    """Return a scene folder's images with their labels and masks, in date order.

    Where it holds no image, or one whose name does not tell its date, `refuse` is called, which raises DataMissing.
    """
    folder = folder.absolute()  # "." has no name
    images = next(filter(None, (_images(folder / name, refuse) for name in IMAGE_FOLDERS)), [])
    if not images:
        message = (
            f"{folder} is a scene without images; wanted GeoTIFFs in images_masked/ or images/: "
            "get them with `sn7 download`, or remove the folder."
        )
        refuse(folder, DataMissing(message))
    labels = {kind: list_folder(folder / kind, refuse) for kind in LABEL_FOLDERS}
    udms = list_folder(folder / "UDM_masks", refuse)
    found = [image for path in images if (image := _image(folder.name, path, labels, udms, refuse))]
    return Scene(folder.name, folder, tuple(sorted(found, key=lambda image: (image.date, image.name))))


def image_date(name: str, scene: str) -> str | None:
    """Return the year and month, YYYY-MM, that an image's file name tells; None where it is none of the scene's."""
    found = parse_image_name(name.removesuffix(".tif")) if name.endswith(".tif") else None
    return found[1] if found and found[0] == scene else None


def parse_image_name(name: str) -> tuple[str, str] | None:
    """Return the scene and the year and month, YYYY-MM, that an image's name without its ending tells, if it does."""
    match = _IMAGE_NAME.fullmatch(name)
    return (match[3], f"{match[1]}-{match[2]}") if match else None


def list_folder(folder: Path, refuse: Refuse = _raise) -> dict[str, Path]:
    """Return what a folder holds, by name, without hidden files; nothing where there is no such folder.

    Where it cannot be listed, as a link to nowhere, `refuse` is called, which raises DataMissing.
    """
    try:
        return {path.name: path for path in folder.iterdir() if not path.name.startswith(".")}
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not folder.is_symlink():
            return {}
        refuse(folder, DataMissing(f"{folder} cannot be listed ({error.strerror}); wanted a readable folder."))
        return {}


def _read_scenes(folder: Path, refuse: Refuse) -> tuple[Scene, ...]:
    """Read every scene of a folder; () where nothing in it has an image folder, so looks like a scene."""
    folders = sorted(path for path in list_folder(folder, refuse).values() if _is_folder(path, refuse))
    if not any(map(_looks_like_scene, folders)):
        return ()
    return tuple(read_scene(path, refuse) for path in folders)


def _is_folder(path: Path, refuse: Refuse) -> bool:
    """Return whether it is one; what cannot be told, as a link to nowhere, is refused: it may be a scene."""
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except OSError as error:
        message = f"{path} cannot be read ({error.strerror}); wanted the folder of a scene: restore or remove it."
        refuse(path, DataMissing(message))
        return False


def _looks_like_scene(folder: Path) -> bool:
    """Return whether a folder has an image folder, or does not let us see whether it has."""
    try:
        return not {path.name for path in folder.iterdir()}.isdisjoint(IMAGE_FOLDERS)
    except OSError:
        return True


def _not_in(training: tuple[Scene, ...], final: tuple[Scene, ...], refuse: Refuse) -> tuple[Scene, ...]:
    """Return the final scenes without those that are trained on, too: what is predicted of them would say nothing."""
    names = {scene.name for scene in training}
    for scene in final:
        if scene.name in names:
            message = f"{scene.folder} is a scene of train/, too; wanted it in one of the two: remove the other one."
            refuse(scene.folder, DataMissing(message))
    return tuple(scene for scene in final if scene.name not in names)


def _images(folder: Path, refuse: Refuse) -> list[Path]:
    return [path for path in list_folder(folder, refuse).values() if path.suffix.lower() in (".tif", ".tiff")]


def _image(
    scene: str, path: Path, labels: dict[LabelKind, dict[str, Path]], udms: dict[str, Path], refuse: Refuse
) -> Image | None:
    date = image_date(path.name, scene)
    if date is None:
        message = (
            f"{path} has a name that does not tell its date; wanted "
            f"global_monthly_YYYY_MM_mosaic_{scene}.tif: rename or remove it."
        )
        refuse(path, DataMissing(message))
        return None
    label_name = f"{path.stem}_Buildings.geojson"
    kind = next((kind for kind in LABEL_FOLDERS if label_name in labels[kind]), None)
    return Image(
        scene=scene,
        name=path.stem,
        date=date,
        path=path,
        labels=labels[kind][label_name] if kind else None,
        label_kind=kind,
        udm=udms.get(f"{path.stem}_UDM.tif"),
    )
