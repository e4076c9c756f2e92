from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from sn7.errors import PretrainedUnusable, ResultsConflict, StudyInvalid
from sweep.space import notebook_point
from sweep.study import Postprocess, Resources
from sweep.studyfile import check_same_study, load_study, save_study

Write = Callable[..., Path]
LR = "lr_max = { loguniform = [1e-4, 1e-2] }"
WEIGHT = "building_weight = { uniform = [0.5, 0.9] }"
STUDIES = Path(__file__).parents[2] / "sweep" / "studies"


@pytest.mark.parametrize("path", sorted(STUDIES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_shipped_study_is_valid(path: Path) -> None:
    """It loads, is named like its file, and the notebook recipe is one of its configurations."""
    study = load_study(path)
    assert study.name == path.stem
    point = notebook_point(study.space)
    assert study.space.reason_outside(point) == ""
    assert set(point) == set(study.search) - set(study.space.conditional)


def test_a_study_survives_its_file(write_study: Write, tmp_path: Path) -> None:
    """load(save(study)) == study, defaults written out."""
    study = load_study(write_study())
    save_study(study, tmp_path / "copy.toml")
    assert load_study(tmp_path / "copy.toml") == study
    assert "refit = 1" in (tmp_path / "copy.toml").read_text()


EVERYTHING = {
    "trials = 4": """trials = 4
repeats = 3
grace_epochs = 1
patience = 7
max_hours = 1.5
max_gpu_hours = 8
max_cost = 20
max_failures = 0
warm_start = "{earlier}"
seed = 5""",
    "[train]": """[resources]
gpu = "auto"
cpu = 2
[prices]
"g5.xlarge" = 1.212
default = 2
[data]
folder = "somewhere"
[train]
weight_decay = 0.05""",
    "[search]": """[search]
undersample = { choice = [true, false] }
weight_decay = { uniform = [0.02, 0.1], when = { undersample = false } }""",
    WEIGHT: WEIGHT
    + """
[start]
undersample = false
weight_decay = 0.03""",
}


@pytest.fixture
def everything(write_study: Write, tmp_path: Path) -> Path:
    """Return a study file with every field set to something other than its default."""
    earlier = tmp_path / "earlier"
    earlier.mkdir()
    (earlier / "optuna.db").touch()
    return write_study({old: new.replace("{earlier}", str(earlier)) for old, new in EVERYTHING.items()})


def test_a_study_with_everything_set_survives_its_file(everything: Path, tmp_path: Path) -> None:
    """Values arrive, whole numbers as floats where floats are meant, and come back from the copy."""
    study = load_study(everything)
    assert (study.repeats, study.patience, study.max_failures, study.seed) == (3, 7, 0, 5)
    assert (study.max_hours, study.max_gpu_hours, study.max_cost) == (1.5, 8.0, 20.0)
    assert study.resources == Resources(gpu="auto", cpu=2) and study.resources.auto
    assert study.prices == {"g5.xlarge": 1.212, "default": 2.0}
    assert {type(price) for price in study.prices.values()} == {float}
    assert study.warm_start == str(tmp_path / "earlier")
    assert study.start_point == {"lr_max": 3e-4, "building_weight": 0.75, "undersample": False, "weight_decay": 0.03}
    assert study.base.weight_decay == 0.05 and study.space.conditional == ("weight_decay",)
    save_study(study, tmp_path / "copy.toml")
    assert load_study(tmp_path / "copy.toml") == study


def test_what_a_study_is_without_the_optional_fields(write_study: Write) -> None:
    """No budget, no repeats, two further attempts, no GPU."""
    study = load_study(write_study())
    assert (study.repeats, study.patience, study.max_failures, study.warm_start) == (1, 0, 2, "")
    assert (study.max_hours, study.max_gpu_hours, study.max_cost, study.prices) == (0, 0, 0, {})
    assert study.start_point == {}
    assert study.resources == Resources(gpu=0, cpu=1) and not study.resources.auto


@pytest.mark.parametrize(("epochs", "given", "grace"), [(40, 0, 10), (6, 0, 2), (1, 0, 1), (40, 3, 3)])
def test_epochs_before_pruning(write_study: Write, epochs: int, given: int, grace: int) -> None:
    """A quarter of the epochs, at least 2, at most all; or what the file says."""
    study = load_study(
        write_study({"epochs = 2": f"epochs = {epochs}", "refit = 1": f"grace_epochs = {given}\nrefit = 1"})
    )
    assert study.grace == grace


def test_a_warm_start_may_name_the_database_itself(everything: Path, tmp_path: Path) -> None:
    """Instead of the folder that holds it."""
    database = tmp_path / "earlier" / "optuna.db"
    everything.write_text(everything.read_text().replace(str(tmp_path / "earlier"), str(database)))
    assert load_study(everything).warm_start == str(database)


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
        ("trials = 4", "trials = 4\nrepeats = 0", "repeats = 0; wanted at least 1 and at most 20"),
        ("trials = 4", "trials = 4\nrepeats = 21", "repeats = 21; wanted at least 1 and at most 20"),
        ("trials = 4", "trials = 4\nrepeats = 1.5", "repeats = 1.5 is of type float; wanted int"),
        ("trials = 4", "trials = 4\npatience = -1", "patience = -1; wanted at least 0"),
        ("trials = 4", "trials = 4\npatience = true", "patience = True is of type bool; wanted int"),
        ("trials = 4", "trials = 4\nmax_hours = nan", "max_hours = nan; wanted at least 0"),
        ("trials = 4", "trials = 4\nmax_hours = inf", "max_hours = inf; wanted at least 0 and at most"),
        ("trials = 4", "trials = 4\nmax_gpu_hours = -2", "max_gpu_hours = -2.0; wanted at least 0"),
        ("trials = 4", "trials = 4\nmax_cost = '3 dollars'", "max_cost = '3 dollars' is of type str; wanted float"),
        ("trials = 4", "trials = 4\nmax_failures = 101", "max_failures = 101; wanted at least 0 and at most 100"),
        ("trials = 4", "trials = 4\nwarm_start = 3", "warm_start = 3 is of type int; wanted str"),
        ("trials = 4", "trials = 4\nmax_gpu_hours = 2", "max_gpu_hours = 2 with resources.gpu = 0, which spends none"),
        ("trials = 4", "trials = 4\nmax_cost = 5", r"max_cost = 5 without prices; wanted a table \[prices\]"),
        ("[train]", "[prices]\n[train]", r"\[prices\] is empty; wanted dollars per node-hour"),
        ("[train]", "[prices]\ngpu = '1.20'\n[train]", "prices.gpu = '1.20'; wanted dollars per node-hour"),
        ("[train]", "[prices]\ngpu = true\n[train]", "prices.gpu = True; wanted dollars"),
        ("[train]", "[prices]\ngpu = -1\n[train]", "prices.gpu = -1; wanted dollars per node-hour, at least 0"),
        ("[train]", "[prices]\ngpu = nan\n[train]", "prices.gpu = nan; wanted dollars"),
        ("[train]", "[prices]\ng5.xlarge = 1\n[train]", r"prices.g5 = .* \(a type with a dot in quotes\)"),
        (
            "[train]",
            "[resources]\ngpu = 'all'\n[train]",
            "resources.gpu = 'all'; wanted a share from 0 to 1, or \"auto\"",
        ),
        ("[train]", "[resources]\ngpu = nan\n[train]", "gpu from 0 to 1"),
        ("[train]", "[resources]\ngpu = true\n[train]", "gpu = True is of type bool; wanted float or str"),
        ("[train]", "[resources]\ncpu = 1.5\n[train]", "cpu = 1.5 is of type float; wanted int"),
        ("[train]", "[train]\nlr_max = 1e-3", r"lr_max stands in \[train\] and, without `when`, in \[search\]"),
        (LR, "epochs = { int = [1, 50] }", "search.epochs cannot vary"),
        (LR, "seed = { int = [0, 9], when = { precision = 'fp32' } }", r"when.precision is no field of \[search\]"),
    ],
)
def test_a_bad_study_is_refused_in_one_sentence(write_study: Write, old: str, new: str, said: str) -> None:
    """Each names the file, the field, what was found and what was wanted."""
    path = write_study({old: new})
    with pytest.raises(StudyInvalid, match=said) as caught:
        load_study(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_encoder_of_the_search_is_looked_up(write_study: Write) -> None:
    """Not only the one that stays."""
    encoders = {'encoder = "xresnet18"': "", LR: 'encoder = { choice = ["xresnet34", "resnet34e"] }'}
    with pytest.raises(StudyInvalid, match=r"resnet34e.*near names are"):
        load_study(write_study(encoders))


def test_a_relative_path_of_weights(write_study: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Would be another one for each trial."""
    (tmp_path / "weights.safetensors").touch()
    monkeypatch.chdir(tmp_path)
    for name in ("weights.safetensors", str(tmp_path / "weights.safetensors")):
        path = write_study({LR: f'pretrained = {{ choice = ["none", "{name}"] }}'})
        if Path(name).is_absolute():
            load_study(path)
        else:
            with pytest.raises(StudyInvalid, match=rf"wanted a full one, such as {tmp_path}/weights.safetensors"):
                load_study(path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({LR: 'pretrained = { choice = ["none", "imagenet", "gone.pth"] }'}, "pretrained = 'gone.pth' does not exist"),
        (
            {'encoder = "xresnet18"': 'encoder = "xresnet18_deep"\npretrained = "imagenet"'},
            "no ImageNet weights for encoder 'xresnet18_deep'",
        ),
    ],
)
def test_every_start_of_an_encoder_is_looked_up(write_study: Write, changes: dict[str, str], said: str) -> None:
    """Weights that do not exist are told before anything starts."""
    with pytest.raises(PretrainedUnusable, match=said):
        load_study(write_study(changes))


def test_a_batch_size_that_depends_on_the_machine_is_refused(write_study: Write) -> None:
    """Trials on two kinds of nodes could not be compared."""
    with pytest.raises(StudyInvalid, match="depends on the machine that a trial lands on"):
        load_study(write_study({"batch_size = 4": 'batch_size = "auto"'}))


@pytest.mark.parametrize(
    ("train", "search", "upscales", "separation"),
    [
        ("", "seed = { int = [0, 9] }", (), False),
        ("upscale = 3\nseparation_weight = 0.5", "seed = { int = [0, 9] }", (3,), True),
        ("", "upscale = { int = [1, 4] }", (2, 3, 4), False),
        ("", "upscale = { choice = [1, 4] }\nseparation_weight = { uniform = [0.0, 1.0] }", (4,), True),
        ("", "separation_weight = { choice = [0.0] }", (), False),
        (
            "upscale = 2\nseparation_weight = 0.0",
            "tile_size = { choice = [32, 64, 255] }\nupscale = { choice = [1, 3], when = { tile_size = 32 } }",
            (2, 3),
            False,
        ),
    ],
)
def test_labels_that_configurations_can_ask_for(
    write_study: Write, train: str, search: str, upscales: tuple[int, ...], separation: bool
) -> None:
    """Of every value that [search] can give, and of [train] where a field does not vary everywhere."""
    size = {"tile_size = 32\n": ""} if "tile_size" in search else {}
    study = load_study(write_study({"epochs = 2": f"epochs = 2\n{train}", LR: search, **size}))
    assert (study.upscales, study.separation) == (upscales, separation)


def test_an_empty_search_is_refused(write_study: Write) -> None:
    """There would be one configuration, trained again and again."""
    path = write_study({"lr_max = { loguniform = [1e-4, 1e-2] }": "", "building_weight = { uniform = [0.5, 0.9] }": ""})
    with pytest.raises(StudyInvalid, match=r"\[search\] is empty"):
        load_study(path)


def test_a_missing_study_names_one_that_is_there(tmp_path: Path) -> None:
    """A newcomer learns where study files lie."""
    with pytest.raises(StudyInvalid, match=r"does not exist; wanted a study file, such as sweep/studies/sample\.toml"):
        load_study(tmp_path / "none.toml")


def test_repeats_and_a_searched_seed_contradict_each_other(write_study: Write) -> None:
    """A repeat differs in nothing but the seed."""
    seed = {LR: "seed = { int = [0, 99] }"}
    assert load_study(write_study(seed)).repeats == 1
    with pytest.raises(StudyInvalid, match=r"repeats = 2 with search\.seed"):
        load_study(write_study({**seed, "trials = 4": "trials = 4\nrepeats = 2"}))


def test_more_trials_than_configurations_are_refused(write_study: Write) -> None:
    """Three seeds are three trials; the fourth would be one of them again."""
    few = {LR: "seed = { choice = [0, 1, 2] }", "building_weight = { uniform = [0.5, 0.9] }": ""}
    with pytest.raises(StudyInvalid, match=r"trials = 4 but \[search\] has 3 configurations, and none is tried twice"):
        load_study(write_study(few))
    assert load_study(write_study({**few, "trials = 4": "trials = 3"})).space.size == 3


@pytest.mark.parametrize(
    ("start", "sentence"),
    [
        ("lr_min = 1.0", r"start\.lr_min is no field of \[search\]; move it to \[train\]"),
        ("lr_max = 1.0", r"start: lr_max = 1\.0 is outside \[0\.0001, 0\.01\]"),
        ("lr_max = true", r"start: lr_max = True is of type bool"),
        ("weight_decay = 0.0", r"start\.weight_decay does not vary beside the other values of \[start\]"),
        ("lr_max = 3e-4", r"\[start\] is the notebook recipe"),
    ],
)
def test_a_start_that_is_no_configuration_is_refused(write_study: Write, start: str, sentence: str) -> None:
    """Before anything is spent, with the field."""
    conditional = "blur = { choice = [true, false] }\nweight_decay = { uniform = [0.0, 0.1], when = { blur = true } }"
    path = write_study({WEIGHT: f"{WEIGHT}\n{conditional}\n[start]\n{start}"})
    with pytest.raises(StudyInvalid, match=sentence):
        load_study(path)


def test_what_may_change_between_two_starts(everything: Path, tmp_path: Path) -> None:
    """How much is done, on what, and for how much; an older study.toml lacks the fields with defaults."""
    study = load_study(everything)
    save_study(study, tmp_path / "results" / "study.toml")
    more = replace(
        study,
        **{"trials": 9, "refit": 2, "repeats": 1, "patience": 0, "max_failures": 5, "data": "elsewhere"},
        **{"max_hours": 0.0, "max_gpu_hours": 0.0, "max_cost": 0.0, "prices": {}, "resources": Resources()},
        postprocess=Postprocess(trials=5),
    )
    check_same_study(tmp_path / "results", more)
    assert all(study.limits[name] != more.limits[name] for name in study.limits) and len(study.limits) == 10
    assert replace(study, resources=Resources(), prices={}).limits == study.limits


def test_a_study_goes_on_after_the_earlier_one_was_removed(everything: Path, tmp_path: Path) -> None:
    """What the stored study names was there when it was started: only the new start's file is checked."""
    study = load_study(everything)
    save_study(study, tmp_path / "results" / "study.toml")
    (tmp_path / "earlier" / "optuna.db").unlink()
    check_same_study(tmp_path / "results", study)


@pytest.mark.parametrize(
    ("old", "new", "difference"),
    [
        ("uniform = [0.5, 0.9]", "uniform = [0.6, 0.9]", r"search\.building_weight = .*0\.5.* there, .*0\.6.* here"),
        ("epochs = 2", "epochs = 6", r"train\.epochs = 2 there, 6 here"),
        (LR, "", r"search\.lr_max is missing here"),
        (LR, LR + "\ndihedral = { uniform = [0.0, 1.0] }", r"search\.dihedral is missing there"),
        ("[train]", "[train]\nrotate = 0.5", r"train\.rotate is missing there"),
        (
            'validation = "random:0"',
            'validation = "random:1"',
            r"study\.validation = 'random:0' there, 'random:1' here",
        ),
        ("folds = 2", "folds = 3", r"study\.folds = 2 there, 3 here"),
        ("trials = 4", "trials = 5\nseed = 1", r"study\.seed = 0 there, 1 here"),
    ],
)
def test_another_study_in_the_same_folder_is_refused(
    write_study: Write, tmp_path: Path, old: str, new: str, difference: str
) -> None:
    """With the one field that differs, and nothing about those that do not."""
    folder = tmp_path / "results"
    save_study(load_study(write_study()), folder / "study.toml")
    other = load_study(write_study({old: new}))
    with pytest.raises(ResultsConflict, match=rf"another study \({difference}\); name this one differently"):
        check_same_study(folder, other)


def test_every_difference_is_shown(write_study: Write, tmp_path: Path) -> None:
    """Table by table."""
    save_study(load_study(write_study()), tmp_path / "results" / "study.toml")
    other = load_study(write_study({"epochs = 2": "epochs = 3", "folds = 2": "folds = 3"}))
    with pytest.raises(ResultsConflict, match=r"\(study\.folds = 2 there, 3 here; train\.epochs = 2 there, 3 here\)"):
        check_same_study(tmp_path / "results", other)
