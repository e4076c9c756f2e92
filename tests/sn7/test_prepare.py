import fcntl
import json
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
import shapely

from sn7.cli import main
from sn7.errors import (
    ConfigError,
    DataMissing,
    ImageUnreadable,
    LabelsUnreadable,
    PreparedInvalid,
    ResultsConflict,
    SceneUnlabelled,
)
from sn7.files import lock
from sn7.footprints import unpacked
from sn7.prepare import prepare
from sn7.prepared import MASK, RGB, SEPARATION, VALID, Prepared, fine_window, footprints_name, load_prepared
from sn7.storage import PREPARING

Make = Callable[..., Path]
Write = Callable[..., Path]


def image_files(data: Path, scene: int = 0) -> list[Path]:
    """Return the images of a training scene, by date."""
    return sorted(sorted((data / "train").iterdir())[scene].glob("images_masked/*.tif"))


def label_files(image: Path) -> list[Path]:
    """Return the three label files of an image."""
    folders = ("labels_match", "labels_match_pix", "labels")
    return [image.parents[1] / folder / f"{image.stem}_Buildings.geojson" for folder in folders]


def written(out: Path) -> dict[str, int]:
    """Return the time of each file of a prepared folder."""
    return {str(path.relative_to(out)): path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}


def rewrite(path: Path) -> None:
    """Give a file another time, as a fresh download would."""
    os.utime(path, ns=(1, 1))


def test_a_folder_in_the_data_set_is_refused(make_data: Make) -> None:
    """It would be a scene without images for every later command; nothing is written."""
    data = make_data(scenes=1, months=1)
    for out in (data / "prepared", data / "train" / "prepared"):
        with pytest.raises(ResultsConflict, match="lies in the data set"):
            prepare(data, out)
        assert not out.exists()


def test_arrays_and_index(make_data: Make, tmp_path: Path) -> None:
    """What is in the arrays and in the index is what is in the files."""
    data, out = make_data(scenes=2, months=2, shape=(33, 31)), tmp_path / "out"
    result = prepare(data, out, workers=1)
    assert (result.written, result.reused, result.unlabelled, result.left_out) == (4, 0, 0, ())
    prepared = load_prepared(out)
    assert prepared == result.prepared
    assert [(image.scene[4:9], image.date) for image in prepared.images] == [
        ("0001E", "2020-01"), ("0001E", "2020-02"), ("0002E", "2020-01"), ("0002E", "2020-02"),
    ]  # fmt: skip
    image, pixels = prepared.images[0], prepared.pixels(prepared.images[0])
    with rasterio.open(image_files(data)[0]) as source:
        assert np.array_equal(pixels[RGB], source.read([1, 2, 3]))
        assert image.transform == tuple(source.transform)[:6]
    expected = np.zeros((33, 31), np.uint8)
    expected[3:7, 2:7] = 1
    expected[30:, 29:] = 1
    assert np.array_equal(pixels[MASK], expected)
    assert (pixels[VALID] == 1).all()
    assert (image.height, image.width, image.crs, image.labelled, image.footprints) == (
        33,
        31,
        "EPSG:3857",
        True,
        2,
    )
    assert (image.valid_share, image.building_share) == (1.0, 26 / (33 * 31))
    assert image.lon == pytest.approx((100 + 15.5 / 1024) * 360 / 2**13 - 180)
    assert prepared.centres()[image.scene] == (image.lon, image.lat)


def test_second_run_rewrites_nothing(make_data: Make, tmp_path: Path) -> None:
    """Unchanged files: everything is reused, not one file of the folder is touched."""
    data, out = make_data(), tmp_path / "out"
    first = prepare(data, out, workers=1)
    before = written(out)
    second = prepare(data, out, workers=1)
    assert (second.written, second.reused) == (0, 4)
    assert second.prepared == first.prepared
    assert written(out) == before


def test_separation_channels_where_they_are_asked_for(make_data: Make, tmp_path: Path) -> None:
    """Two more channels, within the mask; asked for or not any more, every array is made anew."""
    data, out = make_data(), tmp_path / "prepared"
    plain = prepare(data, out).prepared
    made = prepare(data, out, separation=True)
    assert (made.written, made.reused) == (len(plain.images), 0)
    assert made.prepared.fingerprint != plain.fingerprint
    for image in load_prepared(out).images:
        array = made.prepared.pixels(image)
        boundary, contact = array[SEPARATION]
        assert array.shape[0] == 7 and set(np.unique(contact)) <= {0, 1}
        assert boundary.any() == array[MASK].any() and not (boundary & (1 - array[MASK])).any()
    again = prepare(data, out, separation=True)
    assert (again.written, again.reused) == (0, len(plain.images))
    assert prepare(data, out).prepared == plain


