from pathlib import Path

import numpy as np
import pytest
import shapely

from sn7.challenge import Tracks, image_name, read_csv, write_csv
from sn7.errors import TracksInvalid

SCENE, OTHER = "L15-0331E-1257N_1327_3160_13", "L15-0001E-0002N_3_4_13"
HEAD = "filename,id,geometry"
SQUARE = "POLYGON ((0 0, 0 10, 10 10, 10 0, 0 0))"


def write(path: Path, *lines: str) -> Path:
    """Write lines below the head of a challenge CSV."""
    path.write_text("\n".join((HEAD, *lines)) + "\n")
    return path


def row(date: str, number: object, geometry: str = SQUARE, scene: str = SCENE) -> str:
    """Return a row of a challenge CSV."""
    return f'{image_name(scene, date)},{number},"{geometry}"'


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    """Scenes, months without a building, ids, courtyards and parts come back; corners to 0.0001 px."""
    ring = shapely.box(0, 0, 9, 9).difference(shapely.box(3, 3, 6, 6))
    parts = shapely.MultiPolygon([shapely.box(20.123456, 0, 24, 4), shapely.box(30, 0, 34, 4)])
    one = Tracks.of(SCENE, {"2018-02": ([4, 2], [ring, parts]), "2018-01": ([], []), "2018-03": ([2], [parts])})
    two = Tracks.of(OTHER, {"2019-12": ([1], [shapely.box(-3, -2, 4, 5)])})
    write_csv(tmp_path / "tracks.csv", [one, two])
    found = read_csv(tmp_path / "tracks.csv")
    assert list(found) == [OTHER, SCENE]
    again = found[SCENE]
    assert again.months == ("2018-01", "2018-02", "2018-03")
    assert (again.month.tolist(), again.ids.tolist()) == ([1, 1, 2], [2, 4, 2])
    assert shapely.equals_exact(again.geometry, [parts, ring, parts], tolerance=1e-4).all()
    assert shapely.normalize(found[OTHER].geometry[0]) == shapely.normalize(two.geometry[0])


def test_form_of_the_challenge(tmp_path: Path) -> None:
    """The head, names of 58 characters with scene and month at the challenge's places, and a row for an empty month."""
    write_csv(
        tmp_path / "a.csv", [Tracks.of(SCENE, {"2018-01": ([], []), "2018-02": ([7], [shapely.box(0, 0, 1, 2)])})]
    )
    lines = (tmp_path / "a.csv").read_text().splitlines()
    assert lines[0] == HEAD
    assert lines[1] == f"global_monthly_2018_01_mosaic_{SCENE},0,POLYGON EMPTY"
    name, number, geometry = lines[2].split(",", 2)
    assert (name[15:22], name[30:58], number) == ("2018_02", SCENE, "7")
    assert geometry == '"POLYGON ((1 0, 1 2, 0 2, 0 0, 1 0))"'


def test_rows_in_any_order(tmp_path: Path) -> None:
    """Months out of order, and scenes mixed, are put in order."""
    path = write(
        tmp_path / "a.csv",
        row("2018-03", 1),
        row("2018-01", 1, scene=OTHER),
        row("2018-01", 2),
        row("2018-02", 0, "POLYGON EMPTY"),
        row("2018-02", 0, "LINESTRING EMPTY"),
    )
    found = read_csv(path)
    assert found[SCENE].months == ("2018-01", "2018-02", "2018-03")
    assert (found[SCENE].month.tolist(), found[SCENE].ids.tolist()) == ([2, 0], [1, 2])
    assert found[OTHER].months == ("2018-01",)


def test_other_columns_and_endings(tmp_path: Path) -> None:
    """Further columns are passed over, names may end as image files, ids may be written as floats."""
    path = tmp_path / "a.csv"
    path.write_text(f'id,note,filename,geometry\n5.0,x,{image_name(SCENE, "2018-01")}.tif,"{SQUARE}"\n')
    assert read_csv(path)[SCENE].ids.tolist() == [5]


def test_third_dimension_is_dropped(tmp_path: Path) -> None:
    """Heights do not matter."""
    path = write(tmp_path / "a.csv", row("2018-01", 1, "POLYGON Z ((0 0 1, 0 2 1, 2 2 1, 0 0 1))"))
    assert not shapely.has_z(read_csv(path)[SCENE].geometry).any()


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([row("2018-01", 1), row("2018-01", 2, "POLYGON ((0 0, 1")], "line 3, the geometry 'POLYGON ((0 0, 1'"),
        ([row("2018-01", 1, "POINT (1 2)")], "line 2, the geometry 'POINT (1 2)'"),
        ([row("2018-01", 1, "")], "line 2, the geometry"),
        ([row("2018-01", 1), row("2018-02", 7), row("2018-01", 1)], "the id 1 more than once in 2018-01"),
        ([row("2018-01", 1), f"2018_01_{SCENE},2,0"], "line 3, the filename '2018_01_"),
        ([row("2018-13", 1)], "line 2, the filename 'global_monthly_2018_13_"),
        ([row("2018-01", 1), "", row("2018-01", 2)], "line 3, the filename 'nan'"),
        ([row("2018-01", 1.5)], "line 2, the id '1.5'"),
        ([row("2018-01", "x")], "line 2, the id 'x'"),
        ([row("2018-01", "")], "line 2, the id"),
    ],
)
def test_bad_rows(tmp_path: Path, lines: list[str], said: str) -> None:
    """The first wrong line is named, with what it holds and what was wanted."""
    with pytest.raises(TracksInvalid) as error:
        read_csv(write(tmp_path / "a.csv", *lines))
    assert said in str(error.value)
    assert "a.csv" in str(error.value) and "wanted" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"a,b\n1,2\n", b"\xff\xfe\x00\n", b"filename,id,geometry\n1,2,3,4,5\n1\n"])
def test_no_csv_of_the_challenge(tmp_path: Path, content: bytes) -> None:
    """An empty file, other columns, another encoding, too many fields: one sentence with the columns wanted."""
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(TracksInvalid, match="wanted"):
        read_csv(tmp_path / "a.csv")


def test_missing_csv(tmp_path: Path) -> None:
    """A file that is not there is said to be."""
    with pytest.raises(TracksInvalid, match="No such file"):
        read_csv(tmp_path / "a.csv")


def test_nothing_half_written(tmp_path: Path) -> None:
    """Where the second scene cannot be had, the file of before is still whole."""
    good = Tracks.of(SCENE, {"2018-01": ([1], [shapely.box(0, 0, 1, 1)])})
    write_csv(tmp_path / "a.csv", [good])
    before = (tmp_path / "a.csv").read_bytes()

    def broken() -> object:
        yield good
        raise TracksInvalid("no more")

    with pytest.raises(TracksInvalid):
        write_csv(tmp_path / "a.csv", broken())
    assert (tmp_path / "a.csv").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]


def test_same_id_twice_in_a_month() -> None:
    """Tracks refuse it as the CSV does."""
    with pytest.raises(TracksInvalid, match="more than once in 2018-01"):
        Tracks.of(SCENE, {"2018-01": ([3, 3], np.array([shapely.box(0, 0, 1, 1)] * 2, object))})
