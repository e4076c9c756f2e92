"""What removes, renames or doubles files of a scene; each returns the file or folder to be named."""

import shutil
from pathlib import Path

from damage import Make, cut, labels, remove, udm, udm_of


def renamed(image: Path, name: str) -> Path:
    """Give an image another name."""
    return image.rename(image.with_name(name))


def copied(image: Path) -> Path:
    """Copy an image as a file manager does."""
    return Path(shutil.copy(image, image.with_name(f"{image.stem} (copy).tif")))


def pixels_of_last_month(image: Path) -> Path:
    """Copy a neighbour's image, and its masks, over this one."""
    images = sorted(image.parent.glob("*.tif"))
    other = images[(images.index(image) - 1) % len(images)]
    shutil.copy(other, image)
    udm(image).unlink(missing_ok=True)
    return max(image, other)


def only_raw(image: Path) -> Path:
    """Remove the image in images_masked/ and all its labels."""
    image.unlink()
    for path in image.parents[1].rglob(f"{image.stem}_*"):
        path.unlink()
    return image.parents[1] / "images" / image.name


def imageless(image: Path) -> Path:
    """Leave labels and a UDM of an image that is gone; return the label file."""
    image.unlink()
    (image.parents[1] / "images" / image.name).unlink()
    labels(image, "labels_match_pix").unlink()
    labels(image, "labels").unlink()
    labels(image, "labels", "UDM").unlink()
    udm(image).unlink(missing_ok=True)
    return labels(image)


def imageless_udm(image: Path) -> Path:
    """Leave the UDM of an image that is gone."""
    imageless(image).unlink()
    return udm_of((64, 64))(image)


def removed(image: Path) -> Path:
    """Remove a month; return its scene."""
    remove(image)
    return image.parents[1]


def scene_without(*folders: str) -> Make:
    """Return what removes folders of a scene."""

    def make(image: Path) -> Path:
        for folder in folders:
            shutil.rmtree(image.parents[1] / folder, ignore_errors=True)
        return image.parents[1]

    return make


def emptied_labels(image: Path) -> Path:
    """Empty all label files that count."""
    for path in image.parents[1].glob("labels_match/*.geojson"):
        path.write_text('{"type": "FeatureCollection", "features": []}')
    return image.parents[1]


def link_to_nowhere(image: Path) -> Path:
    """Put a link to nowhere in the place of a scene, as of one on a disk that is not there."""
    scene = image.parents[1]
    shutil.rmtree(scene)
    scene.symlink_to("nowhere")
    return scene


def in_both_parts(image: Path) -> Path:
    """Put a scene to train on among those to predict, too."""
    scene = image.parents[1]
    return Path(shutil.copytree(scene, scene.parents[1] / "test_public" / scene.name))


def like_an_image(image: Path) -> Path:
    """Make an empty folder among the scenes whose name ends like an image's."""
    folder = image.parents[2] / f"{image.parents[1].name}.tif"
    folder.mkdir()
    return folder


def other_ending(image: Path) -> Path:
    """Give the UDM another ending, so that nothing takes it for the image's."""
    path = udm_of((64, 64))(image)
    return path.rename(path.with_suffix(".TIF"))


def file_for_folder(image: Path) -> Path:
    """Put a file in the place of a folder."""
    folder = image.parents[1] / "UDM_masks"
    shutil.rmtree(folder, ignore_errors=True)
    folder.touch()
    return folder


def nameless(image: Path) -> Path:
    """Give a scene a name that ends with no tile."""
    scene = image.parents[1]
    renamed = scene.with_name("somewhere-" + scene.name[4:8])
    for path in list(scene.rglob("*.*")):
        path.rename(path.with_name(path.name.replace(scene.name, renamed.name)))
    return scene.rename(renamed)


def cut_test_image(image: Path) -> Path:
    """Cut a test image."""
    return cut(next((image.parents[3] / "test_public").glob("*/images_masked/*.tif")))


def no_training(image: Path) -> Path:
    """Remove train/."""
    shutil.rmtree(image.parents[2])
    return image.parents[3]