def test_footprints_are_kept(make_data: Make, tmp_path: Path, write_labels: Write, square) -> None:
    """Two that touch stay two, though their pixels are one; the checksum tells them from one as large as both."""
    data, out = make_data(scenes=1, months=2), tmp_path / "out"
    boxes = [square(2, 2, 4, 5), square(6, 2, 4, 5)]
    first, second = image_files(data)
    for image in (first, second):
        label_files(image)[0].unlink()
    write_labels(label_files(first)[1], boxes)
    for path in label_files(second):
        path.unlink(missing_ok=True)
    apart = prepare(data, out, workers=1).prepared
    kept = unpacked(apart.footprints(apart.images[0]))
    assert shapely.equals(kept, [shapely.geometry.shape(box) for box in boxes]).all() and len(kept) == 2
    assert len(unpacked(apart.footprints(apart.images[1]))) == 0, "unlabelled"
    pixels = np.array(apart.pixels(apart.images[0]))
    (out / footprints_name(apart.images[0].scene, apart.images[0].image)).write_bytes(b"cut")
    again = prepare(data, out, workers=1)
    assert (again.written, again.prepared) == (1, apart)
    write_labels(label_files(first)[1], [square(2, 2, 8, 5)])
    joined = prepare(data, out, workers=1).prepared
    assert np.array_equal(joined.pixels(joined.images[0]), pixels)
    assert joined.fingerprint != apart.fingerprint


def test_a_set_of_an_older_format(make_data: Make, tmp_path: Path) -> None:
    """It is refused, with what to do; prepared again it is whole."""
    data, out = make_data(scenes=1, months=1), tmp_path / "out"
    made = prepare(data, out, workers=1).prepared
    index = out / "index.json"
    index.write_text(index.read_text().replace('"format": 3', '"format": 2'))
    (out / footprints_name(made.images[0].scene, made.images[0].image)).unlink()
    with pytest.raises(PreparedInvalid, match="has format 2; wanted 3: run `sn7 prepare` again"):
        load_prepared(out)
    assert prepare(data, out, workers=1).prepared == made


def fine_mask(prepared: Prepared, scale: int) -> np.ndarray:
    """Return the whole mask of the first image at a scale."""
    image = prepared.images[0]
    (mask,) = fine_window(prepared.fine_labels(image, scale), scale, 0, 0, max(image.height, image.width))[:1]
    return mask[: scale * image.height, : scale * image.width]


def test_fine_labels_and_ceiling_by_hand(
    make_data: Make, tmp_path: Path, write_image: Write, write_labels: Write, square, grid
) -> None:
    """A footprint over columns 2.4 … 4.6, rows 3.6 … 4.6: native it is columns 2 to 4 of row 4.

    At 2 × centres are at .25 and .75, at 3 × at .17, .5 and .83. At 4 ×, averaged, columns 2 and 4 are a quarter full
    in either row and column 3 half: one pixel is right, two of the mask are missed, one is too many.
    """
    data, out = make_data(scenes=1, months=2), tmp_path / "out"
    for image in image_files(data):
        label_files(image)[0].unlink()
        write_labels(label_files(image)[1], [square(2.4, 3.6, 2.2, 1)])
    bands = np.full((4, 33, 31), 100, np.uint8)
    bands[3, :4] = 0  # without row 3 nothing is too many
    write_image(image_files(data)[1], bands, grid(100, 3000))
    prepared = prepare(data, out, workers=1, upscales=[3, 2]).prepared
    assert prepared.upscales == (2, 3)
    assert np.argwhere(prepared.pixels(prepared.images[0])[MASK]).tolist() == [[4, 2], [4, 3], [4, 4]]
    double, triple = np.zeros((66, 62), np.uint8), np.zeros((99, 93), np.uint8)
    double[7:9, 5:9] = 1
    triple[11:14, 7:14] = 1
    assert np.array_equal(fine_mask(prepared, 2), double)
    assert np.array_equal(fine_mask(prepared, 3), triple)
    assert [image.ceiling for image in prepared.images] == [(1, 1, 2), (1, 0, 2)]


