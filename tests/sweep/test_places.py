"""Where a study's data may lie: a folder or a URL, raw or prepared."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from nodes import Nodes
from s3 import Server

from sn7.prepare import prepare
from sn7.prepared import load_prepared
from sn7.publish import publish
from sn7.sample import make_sample
from sn7.storage import cache_folder
from sweep.run import main

Write = Callable[..., Path]
ROOT = Path(__file__).parents[2]
UPSCALE = "upscale = { choice = [1, 2, 3] }"
HOSTS = ("127.0.0.3", "127.0.0.4")


def _dry_run(study: Path, data: str, results: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    status = main([str(study), "--data", data, "--results", str(results), "--dry-run"])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_a_study_plans_the_same_wherever_its_data_lies(
    s3: Server, write_study: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder, prepared or not, and S3, prepared or not; what is prepared is not prepared again."""
    data, prepared, study = tmp_path / "data", tmp_path / "prepared", write_study()
    make_sample(data, scenes=4, months=1, size=64)
    prepare(data, prepared)
    publish(prepared, "s3://sn7-shared/prepared")
    for path in (path for path in data.rglob("*") if path.is_file()):
        s3.put("sn7-shared", f"raw/{path.relative_to(data).as_posix()}", path.read_bytes())
    status, plan, said = _dry_run(study, str(data), tmp_path / "results", capsys)
    assert status == 0 and "4 new" in said
    for place, new in (("s3://sn7-shared/raw", True), ("s3://sn7-shared/prepared", False), (str(prepared), False)):
        assert _dry_run(study, place, tmp_path / _results(place), capsys)[:2] == (0, plan)
        assert (tmp_path / _results(place) / "prepared").exists() == new
    assert (cache_folder("s3://sn7-shared/prepared") / "index.json").exists()


def test_a_study_has_the_labels_that_it_searches(
    write_study: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are prepared, apart from those of other studies; of a prepared set that lacks them it is said at once."""
    data, results = tmp_path / "data", tmp_path / "results"
    make_sample(data, scenes=4, months=1, size=64)
    plain = prepare(data, tmp_path / "prepared").prepared
    assert _dry_run(write_study(), str(data), results, capsys)[0] == 0
    fine = write_study({"epochs = 2": "epochs = 2\nseparation_weight = 0.5", "[search]": "[search]\n" + UPSCALE})
    assert _dry_run(fine, str(data), results, capsys)[0] == 0
    first, second = sorted((results / "prepared").iterdir())
    assert second.name == f"{first.name}-separation-x2-x3"
    assert load_prepared(first).fingerprint == plain.fingerprint
    made = load_prepared(second)
    assert (made.upscales, made.separation) == ((2, 3), True)
    status, _, said = _dry_run(fine, str(plain.folder), tmp_path / "again", capsys)
    assert status == 1
    assert said == (
        f"error: {plain.folder} has no labels at upscale 2, 3 (it has none) and no boundary and contact channels; "
        "run `sn7 prepare … --separation --upscale 2 --upscale 3`.\n"
    )


def _results(place: str) -> str:
    """Return a name for the results of a place."""
    return "results-" + "".join(letter for letter in place if letter.isalnum())


def test_a_url_that_cannot_be_read_is_one_sentence(
    s3: Server, write_study: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything else is done."""
    status, _, said = _dry_run(write_study(), "s3://sn7-shared/none", tmp_path / "results", capsys)
    assert status == 1
    assert "error: s3://sn7-shared/none holds no file; give the folder of a data set or of a prepared one." in said


def test_a_set_that_is_being_published_is_no_data_set(
    s3: Server, write_study: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its index comes last."""
    s3.put("sn7-shared", "prepared/scene/image.npy", b"x")
    status, _, said = _dry_run(write_study(), "s3://sn7-shared/prepared", tmp_path / "results", capsys)
    assert status == 1
    assert "s3://sn7-shared/prepared is an unfinished prepared set; wait for its `sn7 prepare`" in said


@pytest.mark.slow
def test_each_node_fetches_for_itself(s3: Server, write_study: Write, tmp_path: Path) -> None:
    """Two nodes with caches of their own train on a prepared set that only S3 has."""
    make_sample(tmp_path / "data", scenes=4, months=1, size=64)
    prepare(tmp_path / "data", tmp_path / "prepared")
    publish(tmp_path / "prepared", "s3://sn7-shared/prepared")
    study = write_study({'"xresnet18"': '"test_efficientnet"'})
    command = [sys.executable, str(ROOT / "sweep" / "run.py"), str(study), "--data", "s3://sn7-shared/prepared"]
    with Nodes(tmp_path / "nodes.log") as nodes:
        for host in HOSTS:
            nodes.add(host, SN7_CACHE=str(tmp_path / host))
        done = subprocess.run(
            [*command, "--results", str(tmp_path / "results"), "--address", nodes.address],
            env=nodes.environment,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
    assert done.returncode == 0, done.stderr[-3000:]
    assert {path.parts[-3] for path in tmp_path.glob("127.*/prepared-*/index.json")} == set(HOSTS)
    assert (tmp_path / "results/test/summary.json").exists()
    assert not (tmp_path / "results/prepared").exists()
