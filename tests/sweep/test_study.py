from collections.abc import Callable
from pathlib import Path

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from sn7.config import RECIPES
from sn7.errors import ResultsConflict, StudyInvalid
from sweep.space import notebook_point, parse_search
from sweep.study import check_same_study, load_study, save_study

Write = Callable[..., Path]
STUDIES = Path(__file__).parents[2] / "sweep" / "studies"


@pytest.mark.parametrize("path", sorted(STUDIES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_shipped_study_is_valid(path: Path) -> None:
    """It loads, is named like its file, and the notebook recipe lies in its space."""
    study = load_study(path)
    assert study.name == path.stem
    assert set(notebook_point(study.space)) == set(study.search)


def test_a_study_survives_its_file(write_study: Write, tmp_path: Path) -> None:
    """load(save(study)) == study, defaults written out."""
    study = load_study(write_study())
    save_study(study, tmp_path / "copy.toml")
    assert load_study(tmp_path / "copy.toml") == study
    assert "refit = 1" in (tmp_path / "copy.toml").read_text()


def test_the_search_table() -> None:
    """Each kind becomes Optuna's distribution of the same bounds."""
    space = parse_search(
        {
            "encoder": {"choice": ["xresnet34", "resnet34d"]},
            "lr_max": {"loguniform": [1e-5, 1e-2]},
            "building_weight": {"uniform": [0.5, 0.95]},
            "tile_size": {"int": [128, 256]},
        }
    )
    assert space == {
        "encoder": CategoricalDistribution(["xresnet34", "resnet34d"]),
        "lr_max": FloatDistribution(1e-5, 1e-2, log=True),
        "building_weight": FloatDistribution(0.5, 0.95),
        "tile_size": IntDistribution(128, 256),
    }
    assert notebook_point(space) == {name: getattr(RECIPES["notebook"], name) for name in space}


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('name = "test"', "", "study.name is missing"),
        ('name = "test"', 'name = "../up"', "wanted letters, digits"),
        ('name = "test"', 'name = "prepared"', "none of prepared"),
        ("trials = 4", "trails = 4", r"trails is no field of \[study\] of a study file; did you mean trials"),
        ("trials = 4", 'trials = "4"', "study.trials = '4' is of type str; wanted int"),
        ("trials = 4", "trials = 0", "wanted at least 1"),
        ("folds = 2", "folds = 1", "wanted at least 2"),
        ("refit = 1", "refit = 9", "wanted at most as many"),
        ('validation = "random:0"', 'validation = "best"', "'best' is no split"),
        ("trials = 4", "trials = 4\ngrace_epochs = 3", "grace_epochs = 3 of 2 epochs"),
        ("trials = 4", "trials = 4\nseed = 4294967296", "seed = 4294967296"),
        ("[train]", "[trian]", "trian is no table of a study file; did you mean train"),
        ("[train]", "[resources]\ncpu = 0\n[train]", "cpu of at least 1"),
        ("[train]", "[resources]\ngpu = 1.5\n[train]", "gpu from 0 to 1"),
        ("tile_size = 32", "tile_syze = 32", "did you mean tile_size"),
        ("tile_size = 32", "tile_size = 7", "from 32 to 2048"),
        ('encoder = "xresnet18"', 'encoder = "xresnet81"', "near names are"),
        ("lr_max = { loguniform = [1e-4, 1e-2] }", "lr_max = 1e-4", "is no search; wanted one of choice"),
        ("loguniform = [1e-4, 1e-2]", "loguniform = [1e-2, 1e-4]", r"wanted \[lowest, highest\]"),
        (
            "loguniform = [1e-4, 1e-2]",
            "loguniform = [1e-3, 1e-2]",
            "leaves out 0.0003, the value of the notebook recipe",
        ),
        ("loguniform = [1e-4, 1e-2]", "int = [1, 2]", "wanted uniform or loguniform"),
        ("loguniform = [1e-4, 1e-2]", "loguniform = [1e-4, 100]", "from 1e-08 to 10"),
        ("lr_max = {", "encoder = {", "encoder"),
        ("lr_max = { loguniform = [1e-4, 1e-2] }", "validation_images = { choice = [1, 2] }", "measured on different"),
        ("lr_max = { loguniform = [1e-4, 1e-2] }", "seed = { choice = [0, 0] }", "names a value twice"),
        ("uniform = [0.5, 0.9]", "uniform = 0.5", "wanted a list of values"),
        ("[search]", "[search", "cannot be read as TOML"),
    ],
)
def test_a_bad_study_is_refused_in_one_sentence(write_study: Write, old: str, new: str, said: str) -> None:
    """Each names the file, the field, what was found and what was wanted."""
    path = write_study({old: new})
    with pytest.raises(StudyInvalid, match=said) as caught:
        load_study(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_empty_search_is_refused(write_study: Write) -> None:
    """There would be one configuration, trained again and again."""
    path = write_study({"lr_max = { loguniform = [1e-4, 1e-2] }": "", "building_weight = { uniform = [0.5, 0.9] }": ""})
    with pytest.raises(StudyInvalid, match=r"\[search\] is empty"):
        load_study(path)


def test_a_missing_study_names_one_that_is_there(tmp_path: Path) -> None:
    """A newcomer learns where study files lie."""
    with pytest.raises(StudyInvalid, match=r"does not exist; wanted a study file, such as sweep/studies/sample\.toml"):
        load_study(tmp_path / "none.toml")


def test_another_study_in_the_same_folder_is_refused_with_the_difference(write_study: Write, tmp_path: Path) -> None:
    """More trials or other resources are the same study; another search is not."""
    folder = tmp_path / "results"
    save_study(load_study(write_study()), folder / "study.toml")
    check_same_study(folder, load_study(write_study({"trials = 4": "trials = 9"})))
    other = load_study(write_study({"uniform = [0.5, 0.9]": "uniform = [0.6, 0.9]"}))
    with pytest.raises(ResultsConflict, match=r"another study \(search = .*0\.5.* there, .*0\.6.* here\)"):
        check_same_study(folder, other)
