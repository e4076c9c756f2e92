from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from sn7.cli import main
from sn7.errors import SplitInvalid
from sn7.foldsfile import read_folds, write_folds
from sn7.prepared import Prepared
from sn7.splitreport import choose_folds, describe_folds

SCENES = ["a", "b", "c"]


def _file(folder: Path, text: str) -> Path:
    path = folder / "folds.csv"
    path.write_text(text)
    return path


def test_what_is_written_is_read(tmp_path: Path) -> None:
    """Sorted by scene, one line each."""
    write_folds([["c", "a"], ["b"]], tmp_path / "folds.csv")
    assert (tmp_path / "folds.csv").read_text().split() == ["scene,fold", "a,0", "b,1", "c,0"]
    assert read_folds(tmp_path / "folds.csv", SCENES) == [["a", "c"], ["b"]]


def test_a_file_by_hand_may_have_more_columns(tmp_path: Path) -> None:
    """Any order of lines and columns, and blanks."""
    path = _file(tmp_path, "why,fold,scene\ncity, 1,c\nfield,0 , a\n,0,b\n")
    assert read_folds(path, SCENES) == [["a", "b"], ["c"]]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "has the columns nothing; wanted scene and fold"),
        ("place,fold\na,0\n", "has the columns place, fold; wanted scene and fold"),
        ("scene,fold\n\na,0\nb,1\n\na,1\n", "line 6: a stands there a second time"),
        ("scene,fold\na,0\nb,-1\nc,1\n", "line 3: fold '-1' of b; wanted a whole number"),
        ("scene,fold\na\nb,1\nc,1\n", "line 2: fold '' of a; wanted a whole number"),
        ("scene,fold\na,0\nb,1\n", "lacks scenes of the data (c); wanted each scene of the data once: add"),
        ("scene,fold\na,0\nb,1\nc,1\nd,0\n", "names scenes that the data has not (d)"),
        ("scene,fold\na,0\nb,2\nc,2\n", "has the folds 0, 2; wanted 0, 1 … without a gap"),
        ("scene,fold\na,0\nb,0\nc,0\n", "has the folds 0; wanted 0, 1 … without a gap, two at least"),
        ("\0", "columns"),
    ],
)
def test_a_wrong_file_is_one_sentence(text: str, sentence: str, tmp_path: Path) -> None:
    """It names the file, the line or the scene, and what was wanted."""
    path = _file(tmp_path, text)
    with pytest.raises(SplitInvalid) as caught:
        read_folds(path, SCENES)
    assert str(caught.value).startswith(str(path)) and sentence in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """Nor is a folder a file."""
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(SplitInvalid, match="cannot be read as CSV"):
            read_folds(path, SCENES)


def test_a_number_makes_folds_and_a_name_reads_them(make_prepared: Callable[..., Prepared], tmp_path: Path) -> None:
    """As a study file and the command line give them."""
    prepared = make_prepared(scenes=4)
    made = choose_folds(2, prepared, seed=0)
    assert made == choose_folds("2", prepared, seed=0) and sorted(made[0] + made[1]) == prepared.scenes
    path = _file(tmp_path, "scene,fold\nscene0,0\nscene1,0\nscene2,0\nscene3,1\n")
    assert choose_folds(str(path), prepared, seed=0) == [["scene0", "scene1", "scene2"], ["scene3"]]


def test_the_report_names_separated_neighbours(make_prepared: Callable[..., Prepared]) -> None:
    """Two scenes 11 km apart, in two folds: named once."""
    prepared = make_prepared(scenes=3)
    near = tuple(replace(image, lon=0.1 if image.scene == "scene1" else image.lon) for image in prepared.images)
    lines = describe_folds([["scene0"], ["scene1", "scene2"]], replace(prepared, images=near)).splitlines()
    assert lines[1].startswith("fold 1: 2 scenes of 2 clusters, ")
    assert lines[3:5] == ["  the folds: 1", "    scene0 and scene1, 11 km"]


def test_the_command_writes_what_it_says(
    make_prepared: Callable[..., Prepared], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`sn7 folds` prints the report and writes folds.csv, which it reads again."""
    prepared, out = make_prepared(scenes=4), tmp_path / "folds.csv"
    assert main(["folds", str(prepared.folder), "--folds", "2", "--out", str(out)]) == 0
    text = capsys.readouterr().out
    assert "fold 0: 2 scenes of 2 clusters" in text and "the folds: none within 60 km" in text
    assert "notebook: none of its scenes is here" in text
    assert text.endswith(f"{out}: 4 scenes in 2 folds\n")
    assert main(["folds", str(prepared.folder), "--folds", str(out)]) == 0
    assert capsys.readouterr().out == text[: text.rindex("\n", 0, -1) + 1]


def test_bad_input(make_prepared: Callable[..., Prepared], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder where the file should be, a file where its folder should be, a seed below 0: one sentence each."""
    folder = str(make_prepared(scenes=4).folder)
    file = _file(tmp_path, "scene,fold\n")
    for options, said in (
        (["--out", str(tmp_path)], f"error: {tmp_path} is a folder; wanted the name of a file"),
        (["--out", str(file / "x.csv")], f"error: {file} cannot be written to (it is no folder)"),
        (["--seed", "-1"], "error: seed = -1 cannot be used; wanted a whole number from 0"),
    ):
        assert main(["folds", folder, "--folds", "2", *options]) == 1
        err = capsys.readouterr().err
        assert err.startswith(said) and err.count("\n") == 1, err


def test_training_on_a_fold_by_hand_says_what_is_wrong(
    make_prepared: Callable[..., Prepared], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is trained."""
    prepared, out = make_prepared(scenes=4), tmp_path / "out"
    path = _file(tmp_path, "scene,fold\nscene0,0\n")
    assert main(["train", str(prepared.folder), str(out), "--fold", "0", "--folds", str(path)]) == 1
    assert "lacks scenes of the data (scene1, scene2, scene3)" in capsys.readouterr().err
    assert not out.exists()


def test_a_file_from_excel(tmp_path: Path) -> None:
    """Which begins with a byte order mark, before the first column's name."""
    path = tmp_path / "folds.csv"
    path.write_text("scene,fold\r\na,0\r\nb,1\r\nc,1\r\n", encoding="utf-8-sig")
    assert read_folds(path, SCENES) == [["a"], ["b", "c"]]
