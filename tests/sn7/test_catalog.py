import contextlib
import errno
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sn7.catalog import read_catalog, read_scene
from sn7.errors import DataMissing

SCENE = "L15-0001E-0001N_100_3000_13"


def touch(scene: Path, folder: str, *months: str, ending: str = ".tif") -> None:
    """Write empty files with the names of images, labels or masks: a catalog opens none."""
    (scene / folder).mkdir(parents=True, exist_ok=True)
    for month in months:
        (scene / folder / f"global_monthly_{month}_mosaic_{scene.name}{ending}").touch()


def test_training_and_final_scenes_sorted_by_name_and_date(tmp_path: Path) -> None:
    """train/ and test_public/ are told apart; images come by date, whatever order they were written in."""
    for name in ("L15-b_1_1_13", "L15-a_2_2_13"):
        touch(tmp_path / "train" / name, "images_masked", "2020_01", "2018_12", "2019_03")
    touch(tmp_path / "test_public" / "L15-c_3_3_13", "images_masked", "2018_01")
    catalog = read_catalog(tmp_path)
    assert [scene.name for scene in catalog.training] == ["L15-a_2_2_13", "L15-b_1_1_13"]
    assert [image.date for image in catalog.training[0].images] == ["2018-12", "2019-03", "2020-01"]
    assert [scene.name for scene in catalog.final] == ["L15-c_3_3_13"]
    image = catalog.final[0].images[0]
    assert image.name == "global_monthly_2018_01_mosaic_L15-c_3_3_13"
    assert (image.scene, image.labels, image.label_kind, image.udm) == ("L15-c_3_3_13", None, None, None)


def test_scenes_directly_in_the_folder(tmp_path: Path) -> None:
    """Without train/ and test_public/ the scenes may lie in the folder itself, beside foreign files."""
    touch(tmp_path / SCENE, "images", "2020_01")
    (tmp_path / "README.md").touch()
    (tmp_path / ".hidden").mkdir()
    catalog = read_catalog(tmp_path)
    assert [scene.name for scene in catalog.training] == [SCENE]
    assert catalog.final == ()


def test_a_scene_that_one_stands_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`.` has the name of its folder."""
    touch(tmp_path / SCENE, "images", "2020_01")
    monkeypatch.chdir(tmp_path / SCENE)
    scene = read_scene(Path())
    assert (scene.name, [image.date for image in scene.images]) == (SCENE, ["2020-01"])


def test_only_final_scenes(tmp_path: Path) -> None:
    """A data set to predict only has no train/."""
    touch(tmp_path / "test_public" / SCENE, "images_masked", "2020_01")
    catalog = read_catalog(tmp_path)
    assert catalog.training == ()
    assert len(catalog.final) == 1


def test_masked_images_and_matched_labels_are_preferred(tmp_path: Path) -> None:
    """images_masked comes before images; labels_match, labels_match_pix, labels in this order, by image."""
    scene = tmp_path / SCENE
    for folder in ("images", "images_masked"):
        touch(scene, folder, "2020_01", "2020_02", "2020_03", "2020_04")
    touch(scene, "labels_match", "2020_01", ending="_Buildings.geojson")
    touch(scene, "labels_match_pix", "2020_01", "2020_02", ending="_Buildings.geojson")
    touch(scene, "labels", "2020_01", "2020_02", "2020_03", ending="_Buildings.geojson")
    touch(scene, "labels", "2020_04", ending="_UDM.geojson")
    touch(scene, "UDM_masks", "2020_02", ending="_UDM.tif")
    images = read_scene(scene).images
    assert {image.path.parent.name for image in images} == {"images_masked"}
    assert [image.label_kind for image in images] == ["labels_match", "labels_match_pix", "labels", None]
    assert [image.labels.parent.name if image.labels else None for image in images] == [
        image.label_kind for image in images
    ]
    assert [image.udm is not None for image in images] == [False, True, False, False]


def test_images_where_images_masked_is_empty(tmp_path: Path) -> None:
    """An empty images_masked/ does not hide images/."""
    touch(tmp_path / SCENE, "images", "2020_01")
    (tmp_path / SCENE / "images_masked").mkdir()
    assert read_scene(tmp_path / SCENE).images[0].path.parent.name == "images"


def test_foreign_files_are_ignored(tmp_path: Path) -> None:
    """What is hidden or no TIFF is none of a catalog's business."""
    scene = tmp_path / "train" / SCENE
    touch(scene, "images_masked", "2020_01")
    for name in (".DS_Store", "._global_monthly_2020_01.tif", "README.md", "x.tif.aux.xml"):
        (scene / "images_masked" / name).touch()
    (tmp_path / "train" / ".DS_Store").touch()
    assert len(read_catalog(tmp_path).training[0].images) == 1


