"""The files of a scene, by image; and those that belong to no image."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sn7.catalog import IMAGE_FOLDERS, LABEL_FOLDERS, Image, LabelKind, Scene, image_date, list_folder
from sn7.check.findings import Finding, Reader, finding
from sn7.errors import DataMissing

__all__ = ["ImageFiles", "Part", "inventory"]

Part = Literal["train", "test_public"]


@dataclass(frozen=True)
class ImageFiles:
    """One image and every file that belongs to it."""

    image: Image
    part: Part
    labels: dict[LabelKind, Path]
    """All its label files."""
    unread: tuple[Path, ...]
    """Files of it that no command reads: the image in the other image folder, the UDM as GeoJSON."""

    @property
    def reader(self) -> Reader:
        """The command that reads the image."""
        return "prepare" if self.part == "train" else "predict"


def inventory(scene: Scene, part: Part) -> tuple[list[ImageFiles], list[Finding]]:
    """Return a scene's images with their files, and a finding for each file that belongs to none."""
    folders = {name: list_folder(scene.folder / name, _ignore) for name in (*LABEL_FOLDERS, "UDM_masks")}
    other, findings = _other_images(scene)
    images = [_files(image, part, folders, other) for image in scene.images]
    stems = {image.name for image in scene.images}
    known = {f"{stem}_{what}" for stem in stems for what in ("Buildings.geojson", "UDM.geojson", "UDM.tif")}
    for folder, files in folders.items():
        udm = folder == "UDM_masks"
        kind, endings = ("stray_udm", (".tif", ".tiff")) if udm else ("stray_labels", (".geojson", ".json"))
        strays = [path for name, path in sorted(files.items()) if name.lower().endswith(endings) and name not in known]
        findings += [finding(kind, path, reader=None) for path in strays]
    return images, findings


def _ignore(_: Path, error: DataMissing) -> None:
    """Say nothing: reading the catalog said it already."""


def _other_images(scene: Scene) -> tuple[dict[str, Path], list[Finding]]:
    """Return the scene's images in the folder that is not preferred, by name, and what is wrong with that folder."""
    used = {image.path.parent.name for image in scene.images}
    findings: list[Finding] = []
    found: dict[str, Path] = {}
    for folder in IMAGE_FOLDERS:
        if used and folder not in used:
            found |= list_folder(
                scene.folder / folder,
                lambda path, error: findings.append(finding("folder", path, str(error), reader=None)),
            )
    names = {image.path.name for image in scene.images}
    for name, path in sorted(found.items()):
        if name not in names and path.suffix.lower() in (".tif", ".tiff"):
            dated = image_date(name, scene.name) is not None
            findings.append(finding("raw_only", path) if dated else finding("image_name", path, reader=None))
    return found, findings


def _files(image: Image, part: Part, folders: dict[str, dict[str, Path]], other: dict[str, Path]) -> ImageFiles:
    label_name = f"{image.name}_Buildings.geojson"
    labels = {kind: folders[kind][label_name] for kind in LABEL_FOLDERS if label_name in folders[kind]}
    unread = (other.get(image.path.name), folders["labels"].get(f"{image.name}_UDM.geojson"))
    return ImageFiles(image, part, labels, tuple(path for path in unread if path))