def test_fine_labels_have_what_the_array_has(make_data: Make, tmp_path: Path) -> None:
    """Whole pixels give the native mask repeated; with separation there are three planes, eight columns a byte."""
    data, out = make_data(scenes=1, months=2), tmp_path / "out"
    for path in label_files(image_files(data)[1]):
        path.unlink()
    prepared = prepare(data, out, separation=True, upscales=(4,)).prepared
    labelled, unlabelled = prepared.images
    fine = prepared.fine_labels(labelled, 4)
    assert (fine.dtype, fine.shape) == (np.uint8, (3, 132, 16))
    mask, boundary, contact = fine_window(fine, 4, 0, 0, 33)
    native = prepared.pixels(labelled)[MASK]
    assert np.array_equal(mask[:, :124], native.repeat(4, axis=0).repeat(4, axis=1))
    expected = np.zeros((132, 132), np.uint8)
    expected[12:28, 8:28] = 1
    expected[16:24, 12:24] = 0
    assert np.array_equal(boundary[:60], expected[:60])
    assert not contact.any() and not mask[:, 124:].any()
    assert prepared.fine_labels(unlabelled, 4).shape == fine.shape
    assert not prepared.fine_labels(unlabelled, 4).any()
    assert (labelled.ceiling, unlabelled.ceiling) == ((26, 0, 0), (0, 0, 0))


def test_scales_as_they_are_asked_for(make_data: Make, tmp_path: Path) -> None:
    """A second run is a no-op; with a scale more or less the set is what it would have been from the start."""
    data, out = make_data(scenes=2, months=1), tmp_path / "out"
    plain = prepare(data, out, workers=1).prepared
    first = prepare(data, out, workers=1, upscales=(2,))
    before = written(out)
    again = prepare(data, out, workers=1, upscales=(2, 2))
    assert (again.written, again.reused, again.prepared) == (0, 2, first.prepared)
    assert written(out) == before
    more = prepare(data, out, workers=1, upscales=(4, 2)).prepared
    assert more.upscales == (2, 4) and len({more.fingerprint, plain.fingerprint, first.prepared.fingerprint}) == 3
    assert more == load_prepared(out)
    assert {Path(name).suffixes[-2] for name in written(out) if ".x" in name} == {".x2", ".x4"}
    (out / more.images[1].array).with_suffix(".x4.npy").write_bytes(b"cut")
    assert prepare(data, out, workers=1, upscales=(2, 4)).written == 1
    assert prepare(data, out, workers=1).prepared == plain
    assert not [name for name in written(out) if ".x" in name]


