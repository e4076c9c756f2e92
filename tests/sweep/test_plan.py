from collections.abc import Callable
from pathlib import Path

import pytest

from sn7.errors import SplitInvalid
from sn7.foldsfile import write_folds
from sn7.prepare import prepare
from sn7.prepared import Prepared
from sn7.sample import make_sample
from sweep.plan import Plan, describe, leak_warnings, make_plan
from sweep.search import next_trial, open_optuna
from sweep.studyfile import load_study

Write = Callable[..., Path]
LR = "lr_max = { loguniform = [1e-4, 1e-2] }"
WEIGHT = "building_weight = { uniform = [0.5, 0.9] }"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """Return a prepared sample of four scenes in three clusters, with one image each."""
    folder = tmp_path_factory.mktemp("plan")
    make_sample(folder / "data", scenes=4, months=1, size=64)
    return prepare(folder / "data", folder / "prepared").prepared


@pytest.fixture
def plan(prepared: Prepared, write_study: Write) -> Callable[[dict[str, str]], Plan]:
    """Return a function that plans the small study with replacements in its file."""
    return lambda replacements: make_plan(load_study(write_study(replacements)), prepared)


Make = Callable[[dict[str, str]], Plan]
LONG = {"epochs = 2": "epochs = 20", "trials = 4": "trials = 10"}


def test_epochs_of_a_study_on_one_split(plan: Make) -> None:
    """10 trials of 20 epochs, compared after 5 and 15; 2 configurations on 2 folds, and with 2 more seeds."""
    made = plan({**LONG, "refit = 1": "refit = 2\nrepeats = 3"})
    assert made.rungs == (5, 15)
    assert (made.trial_epochs, made.fold_epochs, made.repeat_epochs) == (200, 80, 80)
    # The notebook recipe takes 20; each of the other nine 5 + 10 / 2 + 5 / 4 = 11.25, together 101.
    assert made.expected_epochs == 121


def test_epochs_of_a_study_on_its_folds(plan: Make) -> None:
    """The trials train the folds themselves; a repeat trains both, too."""
    made = plan({**LONG, 'validation = "random:0"': 'validation = "folds"', "refit = 1": "refit = 1\nrepeats = 2"})
    assert (made.trial_epochs, made.fold_epochs, made.repeat_epochs) == (400, 0, 40)


def test_without_repeats_there_are_no_epochs_of_them(plan: Make) -> None:
    """Nor a line."""
    made = plan({})
    assert made.repeat_epochs == 0
    assert "repeats" not in describe(made)


def test_folds_by_hand(plan: Make, prepared: Prepared, tmp_path: Path) -> None:
    """A study names a file; its folds are cross-validated, one that does not fit the data is refused."""
    path, scenes = tmp_path / "by_hand.csv", prepared.scenes
    write_folds([scenes[:1], scenes[1:2], scenes[2:]], path)
    made = plan({"folds = 2": f'folds = "{path}"'})
    assert [split.validation for split in made.folds] == [(scenes[0],), (scenes[1],), tuple(scenes[2:])]
    assert f"best {made.study.refit} on 3 folds of 1, 1, 2 scenes" in describe(made)
    tuned = "parameters tried for each of 3 folds on the others, and on all, by F1 of footprints at IoU 0.25"
    assert f"footprints: {made.study.postprocess.trials} {tuned}" in describe(made)
    write_folds([scenes[:1], scenes[1:2]], path)
    with pytest.raises(SplitInvalid, match="lacks scenes of the data"):
        plan({"folds = 2": f'folds = "{path}"'})


def test_neighbours_that_folds_by_hand_separate(plan: Make, prepared: Prepared, tmp_path: Path) -> None:
    """They are named for the cross-validation as for the search; folds that are made separate none."""
    assert leak_warnings(plan({})) == []
    path = tmp_path / "by_hand.csv"
    write_folds([[scene] for scene in prepared.scenes], path)
    warnings = leak_warnings(plan({"folds = 2": f'folds = "{path}"'}))
    assert len(warnings) == 2 and all(warning.startswith("warning: split fold") for warning in warnings)


def test_the_rungs_in_words(plan: Make) -> None:
    """Epochs inside the first split, then whole splits."""
    assert "pruning begins at epoch 5 and keeps about half at each rung (epochs 5, 15)" in describe(plan(LONG))
    folds = {'validation = "random:0"': 'validation = "folds"', "folds = 2": "folds = 3"}
    text = describe(plan({**LONG, **folds, "refit = 1": "refit = 1\ngrace_epochs = 10"}))
    assert "(epochs 10, then after 2 splits)" in text  # 10, then 30 of 20 a split: rounded to two of them
    text = describe(plan({**LONG, **folds, "refit = 1": "refit = 1\ngrace_epochs = 20"}))
    assert "pruning begins at epoch 20 and keeps about half at each rung (after 1 split)" in text


