import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
import shapely
from affine import Affine
from shapely.affinity import affine_transform

from sn7.challenge import Tracks, image_name, write_csv
from sn7.cli import main
from sn7.errors import ConfigError, DataMissing, ImageUnreadable, SceneUnknown, Sn7Error, TracksInvalid
from sn7.metrics import Counts
from sn7.score import score

SCENE, OTHER = "L15-0001E-0001N_100_3000_13", "L15-0002E-0001N_200_3000_13"
"""Of `make_data`: 33 × 31 px, 5 × 4 px at (2, 3) and 2 × 3 px in the last corner, in each month."""
Write = Callable[..., Path]


@pytest.fixture
def predict(tmp_path: Path, grid: Callable[..., Affine]) -> Callable[..., Path]:
    """Return a function: scene, date, rectangles (id, x, y, width, height in px), probs → files as of `sn7 predict`.

    The grid of the probs is `times` as fine as the image's.
    """

    def place_of(x: int) -> list[float]:
        a, b, c, d, e, f, *_ = grid(x, 3000)
        return [a, b, d, e, c, f]

    def write(
        scene: str,
        date: str,
        rectangles: Sequence[tuple[Any, float, float, float, float]] | None = None,
        probs: npt.NDArray[Any] | None = None,
        crs: str | None = "urn:ogc:def:crs:EPSG::3857",
        nodata: float | None = None,
        times: int = 1,
        **tags: Any,
    ) -> Path:
        place, x = tmp_path / "predictions" / scene / image_name(scene, date), int(scene.split("_")[1])
        place.parent.mkdir(parents=True, exist_ok=True)
        if rectangles is not None:
            features = [
                {
                    "type": "Feature",
                    "properties": {} if n is None else {"Id": n},
                    "geometry": shapely.geometry.mapping(
                        affine_transform(shapely.box(a, b, a + w, b + h), place_of(x))
                    ),
                }
                for n, a, b, w, h in rectangles
            ]
            content = {"type": "FeatureCollection", "features": features}
            if crs:
                content["crs"] = {"type": "name", "properties": {"name": crs}}
            place.with_suffix(".geojson").write_text(json.dumps(content))
        if probs is not None:
            height, width = probs.shape
            layout = {"driver": "GTiff", "count": 1, "dtype": probs.dtype, "height": height, "width": width}
            layout |= {"crs": "EPSG:3857", "transform": grid(x, 3000) @ Affine.scale(1 / times), "nodata": nodata}
            with rasterio.open(place.with_suffix(".tif"), "w", **layout) as file:
                file.write(probs, 1)
                file.update_tags(**tags)
        return tmp_path / "predictions"

    return write


FIRST = (1, 2, 3, 5, 4)
"""The first footprint of `make_data`, as a rectangle."""


def test_objects_and_pixels_of_a_data_set(make_data: Callable[..., Path], predict: Callable[..., Path]) -> None:
    """Counts, by hand: one of two footprints found in one of two months; half of its pixels, and two wrong ones."""
    data = make_data(scenes=1)
    probs = np.zeros((33, 31), np.float32)
    probs[3:5, 2:7] = 0.7  # 10 of 20 px
    probs[20, 10:12] = 0.6
    probs[0, :] = np.nan
    found = score(data, predict(SCENE, "2020-01", [FIRST], probs), ious=(0.25, 0.5))
    (scene,) = found.scenes
    assert scene.objects and scene.objects.matches == {0.25: Counts(1, 0, 3), 0.5: Counts(1, 0, 3)}
    assert (scene.pixels, scene.images) == (Counts(10, 2, 16), 1)
    assert found.overall()["f1"]["0.25"] == {"f1": 0.4, "precision": 1, "recall": 0.25, "tp": 1, "fp": 0, "fn": 3}
    assert found.overall()["dice"] == pytest.approx(20 / 38)
    assert found.notes == [f"{SCENE}: 1 of 2 months have no predictions: every footprint counts as missed"]


def test_threshold_of_the_file_and_of_the_command(make_data: Callable[..., Path], predict: Callable[..., Path]) -> None:
    """Probs are cut where the model's file says, else at 0.5; a number that is given goes before both."""
    data = make_data(scenes=1, months=1)
    probs = np.full((33, 31), 0.55, np.float32)
    predictions = predict(SCENE, "2020-01", None, probs)
    assert score(data, predictions).scenes[0].pixels == Counts(26, 33 * 31 - 26, 0)
    predict(SCENE, "2020-01", None, probs, THRESHOLD=0.6)
    assert score(data, predictions).scenes[0].pixels == Counts(0, 0, 26)
    assert score(data, predictions, threshold=0.3).scenes[0].pixels == Counts(26, 33 * 31 - 26, 0)
    assert score(data, predictions).scenes[0].objects is None


