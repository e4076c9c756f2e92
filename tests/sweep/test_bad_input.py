"""What a person gets wrong, through the entry point itself: exit status, one line on stderr, nothing written."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from sn7.files import lock
from sn7.prepare import prepare
from sn7.sample import make_sample
from sweep.plan import make_plan
from sweep.run import main
from sweep.search import open_optuna
from sweep.study import check_study
from sweep.studyfile import load_study, save_study


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
        ({"[train]": "[trian]"}, "did you mean train"),
        ({"refit = 1": "refit = 0"}, "study.refit = 0; wanted at least 1"),
        ({"trials = 4": "trials = 4\nmax_cost = 5.0"}, "study.max_cost = 5 without prices"),
        ({"trials = 4": "trials = 4\nmax_gpu_hours = 1.0"}, "with resources.gpu = 0"),
        ({"[train]": "[resources]\ncpu = 0\n[train]"}, "wanted cpu of at least 1"),
        ({"lr_max = { loguniform = [1e-4, 1e-2] }": "lr_max = { choice = [] }"}, "search.lr_max"),
        ({"building_weight = { uniform = [0.5, 0.9] }": "tile_size = { choice = [32, 64, 255] }"}, "tile_size"),
    ],
)
def test_a_bad_study(run: Run, sample: Path, tmp_path: Path, replacements: dict[str, str], said: str) -> None:
    """Unknown fields and tables, wrong types and ranges, contradictions, an empty search."""
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


def test_tracks_of_a_study_that_never_ran(run: Run, sample: Path, tmp_path: Path) -> None:
    """There is nothing to tune on: nothing is prepared, started or written."""
    _refused(run(sample, None, "--tune-tracks"), tmp_path, "holds no complete study")
    assert not (tmp_path / "results").exists()


def test_what_a_kill_left_half_written_is_no_study(run: Run, sample: Path, tmp_path: Path) -> None:
    """A driver that was killed at its very first file can be started again."""
    folder = tmp_path / "results" / "test"
    folder.mkdir(parents=True)
    (folder / ".tmp-a1b2study.toml").touch()
    status, err = run(sample, {"folds = 2": "folds = 3"})
    assert status == 1 and "2 scenes in 1 cluster" in err, "refused for what comes after"


@pytest.fixture
def begun(write_study: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a data set whose study has begun in results/test, as the driver leaves it when it is killed."""

    def no_ray(*_: object) -> None:
        raise AssertionError("Ray was started")

    monkeypatch.setattr("sweep.driver.start_ray", no_ray)
    data, folder = tmp_path / "four", tmp_path / "results/test"
    make_sample(data, scenes=4, months=1, size=64)
    study = check_study(load_study(write_study()))
    plan = make_plan(study, prepare(data, tmp_path / "prepared").prepared)
    opened = open_optuna(study, folder)
    opened.set_user_attr("data_fingerprint", plan.prepared.fingerprint)
    opened.set_user_attr("splits", {split.name: list(split.validation) for split in plan.validation})
    save_study(study, folder / "study.toml")
    return data


def _not_resumed(run: Run, data: Path, replacements: dict[str, str] | None, *said: str) -> None:
    """Assert that --resume is refused with this, and that nothing in the study's folder is changed."""
    folder = data.parent / "results/test"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    status, err = run(data, replacements, "--resume")
    lines = [line for line in err.splitlines() if not line.startswith("prepared ")]
    assert status == 1 and len(lines) == 1 and lines[0].startswith(f"error: {folder}"), err
    for part in said:
        assert part in lines[0]
    after = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}
    assert after == {name: content for name, content in before.items() if name != ".lock"}


def test_resume_with_another_search(run: Run, begun: Path) -> None:
    """The field with both of its values; one that moved; one that is fixed."""
    both = "search.building_weight = {'uniform': [0.5, 0.9]} there, {'uniform': [0.5, 0.8]} here"
    _not_resumed(run, begun, {"[0.5, 0.9]": "[0.5, 0.8]"}, both)
    moved = {"batch_size = 4": "", "[search]": "[search]\nbatch_size = { choice = [4, 12] }"}
    _not_resumed(run, begun, moved, "train.batch_size is missing here", "search.batch_size is missing there")
    _not_resumed(run, begun, {"epochs = 2": "epochs = 3"}, "train.epochs = 2 there, 3 here")


def test_resume_with_another_split(run: Run, begun: Path) -> None:
    """Named in the study file; or of the same name with other scenes than the database has."""
    _not_resumed(run, begun, {"random:0": "random:1"}, "study.validation = 'random:0' there, 'random:1' here")
    study = load_study(begun.parent / "results/test/study.toml")
    open_optuna(study, begun.parent / "results/test").set_user_attr("splits", {"random:0": ["A", "B"]})
    _not_resumed(run, begun, None, "another split (random:0 validates on A, B there, L15-")


def test_resume_with_other_data(run: Run, begun: Path) -> None:
    """Both fingerprints."""
    make_sample(begun.parent / "other", scenes=4, months=1, size=64, seed=1)
    _not_resumed(run, begun.parent / "other", None, "made with other data (fingerprint ", " there, ", " here)")


def test_a_second_driver(run: Run, begun: Path) -> None:
    """While one is at work in the folder, another is refused, and says so; when it has ended, it is not."""
    folder = begun.parent / "results/test"
    with lock(folder / ".lock"):
        status, err = run(begun, None, "--resume")
    assert status == 1 and err.splitlines()[-1].startswith(f"error: another process is at work in {folder}")
    with pytest.raises(AssertionError, match="Ray was started"):
        run(begun, None, "--resume")


def test_usage(capsys: pytest.CaptureFixture[str]) -> None:
    """An option that does not exist is 2."""
    with pytest.raises(SystemExit) as caught:
        main(["--trails", "3"])
    assert caught.value.code == 2
    assert "--trails" in capsys.readouterr().err


@pytest.mark.parametrize("tries", ["0", "-3", "many"])
def test_tries_of_the_tracks(tries: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Fewer than one find nothing: refused before Ray is started."""
    with pytest.raises(SystemExit) as caught:
        main(["--tune-tracks", tries])
    assert caught.value.code == 2
    assert f"--tune-tracks: {tries} cannot be used; wanted 1 or more tries" in capsys.readouterr().err


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