def test_command(make_data: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--upscale may be repeated; other scales are an error of usage."""
    data, out = make_data(scenes=1, months=1), tmp_path / "out"
    assert main(["prepare", str(data), str(out), "--upscale", "3", "--upscale", "2", "--separation"]) == 0
    assert (load_prepared(out).upscales, load_prepared(out).separation) == ((2, 3), True)
    with pytest.raises(SystemExit, match="2"):
        main(["prepare", str(data), str(out), "--upscale", "5"])
    assert "invalid choice: 5" in capsys.readouterr().err


def test_changed_files_rebuild_their_image_only(make_data: Make, tmp_path: Path, write_labels: Write, square) -> None:
    """A changed label file changes one array and the fingerprint; a new time alone changes no content."""
    data, out = make_data(), tmp_path / "out"
    first = prepare(data, out, workers=1).prepared
    before = written(out)
    image = image_files(data, scene=1)[0]
    label_files(image)[0].unlink()  # the next folder's labels count now, in pixel coordinates
    write_labels(label_files(image)[1], [square(0, 0, 3, 3)])
    second = prepare(data, out, workers=1)
    assert (second.written, second.reused) == (1, 3)
    changed = {name for name, time in written(out).items() if before[name] != time}
    names = {f"{image.stem}{ending}" for ending in (".npy", ".footprints.npy", ".json")}
    assert {Path(name).name for name in changed} == {*names, "index.json"}
    assert second.prepared.fingerprint != first.fingerprint
    assert second.prepared.pixels(second.prepared.images[2])[MASK].sum() == 9
    rewrite(image)
    third = prepare(data, out, workers=1)
    assert (third.written, third.prepared.fingerprint) == (1, second.prepared.fingerprint)


def test_same_fingerprint_everywhere(make_data: Make, tmp_path: Path) -> None:
    """Path, times, label folder and number of processes do not count, the content does."""
    data = make_data(scenes=2, months=2)
    first = prepare(data, tmp_path / "a", workers=1).prepared
    moved = tmp_path / "elsewhere"
    shutil.copytree(data, moved)
    for folder in moved.glob("train/*/labels_match"):
        shutil.rmtree(folder)
    second = prepare(moved, tmp_path / "b", workers=2).prepared
    assert second.fingerprint == first.fingerprint
    assert [image.sha256 for image in second.images] == [image.sha256 for image in first.images]
    for folder in moved.glob("train/*/labels_match_pix"):
        shutil.rmtree(folder)
    assert prepare(moved, tmp_path / "b", workers=1).prepared.fingerprint == first.fingerprint
    (moved / "train" / first.images[0].scene).rename(moved / "away")
    assert prepare(moved, tmp_path / "b", workers=1).prepared.fingerprint != first.fingerprint


@pytest.mark.parametrize("workers", [1, 2])
def test_failure_names_the_image_and_keeps_the_rest(make_data: Make, tmp_path: Path, workers: int) -> None:
    """A damaged image ends the run without an index; mended, the run goes on where it was."""
    data, out = make_data(scenes=2, months=2), tmp_path / "out"
    broken = image_files(data, scene=1)[1]
    whole = broken.read_bytes()
    broken.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ImageUnreadable, match=broken.name):
        prepare(data, out, workers=workers)
    assert not (out / "index.json").exists()
    assert not list(out.rglob("*.tmp-*"))
    kept = len(list(out.rglob("*.json")))
    assert kept >= 1
    broken.write_bytes(whole)
    result = prepare(data, out, workers=1)
    assert (result.written, result.reused) == (4 - kept, kept)


def test_broken_labels_are_an_error_not_an_empty_mask(make_data: Make, tmp_path: Path) -> None:
    """A truncated label file is named."""
    data = make_data(scenes=1, months=1)
    labels = label_files(image_files(data)[0])[0]
    labels.write_text(labels.read_text()[:200])
    with pytest.raises(LabelsUnreadable, match=rf"labels_match/{labels.name} cannot be read as GeoJSON"):
        prepare(data, tmp_path / "out", workers=1)


def test_interrupted_runs_are_repaired(make_data: Make, tmp_path: Path) -> None:
    """Arrays without .json, cut arrays, half a .json and leftover temporary files: made again, removed."""
    data, out = make_data(scenes=2, months=2), tmp_path / "out"
    first = prepare(data, out, workers=1).prepared
    arrays = [out / image.array for image in first.images]
    arrays[0].with_suffix(".json").unlink()
    arrays[1].write_bytes(arrays[1].read_bytes()[:1000])
    arrays[2].with_suffix(".json").write_text('{"row"')
    leftovers = [out / ".tmp-1index.json", arrays[0].parent / ".tmp-2.npy"]
    for path in leftovers:
        path.touch()
    (out / "index.json").unlink()
    second = prepare(data, out, workers=1)
    assert (second.written, second.reused) == (3, 1)
    assert second.prepared == first
    assert not any(path.exists() for path in leftovers)


def test_unlabelled_images_are_invalid_and_reported(make_data: Make, tmp_path: Path, write_labels: Write) -> None:
    """No label file, or none with a footprint: unknown, so valid nowhere; the index says so."""
    data, out = make_data(scenes=1, months=4), tmp_path / "out"
    images = image_files(data)
    for path in label_files(images[0]):
        path.unlink()
    write_labels(label_files(images[1])[0], [])
    write_labels(label_files(images[2])[0], [None, {"type": "LineString", "coordinates": []}])
    result = prepare(data, out, workers=1)
    assert (result.written, result.unlabelled) == (4, 3)
    assert [image.labelled for image in result.prepared.images] == [False, False, False, True]
    for image in result.prepared.images[:3]:
        pixels = result.prepared.pixels(image)
        assert pixels[RGB].any()
        assert not pixels[[MASK, VALID]].any()
        assert (image.valid_share, image.building_share, image.footprints) == (0, 0, 0)
    sentences = json.loads((out / "index.json").read_text())["left_out"]
    assert sentences == list(result.left_out)
    assert [sentence.split("is unlabelled: ")[1] for sentence in sentences] == [
        "it has no label file.",
        "its label file has no usable footprint (0 null, 0 empty, 0 no polygons).",
        "its label file has no usable footprint (1 null, 1 empty, 0 no polygons).",
    ]
    assert prepare(data, out, workers=1).left_out == result.left_out


def test_left_out_footprints_are_reported(make_data: Make, tmp_path: Path, write_labels: Write) -> None:
    """A label file with some defects is used, and its defects are counted."""
    data = make_data(scenes=1, months=1)
    labels = label_files(image_files(data)[0])[0]
    content = json.loads(labels.read_text())
    content["features"].append({"type": "Feature", "properties": {}, "geometry": None})
    labels.write_text(json.dumps(content))
    result = prepare(data, tmp_path / "out", workers=1)
    assert result.prepared.images[0].footprints == 2
    assert [sentence.split(": ")[1] for sentence in result.left_out] == [
        "1 of 3 footprints left out (1 null, 0 empty, 0 no polygons)."
    ]


def test_alpha_and_udm_make_pixels_invalid(make_data: Make, tmp_path: Path, write_image: Write, grid) -> None:
    """Alpha 0 and any UDM but 0 are invalid; building_share counts valid pixels only."""
    data, out = make_data(scenes=1, months=2, shape=(33, 31)), tmp_path / "out"
    first, second = image_files(data)
    bands = np.full((4, 33, 31), 100, np.uint8)
    bands[3, :5] = 0  # the first footprint begins in row 3: two of its four rows remain
    write_image(first, bands, grid(100, 3000))
    udm = np.zeros((1, 33, 31), np.uint8)
    udm[0, 30:, 30] = 255  # half of the second footprint
    write_image(first.parents[1] / "UDM_masks" / f"{first.stem}_UDM.tif", udm, grid(100, 3000))
    write_image(second, np.zeros((4, 33, 31), np.uint8), grid(100, 3000))
    result = prepare(data, out, workers=1)
    used, blank = result.prepared.images
    valid = result.prepared.pixels(used)[VALID]
    assert not valid[:5].any()
    assert not valid[30:, 30].any()
    assert valid.sum() == 28 * 31 - 3
    assert used.building_share == pytest.approx((10 + 3) / (28 * 31 - 3))
    assert (blank.labelled, blank.valid_share, blank.building_share) == (True, 0, 0)
    assert result.left_out == (f"{blank.scene}/{blank.image} has footprints but no valid pixel.",)


def test_scene_without_any_label_file(make_data: Make, tmp_path: Path) -> None:
    """Nothing is spent on a data set with a scene that cannot be trained on; the sentence says what to do."""
    data = make_data(scenes=2, months=1)
    for path in label_files(image_files(data, scene=1)[0]):
        path.unlink()
    with pytest.raises(SceneUnlabelled, match=r"train/L15-0002E.* has not one label file .* test_public/"):
        prepare(data, tmp_path / "out", workers=1)
    assert not (tmp_path / "out").exists()


def test_scene_with_empty_label_files(make_data: Make, tmp_path: Path, write_labels: Write) -> None:
    """The same where label files are there but hold no footprint."""
    data = make_data(scenes=1, months=1)
    write_labels(label_files(image_files(data)[0])[0], [None])
    with pytest.raises(SceneUnlabelled, match="label files without one footprint"):
        prepare(data, tmp_path / "out", workers=1)
    assert not (tmp_path / "out" / "index.json").exists()


def test_images_that_are_gone_are_removed(make_data: Make, tmp_path: Path) -> None:
    """Index and folder follow the data set; files that prepare did not make stay."""
    data, out = make_data(scenes=2, months=2), tmp_path / "out"
    prepare(data, out, workers=1)
    (out / "notes.txt").touch()
    image_files(data, scene=0)[1].unlink()
    shutil.rmtree(image_files(data, scene=1)[0].parents[1])
    result = prepare(data, out, workers=1)
    assert (result.written, result.reused, len(result.prepared.images)) == (0, 1, 1)
    array = result.prepared.images[0].array
    names = {array.replace(".npy", ending) for ending in (".npy", ".footprints.npy", ".json")}
    assert set(written(out)) == {PREPARING, "notes.txt", "index.json", *names}
    assert len([path for path in out.iterdir() if path.is_dir()]) == 1


def test_final_scenes_are_not_prepared(make_data: Make, tmp_path: Path) -> None:
    """Scenes under test_public/ need no arrays; with nothing else there is nothing to prepare."""
    data = make_data(scenes=2, months=1)
    (data / "test_public").mkdir()
    image_files(data, scene=1)[0].parents[1].rename(data / "test_public" / "L15-0002E-0001N_200_3000_13")
    assert prepare(data, tmp_path / "out", workers=1).prepared.scenes == ["L15-0001E-0001N_100_3000_13"]
    shutil.rmtree(data / "train")
    with pytest.raises(DataMissing, match="holds 1 scenes to predict and none to train on"):
        prepare(data, tmp_path / "out", workers=1)


def test_folder_that_holds_something_else(make_data: Make, tmp_path: Path) -> None:
    """A folder with other things, or a file, is left alone; an index without its lock file is recognised."""
    data, out = make_data(scenes=1, months=1), tmp_path / "out"
    other = tmp_path / "other"
    other.mkdir()
    (other / "file").touch()
    for target in (other, other / "file"):
        with pytest.raises(ResultsConflict, match="exists and is no prepared folder"):
            prepare(data, target, workers=1)
    out.mkdir()
    prepare(data, out, workers=1)
    (out / PREPARING).unlink()
    assert prepare(data, out, workers=1).reused == 1


def test_a_studys_folder_is_left_alone(make_data: Make, tmp_path: Path) -> None:
    """It has a lock file, too."""
    kept = tmp_path / "study" / "ensemble" / "ensemble.json"
    kept.parent.mkdir(parents=True)
    kept.write_text("{}")
    with lock(tmp_path / "study" / ".lock"), pytest.raises(ResultsConflict, match="exists and is no prepared folder"):
        prepare(make_data(scenes=1, months=1), tmp_path / "study", workers=1)
    assert kept.exists()


def test_what_a_killed_fetch_has_left_is_removed(make_data: Make, tmp_path: Path) -> None:
    """It is a folder of half fetched files."""
    left = tmp_path / "out" / ".tmp-fetch"
    left.mkdir(parents=True)
    (left / "0").touch()
    (tmp_path / "out" / PREPARING).touch()
    prepare(make_data(scenes=1, months=1), tmp_path / "out", workers=1)
    assert not left.exists()


def test_bad_input(make_data: Make, tmp_path: Path) -> None:
    """No workers, an unknown scale and a dangling link all have their sentence."""
    data = make_data(scenes=1, months=1)
    with pytest.raises(ConfigError, match="workers = 0 cannot be used; wanted at least 1"):
        prepare(data, tmp_path / "out", workers=0)
    with pytest.raises(ConfigError, match="upscale = 5 cannot be prepared; wanted one of 2, 3, 4"):
        prepare(data, tmp_path / "out", upscales=(2, 5))
    labels = label_files(image_files(data)[0])[0]
    labels.unlink()
    labels.symlink_to(tmp_path / "nowhere")
    with pytest.raises(DataMissing, match=rf"{labels.name} cannot be read \(No such file or directory\)"):
        prepare(data, tmp_path / "out", workers=1)


def test_second_run_at_once_waits(make_data: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """While one run holds the folder another waits, and says so."""
    data, out = make_data(scenes=1, months=1), tmp_path / "out"
    out.mkdir()
    thread = threading.Thread(target=prepare, args=(data, out, 1))
    with (out / PREPARING).open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        thread.start()
        thread.join(timeout=0.5)
        assert thread.is_alive()
        assert written(out).keys() == {PREPARING}
    thread.join(timeout=20)
    assert len(load_prepared(out).images) == 1
    assert "another run prepares" in caplog.text


def test_silent_where_nobody_watches(make_data: Make, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """No progress bar and no library's warnings where stderr is no terminal."""
    prepare(make_data(), tmp_path / "out", workers=2)
    assert capfd.readouterr() == ("", "")


def test_real_fragments(mini: Path, tmp_path: Path) -> None:
    """The real data set in miniature: three images, 3,536 footprints, alpha 0 where the data has it."""
    result = prepare(mini, tmp_path / "out", workers=1)
    assert (result.written, result.unlabelled, result.left_out) == (3, 0, ())
    assert [image.footprints for image in result.prepared.images] == [365, 396, 2775]
    assert [image.valid_share for image in result.prepared.images] == pytest.approx([1, 1, 0.9961], abs=5e-5)
    assert [image.building_share for image in result.prepared.images] == pytest.approx(
        [0.00951, 0.01265, 0.09293], abs=5e-6
    )


def test_a_folder_with_an_index_of_its_own_is_left_alone(make_data: Make, tmp_path: Path) -> None:
    """index.json is a common name; nothing beside it is removed."""
    out = tmp_path / "site"
    (out / "pages").mkdir(parents=True)
    (out / "index.json").write_text("{}")
    (out / "pages" / "start.json").write_text("{}")
    with pytest.raises(ResultsConflict, match="is no prepared folder"):
        prepare(make_data(), out)
    assert (out / "pages" / "start.json").exists()