def test_unusable_pixels_do_not_count(
    make_data: Callable[..., Path], predict: Callable[..., Path], write_image: Write, grid: Callable[..., Affine]
) -> None:
    """What alpha or the UDM of the truth's image hides is neither right nor wrong, nor is a mask's nodata."""
    data = make_data(scenes=1, months=1)
    name = image_name(SCENE, "2020-01")
    bands = np.full((4, 33, 31), 255, np.uint8)
    bands[3, :, :3] = 0  # the first of the footprint's five columns
    write_image(data / "train" / SCENE / "images_masked" / f"{name}.tif", bands, grid(100, 3000))
    udm = np.zeros((1, 33, 31), np.uint8)
    udm[0, 3] = 1  # the first of its four rows
    write_image(data / "train" / SCENE / "UDM_masks" / f"{name}_UDM.tif", udm, grid(100, 3000))
    mask = np.zeros((33, 31), np.uint8)
    mask[3:7, 2:7] = 1
    mask[6, 2:7] = 255  # the last of its rows is invalid here
    found = score(data, predict(SCENE, "2020-01", None, mask, nodata=255))
    assert found.scenes[0].pixels == Counts(8, 0, 6)


@pytest.mark.parametrize("kind", ["labels_match", "labels_match_pix", "labels"])
def test_each_kind_of_labels(make_data: Callable[..., Path], predict: Callable[..., Path], kind: str) -> None:
    """Footprints of the truth in metres, in pixels, in degrees: the same score, without an image."""
    scene = make_data(scenes=1) / "train" / SCENE
    for other in {"labels_match", "labels_match_pix", "labels", "images_masked"} - {kind}:
        for path in (scene / other).iterdir():
            path.unlink()
    for date in ("2020-01", "2020-02"):
        predictions = predict(SCENE, date, [FIRST, (2, 29, 30, 2, 3), (3, 10, 10, 4, 4)])
    for truth in (scene, scene / kind):
        (found,) = score(truth, predictions / SCENE).scenes
        assert found.objects and found.objects.matches[0.25] == Counts(4, 2, 0)


def test_csv_and_folder_of_the_same_score_the_same(
    make_data: Callable[..., Path], predict: Callable[..., Path], tmp_path: Path
) -> None:
    """A challenge CSV stands in for a folder on either side."""
    data = make_data(scenes=1)
    built = {"2020-01": [FIRST], "2020-02": [FIRST, (2, 29, 30, 2, 3)]}
    for date, rectangles in built.items():
        predictions = predict(SCENE, date, rectangles)
    boxes = {
        d: ([r[0] for r in some], [shapely.box(a, b, a + w, b + h) for _, a, b, w, h in some])
        for d, some in built.items()
    }
    write_csv(tmp_path / "found.csv", [Tracks.of(SCENE, boxes)])
    by_folder = score(data, predictions).to_dict()
    assert score(data, tmp_path / "found.csv").to_dict() == by_folder
    same = [shapely.box(2, 3, 7, 7), shapely.box(29, 30, 31, 33)]
    write_csv(tmp_path / "truth.csv", [Tracks.of(SCENE, {date: ([7, 8], same) for date in built})])
    assert score(tmp_path / "truth.csv", predictions).to_dict() == by_folder
    assert by_folder["overall"]["f1"]["0.25"]["tp"] == 3


TRUTHS = ["data set", "labels_match", "labels_match_pix", "labels", "csv"]


