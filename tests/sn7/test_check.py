import json
import shutil
from collections import Counter
from pathlib import Path

import pytest
import rasterio
from affine import Affine
from broken import DEFECTS, break_everything, first_image, make_clean

from sn7.check import Report, check_data
from sn7.check.findings import KINDS
from sn7.errors import DataMissing, Sn7Error
from sn7.explore import explore
from sn7.prepare import prepare
from sn7.prepared import Prepared

OF_THE_SAMPLE = {"size", "to_predict", "outside", "interior_rings"}
"""What a sample of 64 px has by its nature."""


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a sample that nobody broke; tests copy it."""
    return make_clean(tmp_path_factory.mktemp("clean") / "data")


def found(report: Report) -> set[tuple[str, str, str, str]]:
    """Return kind, consequence, file and text of each finding."""
    return {(one.kind, one.consequence, report.place(one), one.found) for one in report.findings}


def compare(report: Report, prepared: Prepared, left_out: tuple[str, ...]) -> None:
    """Hold a report against what `sn7 prepare` made of the same files."""
    for row in report.scenes:
        if row.part == "train":
            images = [image for image in prepared.images if image.scene == row.scene]
            labelled = [image for image in images if image.labelled]
            assert row.images == len(images)
            assert row.labelled == len(labelled)
            assert row.footprints == sum(image.footprints for image in images)
            shares = [image.building_share for image in labelled]
            assert row.building_share == pytest.approx(sum(shares) / len(shares))
            if labelled == images:
                usable = sum(image.valid_share for image in images) / len(images)
                assert row.unusable_share == pytest.approx(1 - usable)
    used = {image.image for image in prepared.images}
    named = {
        one.path.stem.removesuffix("_Buildings")
        for one in report.findings
        if one.consequence == "left out" and one.kind != "to_predict"
    }
    assert {sentence.split("/")[1].split(" ")[0].rstrip(":") for sentence in left_out} == named & used
    assert {one.path.stem for one in report.findings if one.kind == "raw_only"} == named - used


def test_clean_sample(clean: Path, tmp_path: Path) -> None:
    """Nothing is found but what the sample has by its nature; the facts are those of the prepared arrays."""
    report = check_data(clean)
    assert {one.kind for one in report.findings} <= OF_THE_SAMPLE
    assert report.stopping == []
    assert report.months == ("2018-01", "2018-03")
    assert [(row.part, row.images, row.months_missing) for row in report.scenes] == [
        ("train", 3, ()), ("train", 3, ()), ("test_public", 3, ()),
    ]  # fmt: skip
    row = report.scenes[0]
    assert (row.sizes, row.crs, row.bands, row.positions) == (
        {"64 × 64": 3}, {"EPSG:3857": 3}, {"uint8 × 4": 3}, {"inside it": 3},
    )  # fmt: skip
    assert row.labels == {"labels_match": 3, "labels_match_pix": 3, "labels": 3}
    done = prepare(clean, tmp_path / "out", workers=1)
    compare(report, done.prepared, done.left_out)


@pytest.mark.parametrize("name", DEFECTS)
def test_each_defect(name: str, clean: Path, tmp_path: Path) -> None:
    """It is found, by file, with nothing else; `sn7 prepare` does with it what the report says."""
    defect, data = DEFECTS[name], tmp_path / "data"
    shutil.copytree(clean, data)
    before = found(check_data(data))
    path = defect.make(first_image(data, scene=0, month=1))
    report = check_data(data)
    expected = (defect.kind, defect.consequence, path.relative_to(data).as_posix())
    new = found(report) - before
    assert [one[:3] for one in new].count(expected) == 1
    assert {kind for kind, *_ in new} <= {defect.kind, *defect.also} | OF_THE_SAMPLE
    try:
        done = prepare(data, tmp_path / "out", workers=1)
    except Sn7Error as error:
        assert [one.kind for one in report.stopping] and defect.consequence == "stops prepare"
        assert any(str(one.path) in str(error) for one in report.stopping)
    else:
        assert report.stopping == []
        compare(report, done.prepared, done.left_out)


@pytest.mark.parametrize("name", DEFECTS)
def test_explore_agrees(name: str, clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`sn7 explore` stops at what stops `sn7 prepare` or `sn7 predict`, but shows what lacks labels or training."""
    monkeypatch.setattr("sn7.explore.make._draw", lambda *_: ((), ()))
    data = tmp_path / "data"
    shutil.copytree(clean, data)
    DEFECTS[name].make(first_image(data, scene=0, month=1))
    stopping = [one for one in check_data(data).findings if one.consequence in ("stops prepare", "stops predict")]
    if {one.kind for one in stopping} <= {"scene_unlabelled", "nothing_to_train"}:
        explore(data, tmp_path / "out", workers=1)
    else:
        with pytest.raises(Sn7Error) as caught:
            explore(data, tmp_path / "out", workers=1)
        assert any(str(one.path) in str(caught.value) for one in stopping)