@pytest.mark.parametrize(
    "name",
    [
        "2020_01.tif",
        f"global_monthly_2020_13_mosaic_{SCENE}.tif",
        "global_monthly_2020_01_mosaic_L15-other_1_1_13.tif",
        f"global_monthly_2020_01_mosaic_{SCENE}.TIF",
        f"global_monthly_2020_01_mosaic_{SCENE} (copy).tif",
    ],
)
def test_image_with_a_name_that_tells_no_date(tmp_path: Path, name: str) -> None:
    """A TIFF that cannot be placed in time, or is of another scene, is named."""
    touch(tmp_path / SCENE, "images_masked", "2020_02")
    (tmp_path / SCENE / "images_masked" / name).touch()
    with pytest.raises(DataMissing) as caught:
        read_catalog(tmp_path)
    assert name in str(caught.value)
    assert f"global_monthly_YYYY_MM_mosaic_{SCENE}.tif" in str(caught.value)


def test_folder_that_is_missing_a_file_or_empty(tmp_path: Path) -> None:
    """Each way of not being a data set has its own sentence."""
    with pytest.raises(DataMissing, match=r"nowhere does not exist; give"):
        read_catalog(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(DataMissing, match=r"file is not a folder; give"):
        read_catalog(tmp_path / "file")
    (tmp_path / "empty" / "folder").mkdir(parents=True)
    with pytest.raises(DataMissing, match=r"empty holds no scene; wanted"):
        read_catalog(tmp_path / "empty")


def test_scene_without_images(tmp_path: Path) -> None:
    """A folder without images among scenes is named."""
    touch(tmp_path / "train" / SCENE, "images_masked", "2020_01")
    (tmp_path / "train" / "L15-x_1_1_13").mkdir()
    with pytest.raises(DataMissing, match=r"train/L15-x_1_1_13 is a scene without images; wanted"):
        read_catalog(tmp_path)


def test_file_in_the_place_of_a_folder(tmp_path: Path) -> None:
    """A file named like a folder of the layout is an error, not a scene without labels."""
    touch(tmp_path / SCENE, "images_masked", "2020_01")
    (tmp_path / SCENE / "labels_match").touch()
    with pytest.raises(DataMissing, match=r"labels_match cannot be listed \(Not a directory\)"):
        read_catalog(tmp_path)


@pytest.mark.parametrize("link", [SCENE, f"{SCENE}/UDM_masks", f"{SCENE}/labels_match", f"{SCENE}/images_masked", ""])
def test_a_link_to_nowhere(tmp_path: Path, link: str) -> None:
    """In the place of a folder, as of a disk that is not there, it is an error; nothing goes missing unsaid."""
    train = tmp_path / "train"
    if link:
        touch(train / "L15-other_1_1_13", "images_masked", "2020_01")
        touch(train / SCENE, "images", "2020_01")
    if link == SCENE:
        shutil.rmtree(train / SCENE)
    (train / link).symlink_to(tmp_path / "nowhere")
    with pytest.raises(DataMissing, match=rf"{train / link} cannot be (read|listed) \(No such file or directory\)"):
        read_catalog(tmp_path)


@pytest.mark.parametrize("closed", ["train", f"train/{SCENE}", f"train/{SCENE}/images_masked"])
def test_a_folder_that_lets_nobody_in(closed: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is refused by its name, or by that of what lies in it, whatever function of the system says so."""
    touch(tmp_path / "train" / SCENE, "images_masked", "2020_01")
    shut(monkeypatch, tmp_path / closed)
    refused: list[Path] = []
    with contextlib.suppress(DataMissing):  # where it was the only scene
        read_catalog(tmp_path, lambda path, _: refused.append(path))
    assert refused and all(path.is_relative_to(tmp_path / closed) for path in refused if "images" in path.name)
    with pytest.raises(DataMissing, match=r"cannot be (read|listed) \(Permission denied\)"):
        read_catalog(tmp_path)


def shut(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let a folder look as one that its user may not enter; root enters any, so the mode would not do."""

    def guarded(call: Callable[..., Any], inside: bool) -> Callable[..., Any]:
        def instead(path: Path, *rest: Any, **named: Any) -> Any:
            if folder in path.parents or (path == folder and not inside):
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            return call(path, *rest, **named)

        return instead

    monkeypatch.setattr(Path, "iterdir", guarded(Path.iterdir, inside=False))
    monkeypatch.setattr(Path, "stat", guarded(Path.stat, inside=True))


def test_a_scene_that_is_trained_on_and_predicted(tmp_path: Path) -> None:
    """In both parts it would be predicted by models that know it: refused; who goes on has it to train on."""
    for part in ("train", "test_public"):
        touch(tmp_path / part / SCENE, "images_masked", "2020_01")
    with pytest.raises(DataMissing, match=rf"test_public/{SCENE} is a scene of train/, too; wanted"):
        read_catalog(tmp_path)
    refused: list[Path] = []
    catalog = read_catalog(tmp_path, lambda path, _: refused.append(path))
    assert (len(catalog.training), catalog.final, refused) == (1, (), [tmp_path / "test_public" / SCENE])


def test_real_fragments(mini: Path) -> None:
    """The real folders are read as what they are."""
    catalog = read_catalog(mini)
    found = {scene.name: [image.date for image in scene.images] for scene in catalog.training + catalog.final}
    assert found == {
        "L15-0683E-1006N_2732_4164_13": ["2019-10", "2019-12"],
        "L15-1615E-1205N_6460_3370_13": ["2017-07"],
        "L15-0331E-1257N_1327_3160_13": ["2018-01"],
    }
    assert {image.label_kind for scene in catalog.training for image in scene.images} == {"labels_match"}