@pytest.mark.parametrize("truth", TRUTHS)
def test_maps_on_a_finer_grid(
    make_data: Callable[..., Path], predict: Callable[..., Path], tmp_path: Path, truth: str
) -> None:
    """What `sn7 predict --fine` writes scores as on the image's own grid, to which probs are averaged."""
    scene = make_data(scenes=1) / "train" / SCENE
    place = {"data set": scene, "csv": tmp_path / "truth.csv"}.get(truth, scene / truth)
    boxes = [shapely.box(2, 3, 7, 7), shapely.box(29, 30, 31, 33)]
    write_csv(tmp_path / "truth.csv", [Tracks.of(SCENE, {f"2020-0{month}": ([0, 1], boxes) for month in (1, 2)})])
    fine = np.zeros((66, 62), np.float32)
    fine[6:14, 4:14] = 0.9  # the first footprint
    fine[40, 20:22] = 0.9  # half of a pixel: 0.45
    fine[60:66, 58:61] = 0.9  # the second one's first column, and half of its other: 0.45
    fine[6:8, 4:6] = np.nan
    for date in ("2020-01", "2020-02"):
        predictions = predict(SCENE, date, [FIRST, (2, 29, 30, 1.5, 3)], fine, times=2)
    (found,) = score(place, predictions / SCENE).scenes
    assert found.objects and found.objects.matches[0.25] == Counts(4, 0, 0)
    assert found.pixels == (None if truth == "csv" else Counts(44, 0, 6))
    (found,) = score(place, predictions / SCENE, threshold=0.4).scenes
    assert found.pixels == (None if truth == "csv" else Counts(50, 2, 0))


def test_the_least_area_beside_a_finer_grid(
    predict: Callable[..., Path], tmp_path: Path, write_labels: Write, grid: Callable[..., Affine]
) -> None:
    """True footprints below 4 px² of the image do not count, though they have more of the finer pixels."""
    a, b, c, d, e, f, *_ = grid(100, 3000)
    place = tmp_path / "labels_match" / f"{image_name(SCENE, '2020-01')}_Buildings.geojson"
    boxes = [affine_transform(shapely.box(*box), [a, b, d, e, c, f]) for box in ((2, 3, 7, 7), (10, 10, 12, 11.5))]
    write_labels(place, [shapely.geometry.mapping(box) for box in boxes], "EPSG:3857")
    predictions = predict(SCENE, "2020-01", [FIRST], np.zeros((66, 62), np.float32), times=2)
    (found,) = score(place.parent, predictions / SCENE).scenes
    assert found.objects and found.objects.matches[0.25] == Counts(1, 0, 0)


def test_scot_is_the_mean_over_the_scenes_of_the_truth(tmp_path: Path) -> None:
    """A scene with SCOT 1 and one without predictions have 0.5 together, while F1 is of summed counts."""
    square = [shapely.box(0, 0, 9, 9)]
    grown = {"2020-01": ([], []), "2020-02": ([1], square), "2020-03": ([1], square)}
    write_csv(tmp_path / "truth.csv", [Tracks.of(SCENE, grown), Tracks.of(OTHER, grown)])
    write_csv(tmp_path / "found.csv", [Tracks.of(OTHER, grown)])
    found = score(tmp_path / "truth.csv", tmp_path / "found.csv")
    assert found.overall()["scot"] == pytest.approx(0.5)
    assert found.overall()["f1"]["0.25"]["f1"] == pytest.approx(2 / 3)
    assert score(tmp_path / "truth.csv", tmp_path / "found.csv", scenes=[OTHER]).overall()["scot"] == 1


def test_no_scot_without_identities(make_data: Callable[..., Path], predict: Callable[..., Path]) -> None:
    """Polygons without an Id have F1 only."""
    predictions = predict(SCENE, "2020-01", [(None, *FIRST[1:])])
    found = score(make_data(scenes=1), predictions)
    assert found.overall()["scot"] is None
    assert found.overall()["f1"]["0.25"]["tp"] == 1
    assert "without an Id: no SCOT" in " ".join(found.notes)


def test_what_a_reader_should_know(
    make_data: Callable[..., Path], predict: Callable[..., Path], write_labels: Write
) -> None:
    """Ids numbered anew, months without truth, unlabelled months, features left out and single months are told."""
    data = make_data(scenes=1, months=3)
    labels = data / "train" / SCENE / "labels_match"
    write_labels(labels / f"{image_name(SCENE, '2020-03')}_Buildings.geojson", [None], "EPSG:3857")
    predict(SCENE, "2020-01", [FIRST, (2, 29, 30, 2, 3)])
    predict(SCENE, "2020-02", [(1, 29, 30, 2, 3)])
    predictions = predict(SCENE, "2020-03", [(1, 29, 30, 2, 3)])
    notes = " ".join(score(data, predictions).notes)
    assert "1 months of the truth have no usable footprint: unlabelled" in notes
    assert "1 predicted months have no truth" in notes
    assert "run `sn7 track` first" in notes
    one = make_data(scenes=1, months=1) / "train" / SCENE
    for month in ("2020_02", "2020_03"):
        for path in one.rglob(f"*{month}*"):
            path.unlink()
    assert "one month only" in " ".join(score(data, predictions).notes)