def test_all_defects_at_once(tmp_path: Path) -> None:
    """On a sample with every defect each is found by its file, in several processes as in one."""
    data = tmp_path / "data"
    broken = break_everything(data)
    report = check_data(data, workers=2)
    findings = {one[:3] for one in found(report)}
    for defect, path in broken:
        assert (defect.kind, defect.consequence, path.relative_to(data).as_posix()) in findings, defect
    assert set(KINDS) - {one.kind for one in report.findings} == {"nothing_to_train"}
    assert check_data(data, workers=1) == report


def test_what_does_not_stop_is_shown_and_prepared(tmp_path: Path) -> None:
    """A sample with every defect that stops nothing, at once: all pictures, and arrays that the report foretells."""
    data = tmp_path / "data"
    broken = break_everything(data, stopping=False)
    report = check_data(data)
    assert report.stopping == []
    assert {defect.kind for defect, _ in broken} <= {one.kind for one in report.findings}
    done = prepare(data, tmp_path / "prepared")
    compare(report, done.prepared, done.left_out)
    shown = explore(data, tmp_path / "pictures", tile_size=64)
    assert (len(shown.pictures), shown.left_out) == (7, ())
    images = shown.numbers["images"]
    assert images["unlabelled"] == sum(not image.labelled for image in done.prepared.images) > 0
    assert shown.numbers["footprints"]["used"] == sum(image.footprints for image in done.prepared.images)


@pytest.mark.parametrize(("shift", "found"), [(0.2, False), (0.8, True)])
def test_corners_apart(shift: float, found: bool, tmp_path: Path) -> None:
    """Less than half a pixel between two months is none: published transforms are not the same to the last digit."""
    data = make_clean(tmp_path / "data")
    image = first_image(data, month=1)
    with rasterio.open(image, "r+") as raster:
        raster.transform = raster.transform @ Affine.translation(shift, 0)
        corner = raster.transform.c
    report = check_data(data)
    mixed = [one for one in report.findings if one.kind == "mixed_grids"]
    assert [one.path for one in mixed] == [image] * found
    assert all(one.found.startswith(f"corner at {corner:.9g}, ") for one in mixed)
    assert sorted(report.scenes[0].transforms.values()) == [1, 2]


def test_every_kind_is_built(clean: Path) -> None:
    """There is no kind of finding that no test provokes."""
    kinds = {kind for defect in DEFECTS.values() for kind in (defect.kind, *defect.also)} | OF_THE_SAMPLE
    assert kinds == set(KINDS)


@pytest.mark.parametrize("properties", [None, [], "Id", {"Id": None}, {}])
def test_features_without_ids(clean: Path, tmp_path: Path, properties: object) -> None:
    """What a feature says of itself is anybody's; without Ids there are none that are shared."""
    data = tmp_path / "data"
    shutil.copytree(clean, data)
    path = next(data.glob("train/*/labels_match/*.geojson"))
    content = json.loads(path.read_text())
    for feature in content["features"]:
        feature["properties"] = properties
    path.write_text(json.dumps(content))
    assert found(check_data(data)) == found(check_data(clean))


def test_no_data_set(tmp_path: Path) -> None:
    """A folder without a scene has no report."""
    with pytest.raises(DataMissing, match="holds no scene"):
        check_data(tmp_path)


def test_scenes_behind_a_link_to_nowhere(tmp_path: Path) -> None:
    """Where nothing else is there, what hides the scenes is said, as `sn7 prepare` says it."""
    (tmp_path / "train").symlink_to(tmp_path / "nowhere")
    with pytest.raises(DataMissing, match="train cannot be listed"):
        check_data(tmp_path)


def test_real_fragments(mini: Path) -> None:
    """The null geometry in labels/, the two crops and the test image without labels; nothing stops."""
    report = check_data(mini)
    by_kind = {one.kind: one for one in report.findings}
    assert report.stopping == []
    assert Counter(one.kind for one in report.findings) == {
        "to_predict": 1, "outside": 1, "interior_rings": 2, "size_1023": 1, "size": 2, "mixed_grids": 1,
        "months_missing": 3, "null_geometry": 1,
    }  # fmt: skip
    assert by_kind["null_geometry"].path.parent.name == "labels"
    assert (by_kind["null_geometry"].consequence, by_kind["null_geometry"].count) == ("not read", 1)
    assert "0331E" in by_kind["to_predict"].path.name
    assert {one.found for one in report.findings if one.kind == "size"} == {"512 × 512 px (height × width)"}
    assert by_kind["size_1023"].found == "1023 × 1024 px (height × width)"
    assert by_kind["outside"].found == "22 of 2775 footprints, by up to 6.0 px"
    assert [(row.footprints, row.labelled, row.positions) for row in report.scenes] == [
        (761, 2, {"inside it": 2}), (2775, 1, {"its tile": 1}), (0, 0, {"its tile": 1}),
    ]  # fmt: skip
    assert [(split.split, split.training, split.validation) for split in report.splits] == [
        ("notebook", 1, 1), ("lxastro0", 2, 0),
    ]  # fmt: skip