def test_a_study_that_prunes_nothing_says_so(plan: Make) -> None:
    """Two epochs, two of them grace."""
    text = describe(plan({}))
    assert "at most 8 epochs of trials and 4 of cross-validation; nothing is pruned" in text


def test_the_first_configurations_are_those_of_the_search(plan: Make) -> None:
    """Drawn as the search draws them, conditions kept, and none of them twice."""
    searched = {
        LR: "undersample = { choice = [true, false] }",
        WEIGHT: "seed = { choice = [0, 1], when = { undersample = false } }",
        "trials = 4": "trials = 3",
    }
    made = plan(searched)
    lines = describe(made).splitlines()
    start = lines.index("the first configurations (later ones depend on results):")
    first = lines[start + 1 : start + 4]
    assert sorted(line.split(". ")[1] for line in first) == [
        "undersample=False, seed=0",
        "undersample=False, seed=1",
        "undersample=True",
    ]
    assert first[0] == "  0. undersample=True"
    opened = open_optuna(made.study, None)
    second = [next_trial(opened, made.study) for _ in range(2)][1]
    assert second is not None and first[1].endswith(f"seed={second.params['seed']}")


def test_the_search_in_words(plan: Make) -> None:
    """Its size where it is finite, each field with its condition, and what holds where it does not vary."""
    text = describe(
        plan(
            {
                LR: "undersample = { choice = [true, false] }",
                WEIGHT: "batch_size = { choice = [12, 16], when = { undersample = false } }",
                "trials = 4": "trials = 3",
            }
        )
    )
    assert "search of 3 configurations, none of them twice:" in text
    assert "  batch_size: 12, 16 where undersample is False" in text
    assert "where they do not vary: batch_size=4" in text
    fixed = next(line for line in text.splitlines() if line.startswith("fixed: "))
    assert "batch_size" not in fixed and "tile_size=32" in fixed


def test_budgets_prices_and_patience(plan: Make) -> None:
    """Only those that are set."""
    text = describe(
        plan(
            {
                "trials = 4": "trials = 4\nmax_hours = 2\nmax_cost = 20\npatience = 3\nrepeats = 2",
                "[train]": '[resources]\ngpu = "auto"\n[prices]\n"g5.xlarge" = 1.212\ndefault = 2\n[train]',
            }
        )
    )
    assert "each on 1 CPU and as much of a GPU as it needs (auto)" in text
    assert "budget: 2 hours, $20.00; the search ends while what is left still pays for the cross-validation" in text
    assert "a node-hour costs, by type: g5.xlarge $1.21, others $2.00" in text
    assert "patience: the search ends when 3 trials in a row have ended without a new best" in text
    assert "repeats: best 1 with 2 seeds each on random:0" in text
    plain = describe(plan({}))
    for word in ("budget", "node-hour", "patience", "where they do not vary", "warm start"):
        assert word not in plain


def test_the_cost_is_unknown_before_an_epoch_was_measured(plan: Make) -> None:
    """It says what would measure it; with a measured epoch it is hours, and dollars where there is a price."""
    made = plan({**LONG, "refit = 1": "refit = 2"})  # 200 epochs of trials, about 121 expected, 80 of cross-validation
    assert describe(made).endswith("cost: unknown until --preflight or the first epochs have measured an epoch")
    text = describe(made, {"seconds_per_epoch": 90.0})
    assert "cost: at most 7.0 h, expected 5.0 h (at 90 s an epoch" in text
    text = describe(made, {"seconds_per_epoch": 90.0, "price_per_hour": 0.5})
    assert "cost: at most 7.0 h and $3.50, expected 5.0 h and $2.51" in text


def test_a_warm_start_is_counted(plan: Make, write_study: Write, tmp_path: Path) -> None:
    """Trials of the earlier study that inform this one, and those that do not, with a reason."""
    earlier = load_study(write_study({}))
    opened = open_optuna(earlier, tmp_path / "earlier")
    for value in (0.5, 0.6):
        trial = next_trial(opened, earlier)
        assert trial is not None
        opened.tell(trial, value)
    next_trial(opened, earlier)
    text = describe(plan({"trials = 4": f'trials = 4\nwarm_start = "{tmp_path / "earlier"}"'}))
    assert f"warm start: 2 trials of {tmp_path / 'earlier'} inform the search, 1 are left out (trial 2 of test" in text


def test_a_split_is_checked_with_the_fewest_images(plan: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where images_per_scene varies, its lowest value decides whether there is something to train on."""
    asked = set()
    monkeypatch.setattr(
        "sweep.plan.training_tiles", lambda prepared, scenes, config: asked.add(config.images_per_scene)
    )
    plan({"[train]": "[train]\nimages_per_scene = 3"})
    assert asked == {3}
    plan({WEIGHT: "images_per_scene = { int = [1, 4] }"})
    assert asked == {3, 1}


def test_more_folds_than_clusters_are_refused(plan: Make) -> None:
    """The four scenes are three clusters."""
    with pytest.raises(SplitInvalid, match="4 scenes in 3 clusters"):
        plan({"folds = 2": "folds = 4"})