def raises(error: type[Sn7Error], *said: str, truth: Path, predictions: Path, **options: Any) -> None:
    """Check that scoring raises one sentence with all that is in `said`."""
    with pytest.raises(error) as raised:
        score(truth, predictions, **options)
    text = str(raised.value)
    assert all(part in text for part in said), text
    assert "\n" not in text


def test_bad_input(make_data: Callable[..., Path], predict: Callable[..., Path], tmp_path: Path) -> None:
    """Each is one sentence that names the file and what is wrong with it."""
    data = make_data(scenes=1)
    predictions = predict(SCENE, "2020-01", [FIRST])
    raises(DataMissing, "does not exist", truth=data, predictions=tmp_path / "none")
    (tmp_path / "empty").mkdir()
    raises(DataMissing, "no footprints and no probs", truth=data, predictions=tmp_path / "empty")
    raises(ConfigError, "iou = 1.0", truth=data, predictions=predictions, ious=(1.0,))
    raises(SceneUnknown, OTHER, truth=data, predictions=predictions, scenes=[OTHER])
    predict(OTHER, "2020-01", [FIRST])
    raises(SceneUnknown, OTHER, "or leave it out", truth=data, predictions=predictions)
    predict(SCENE, "2020-02", [FIRST, FIRST])
    twice = (str(predictions), "the id 1 more than once in 2020-02")
    raises(TracksInvalid, *twice, truth=data, predictions=predictions / SCENE)
    predict(SCENE, "2020-02", [("one", *FIRST[1:])])
    raises(TracksInvalid, "has the Id 'one'", "wanted whole", truth=data, predictions=predictions / SCENE)
    predict(SCENE, "2020-02", [(float("nan"), *FIRST[1:])])
    raises(TracksInvalid, "has the Id nan", "wanted whole", truth=data, predictions=predictions / SCENE)
    (predictions / SCENE / "tracks.geojson").write_text("{}")
    raises(TracksInvalid, "tracks.geojson", "tells neither", truth=data, predictions=predictions / SCENE)


def test_bad_rasters(make_data: Callable[..., Path], predict: Callable[..., Path]) -> None:
    """Another size than the truth's image, values that are no probs, a mask of 0 and 255."""
    data = make_data(scenes=1)
    for probs, said in (
        (np.zeros((20, 31), np.float32), "20 × 31 px"),
        (np.zeros((66, 93), np.float32), "66 × 93 px"),
        (np.full((33, 31), 7.5, np.float32), "values from 7.5 to 7.5"),
        (np.full((33, 31), 255, np.uint8), "or a mask of 0, 1"),
    ):
        raises(ImageUnreadable, said, truth=data, predictions=predict(SCENE, "2020-01", None, probs))


def test_two_files_of_a_month(make_data: Callable[..., Path], predict: Callable[..., Path]) -> None:
    """The same month of a scene in two folders is refused: which one is meant?"""
    data = make_data(scenes=1)
    predictions = predict(SCENE, "2020-01", [FIRST])
    one = next((predictions / SCENE).iterdir())
    (predictions / one.name).write_bytes(one.read_bytes())
    raises(TracksInvalid, "of the same month", truth=data, predictions=predictions)


def test_command(make_data: Callable[..., Path], predict: Callable[..., Path], capsys: Any) -> None:
    """A table for people, one JSON object with --json, and 1 with one sentence for bad input."""
    data = make_data(scenes=2)
    predictions = predict(SCENE, "2020-01", [FIRST], np.zeros((33, 31), np.float32))
    assert main(["score", str(data), str(predictions)]) == 0
    out = capsys.readouterr().out.splitlines()
    pixels, objects = "images Dice IoU precision recall", "months F1@0.25 F_track F_change SCOT"
    assert out[0].split() == f"scene {pixels} {objects}".split()
    assert out[3].startswith("all 2 scenes")
    assert out[-1].startswith("2 scenes scored, 8 true and 1 predicted footprints in 4 months, pixels of 1 images")
    assert main(["score", str(data), str(predictions), "--json", "--iou", "0.25", "0.5"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert list(printed) == ["overall", "scenes", "notes"]
    assert list(printed["scenes"][SCENE]["f1"]) == ["0.25", "0.5"]
    assert main(["score", str(data), str(data / "nowhere")]) == 1
    assert capsys.readouterr().err.count("\n") == 1
