import csv
import json
from pathlib import Path

import pytest
from broken import DEFECTS, first_image, make_clean

from sn7.catalog import Scene
from sn7.check.findings import CONSEQUENCES, KINDS
from sn7.check.scenes import months_between, scene_report
from sn7.check.splits import count_clusters, split_reports
from sn7.cli import main


def test_splits_of_the_real_scenes(scenes_csv: Path) -> None:
    """Without one image, from the names alone: 52 clusters, and the neighbours that the published splits separate."""
    names = [row["scene"] for row in csv.DictReader(scenes_csv.open()) if row["split"] == "train"]
    rows = [scene_report(Scene(name, Path(name), ()), "train", [], []) for name in names]
    assert count_clusters(rows) == 52
    notebook, lxastro0 = split_reports(rows)
    assert (notebook.training, notebook.validation, notebook.wanted) == (51, 9, 9)
    assert [round(leak.km) for leak in notebook.leaks] == [17, 28, 54]
    assert notebook.leaks[0].validation == "L15-1615E-1205N_6460_3370_13"
    assert (lxastro0.validation, len(lxastro0.leaks) > 0) == (10, True)


def test_months() -> None:
    """Over the turn of a year, both ends included."""
    assert months_between("2019-11", "2020-02") == ["2019-11", "2019-12", "2020-01", "2020-02"]
    assert months_between("2019-11", "2019-11") == ["2019-11"]


def test_every_kind_has_a_known_consequence() -> None:
    """And no two share a heading."""
    assert {consequence for consequence, _ in KINDS.values()} <= set(CONSEQUENCES)
    assert len({heading for _, heading in KINDS.values()}) == len(KINDS)


def test_command_on_a_clean_sample(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 0; the text has a row a scene, a heading a kind, three files each, and says what was read at its end."""
    data = make_clean(tmp_path / "data")
    assert main(["check", str(data)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert main(["check", str(data), "--workers", "1"]) == 0 and capsys.readouterr().out == out
    assert main(["check", str(data), "--workers", "0"]) == 1 and "workers = 0" in capsys.readouterr().err
    lines = out.splitlines()
    assert lines[1].split()[:6] == ["L15-1120E-1374N_4482_2692_13", "3", "–", "64", "×", "64"]
    place = lines.index("  9 × image of another size than its tile")
    assert lines[place + 4] == "      and 6 more (all with --json)"
    assert "  notebook: 0 of its 9 validation scenes are there, 2 to train on: of no use here" in lines
    assert lines[-1].startswith(
        f"{data}: 2 scenes with 6 images to train on, 6 of them labelled; 1 scene with 3 images to predict; findings: "
    )


def test_json_of_a_clean_sample(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One object with the documented keys; what the text cuts short is there."""
    data = make_clean(tmp_path / "data")
    assert main(["check", str(data), "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert list(content) == ["data", "months", "clusters", "scenes", "splits", "consequences", "findings"]
    assert (content["months"], content["clusters"]) == (["2018-01", "2018-03"], 1)
    assert list(content["consequences"]) == list(CONSEQUENCES)
    assert sum(content["consequences"].values()) == len(content["findings"])
    sizes = [one for one in content["findings"] if one["kind"] == "size"]
    assert len(sizes) == 9
    assert list(sizes[0]) == ["kind", "consequence", "file", "found", "count"]
    assert all((data / one["file"]).exists() for one in content["findings"])


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_command_where_nothing_could_be_trained(
    options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The whole report, then exit 1 and one sentence that names the first file."""
    data = make_clean(tmp_path / "data")
    broken = DEFECTS["cut image"].make(first_image(data))
    assert main(["check", str(data), *options]) == 1
    out, err = capsys.readouterr()
    assert broken.name in out
    assert err.startswith(f"error: {data} has 1 defect that stops `sn7 prepare`")
    assert err.endswith(f"{broken}.\n") and err.count("\n") == 1
    if options:
        assert json.loads(out)["consequences"]["stops prepare"] == 1


def test_what_libraries_print_is_no_line_of_ours(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Of a CRS that PROJ does not know, PROJ would print a line of its own."""
    data = make_clean(tmp_path / "data")
    labels = next(data.glob("train/*/labels_match/*"))
    labels.write_text(labels.read_text().replace("EPSG::3857", "EPSG::99999999"))
    assert main(["check", str(data), "--workers", "1"]) == 1
    out, err = capfd.readouterr()
    assert "names a CRS that is not known" in out
    assert err.startswith("error: ") and err.count("\n") == 1


def test_command_without_a_data_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where there is no scene there is no report, only the sentence."""
    assert main(["check", str(tmp_path), "--json"]) == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "holds no scene" in err
