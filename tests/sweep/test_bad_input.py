"""What a person gets wrong, through the entry point itself: exit status, one line on stderr, nothing written."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from sn7.files import lock
from sn7.sample import make_sample
from sweep.run import main


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a sample of two scenes with one image each."""
    folder = tmp_path_factory.mktemp("sample") / "data"
    make_sample(folder, scenes=2, months=1, size=64)
    return folder


@pytest.fixture
def data(sample: Path, tmp_path: Path) -> Path:
    """Return a copy of the sample that a test may damage."""
    return Path(shutil.copytree(sample, tmp_path / "data"))


Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(write_study: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function: data folder, replacements in the study file → exit status and stderr."""

    def _run(data: Path, replacements: dict[str, str] | None = None, *extra: str) -> tuple[int, str]:
        study = write_study(replacements)
        status = main([str(study), "--data", str(data), "--results", str(tmp_path / "results"), *extra])
        return status, capsys.readouterr().err

    return _run


def _refused(outcome: tuple[int, str], tmp_path: Path, *said: str) -> None:
    status, err = outcome
    lines = [line for line in err.splitlines() if not line.startswith("prepared ")]
    assert status == 1
    assert len(lines) == 1 and lines[0].startswith("error: "), err
    for part in said:
        assert part in lines[0]
    assert not (tmp_path / "results" / "test").exists()


def _image(data: Path) -> Path:
    return next((data / "train").rglob("images_masked/*.tif"))


def test_no_data(run: Run, tmp_path: Path) -> None:
    """A folder that is missing, and one that is empty."""
    _refused(run(tmp_path / "none"), tmp_path, str(tmp_path / "none"), "is no folder")
    (tmp_path / "empty").mkdir()
    _refused(run(tmp_path / "empty"), tmp_path, str(tmp_path / "empty"))


def test_a_scene_without_labels(run: Run, data: Path, tmp_path: Path) -> None:
    """It is named, with what to do."""
    scene = _image(data).parents[1]
    for name in ("labels", "labels_match", "labels_match_pix"):
        shutil.rmtree(scene / name)
    _refused(run(data), tmp_path, scene.name, "test_public")


def test_a_truncated_image(run: Run, data: Path, tmp_path: Path) -> None:
    """Half a file is named."""
    image = _image(data)
    image.write_bytes(image.read_bytes()[: image.stat().st_size // 2])
    _refused(run(data), tmp_path, image.name)


def test_broken_labels(run: Run, data: Path, tmp_path: Path) -> None:
    """JSON that ends in the middle is named."""
    labels = next((data / "train").rglob("labels_match/*_Buildings.geojson"))
    labels.write_text(labels.read_text()[:200])
    _refused(run(data), tmp_path, labels.name)


@pytest.mark.parametrize(
    ("replacements", "said"),
    [
        ({"tile_size = 32": "tile_sice = 32"}, "did you mean tile_size"),
        ({"epochs = 2": 'epochs = "2"'}, "wanted a whole number"),
        ({'encoder = "xresnet18"': 'encoder = "xresnet19"'}, "xresnet18"),
    ],
)
def test_a_bad_study(run: Run, sample: Path, tmp_path: Path, replacements: dict[str, str], said: str) -> None:
    """An unknown field, a wrong type, an encoder that does not exist."""
    _refused(run(sample, replacements), tmp_path, "study.toml", said)


def test_more_folds_than_scenes(run: Run, sample: Path, tmp_path: Path) -> None:
    """The sample's two scenes are neighbours, so they are one cluster."""
    _refused(run(sample, {"folds = 2": "folds = 3"}), tmp_path, "2 scenes in 1 cluster")


def test_a_results_folder_of_something_else(run: Run, sample: Path, tmp_path: Path) -> None:
    """Nothing in it is touched."""
    folder = tmp_path / "results" / "test"
    folder.mkdir(parents=True)
    (folder / "thesis.tex").write_text("years of work")
    status, err = run(sample)
    assert (status, err.count("\n")) == (1, 1) and "holds no study" in err
    assert [path.name for path in folder.iterdir()] == ["thesis.tex"]


def test_a_study_that_is_at_work_is_left_alone(tmp_path: Path) -> None:
    """Two drivers in one folder would fail each other's trials."""
    with lock(tmp_path / ".lock"):
        from sn7.errors import ResultsConflict

        with pytest.raises(ResultsConflict, match="another process is at work"), lock(tmp_path / ".lock"):
            pass
    with lock(tmp_path / ".lock"):
        pass


def test_usage(capsys: pytest.CaptureFixture[str]) -> None:
    """An option that does not exist is 2."""
    with pytest.raises(SystemExit) as caught:
        main(["--trails", "3"])
    assert caught.value.code == 2
    assert "--trails" in capsys.readouterr().err


def test_dry_run(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The plan, the notebook recipe first, the cost; no results folder, no MLflow store."""
    make_sample(tmp_path / "more", scenes=4, months=1, size=64)
    study = tmp_path / "study.toml"
    run(tmp_path / "more", None, "--dry-run")
    capsys.readouterr()
    arguments = [str(study), "--data", str(tmp_path / "more"), "--results", str(tmp_path / "results"), "--dry-run"]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert "study test: 4 trials of 2 epochs" in out
    assert "0. lr_max=0.0003, building_weight=0.75" in out
    assert "at most 8 epochs of trials and 4 of cross-validation" in out
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["prepared"]
