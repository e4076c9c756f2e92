import pickle
from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from sn7.config import RECIPES
from sn7.errors import StudyInvalid
from sweep.searchtable import parse_search
from sweep.space import notebook_point

PLAIN = {
    "encoder": {"choice": ["xresnet34", "resnet34d"]},
    "lr_max": {"loguniform": [1e-5, 1e-2]},
    "building_weight": {"uniform": [0.5, 0.95]},
    "tile_size": {"int": [128, 256]},
}
NESTED = {
    "weight_decay": {"uniform": [0.02, 0.1], "when": {"undersample": False}},
    "undersample": {"choice": [True, False], "when": {"encoder": ["resnet34d", "resnet50d"]}},
    "encoder": {"choice": ["xresnet34", "resnet34d", "resnet50d"]},
    "lr_max": {"loguniform": [1e-5, 1e-2]},
}
"""weight_decay varies only without undersample, which varies only with two of three encoders."""
COUNTABLE = {
    "encoder": {"choice": ["xresnet34", "resnet34d", "resnet50d"]},
    "batch_size": {"choice": [12, 16], "when": {"encoder": ["resnet34d", "resnet50d"]}},
    "images_per_scene": {"int": [1, 5], "when": {"batch_size": 16, "encoder": "resnet50d"}},
    "tile_size": {"int": [254, 255]},
}


def _draw(table: dict[str, Any], seed: int, trials: int = 20) -> list[dict[str, Any]]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    space = parse_search(table)
    return [space.draw(study.ask()) for _ in range(trials)]


def test_each_kind_becomes_a_distribution() -> None:
    """Of the same bounds; every field of a space without conditions is active."""
    space = parse_search(PLAIN)
    assert space.distributions(notebook_point(space)) == {
        "encoder": CategoricalDistribution(["xresnet34", "resnet34d"]),
        "lr_max": FloatDistribution(1e-5, 1e-2, log=True),
        "building_weight": FloatDistribution(0.5, 0.95),
        "tile_size": IntDistribution(128, 256),
    }
    assert notebook_point(space) == {name: getattr(RECIPES["notebook"], name) for name in PLAIN}
    assert space.fields == tuple(PLAIN) and space.conditional == ()


def test_the_values_of_a_field() -> None:
    """Choices, ends of a range, or none."""
    space = parse_search(PLAIN)
    assert space.values("encoder") == ("xresnet34", "resnet34d")
    assert space.values("tile_size") == (128, 256)
    assert space.values("lr_max") == (1e-5, 1e-2)
    assert space.values("epochs") == ()
    assert space.all_values("encoder") == ("xresnet34", "resnet34d")
    assert space.all_values("tile_size") == tuple(range(128, 257))
    assert space.all_values("epochs") == ()


def test_a_field_comes_after_those_that_it_depends_on() -> None:
    """Whatever their order in the file, which else stays."""
    assert parse_search(NESTED).fields == ("encoder", "undersample", "weight_decay", "lr_max")
    assert parse_search(NESTED).conditional == ("undersample", "weight_decay")


def test_the_active_fields_of_a_full_configuration() -> None:
    """A field whose condition names an inactive one is inactive, whatever value that one keeps."""
    space = parse_search(NESTED)
    full = {**RECIPES["notebook"].to_dict(), "undersample": False, "weight_decay": 0.05}
    assert space.point(full) == {"encoder": "xresnet34", "lr_max": 3e-4}
    assert space.point({**full, "encoder": "resnet50d"}) == {
        "encoder": "resnet50d",
        "undersample": False,
        "weight_decay": 0.05,
        "lr_max": 3e-4,
    }
    assert list(space.distributions({"encoder": "resnet34d", "undersample": True, "lr_max": 1e-3})) == [
        "encoder",
        "undersample",
        "lr_max",
    ]


def test_an_inactive_field_need_not_contain_the_notebook_recipe() -> None:
    """Its weight_decay of 0.01 lies outside [0.02, 0.1], which varies elsewhere only."""
    assert notebook_point(parse_search(NESTED)) == {"encoder": "xresnet34", "lr_max": 3e-4}
    active = {**NESTED, "weight_decay": {"uniform": [0.02, 0.1], "when": {"encoder": "xresnet34"}}}
    with pytest.raises(StudyInvalid, match=r"search\.weight_decay leaves out 0\.01, the value of the notebook recipe"):
        parse_search(active)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31 - 1))
def test_what_is_drawn_is_one_configuration(seed: int) -> None:
    """Never an inactive field, never without an active one, always inside the bounds."""
    space = parse_search(NESTED)
    for values in _draw(NESTED, seed):
        assert space.reason_outside(values) == ""
        assert ("undersample" in values) == (values["encoder"] != "xresnet34")
        assert ("weight_decay" in values) == (values.get("undersample") is False)


def test_every_branch_is_drawn() -> None:
    """Twenty draws see a configuration with each set of fields."""
    seen = {frozenset(values) for values in _draw(NESTED, 0)}
    assert seen == {
        frozenset({"encoder", "lr_max"}),
        frozenset({"encoder", "lr_max", "undersample"}),
        frozenset({"encoder", "lr_max", "undersample", "weight_decay"}),
    }


def test_a_queued_configuration_is_drawn_as_it_stands() -> None:
    """The notebook recipe is enqueued, and its trial takes its values."""
    space = parse_search(NESTED)
    study = optuna.create_study()
    study.enqueue_trial(notebook_point(space))
    assert space.draw(study.ask()) == {"encoder": "xresnet34", "lr_max": 3e-4}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, ""),
        ({"encoder": "xresnet34", "undersample": None, "weight_decay": None}, ""),
        ({"epochs": 3}, r"epochs = 3 is no field of [search]"),
        ({"lr_max": None}, "lr_max is missing"),
        ({"weight_decay": None}, "weight_decay is missing"),
        ({"undersample": True}, "weight_decay = 0.05 stands where it does not vary"),
        ({"encoder": "xresnet34"}, "undersample = False stands where it does not vary"),
        ({"encoder": "resnet18"}, "encoder = 'resnet18' is not among 'xresnet34', 'resnet34d', 'resnet50d'"),
        ({"lr_max": 0.02}, "lr_max = 0.02 is outside [1e-05, 0.01]"),
        ({"lr_max": float("nan")}, "lr_max = nan cannot be used; wanted a number from 1e-08 to 10"),
        ({"undersample": 0}, "undersample = 0 is of type int; wanted true or false"),
        ({"lr_max": 1e-2}, ""),
    ],
)
def test_why_a_configuration_is_none_of_the_space(change: dict[str, Any], reason: str) -> None:
    """The first field that does not fit, or nothing; None stands for a field that is left out."""
    values = {"encoder": "resnet34d", "undersample": False, "weight_decay": 0.05, "lr_max": 1e-3, **change}
    params = {name: value for name, value in values.items() if value is not None}
    assert parse_search(NESTED).reason_outside(params) == reason


def test_the_size_of_a_space() -> None:
    """Per tile_size: xresnet34 1, resnet34d 2 batch sizes, resnet50d 1 and, at batch size 16, 5: 9, times two."""
    assert parse_search(COUNTABLE).size == 18
    drawn = {tuple(sorted(values.items())) for values in _draw(COUNTABLE, 0, 600)}
    assert len(drawn) == 18


def test_the_size_of_a_space_with_real_numbers_is_not_known() -> None:
    """A range of real numbers has no count, even where it varies only somewhere."""
    assert parse_search(PLAIN).size is None
    assert parse_search(NESTED).size is None
    assert parse_search({"seed": {"int": [0, 9]}}).size == 10


def test_a_space_travels_between_processes() -> None:
    """It survives pickle."""
    space = parse_search(NESTED)
    assert pickle.loads(pickle.dumps(space)) == space


def test_a_space_describes_itself() -> None:
    """A line a field, with its condition."""
    assert parse_search(COUNTABLE | {"lr_max": {"loguniform": [1e-5, 1e-2]}}).describe() == [
        "encoder: xresnet34, resnet34d, resnet50d",
        "batch_size: 12, 16 where encoder is resnet34d or resnet50d",
        "images_per_scene: 1 to 5 where batch_size is 16 and encoder is resnet50d",
        "tile_size: 254 to 255",
        "lr_max: 1e-05 to 0.01, logarithmic",
    ]


@pytest.mark.parametrize(
    ("when", "said"),
    [
        ({"encodr": "xresnet34"}, r"when\.encodr is no field of \[search\]; did you mean encoder\?"),
        ({"epochs": 4}, r"when\.epochs is no field of \[search\]; there are encoder, lr_max"),
        ({"dihedral": 0.5}, r"when\.dihedral is dihedral itself"),
        ({"lr_max": 1e-3}, r"when\.lr_max is a range; wanted a field of \[search\] that is a choice"),
        (
            {"encoder": "resnet50d"},
            r"when\.encoder: encoder = 'resnet50d' is not among 'xresnet34', 'resnet34d'; .* never",
        ),
        ({"encoder": 34}, r"when\.encoder: encoder = 34 is of type int; wanted a text; such a condition never"),
        ({"encoder": []}, r"when\.encoder = \[\]; wanted at least one value"),
        ({}, r"when = \{\}; wanted a field and its values"),
        ("encoder", "when = 'encoder'; wanted a field and its values"),
    ],
)
def test_a_condition_that_cannot_be_decided_is_refused(when: Any, said: str) -> None:
    """It names the field and the condition, and what was wanted."""
    table = {
        "encoder": {"choice": ["xresnet34", "resnet34d"]},
        "lr_max": {"loguniform": [1e-5, 1e-2]},
        "dihedral": {"uniform": [0.0, 1.0], "when": when},
    }
    with pytest.raises(StudyInvalid, match=r"search\.dihedral\." + said):
        parse_search(table)


def test_a_circle_of_conditions_is_refused() -> None:
    """None of the two could be drawn first; a field outside of the circle is not named."""
    table = {
        "lr_max": {"loguniform": [1e-5, 1e-2]},
        "encoder": {"choice": ["xresnet34", "resnet34d"], "when": {"undersample": True}},
        "undersample": {"choice": [True, False], "when": {"encoder": "xresnet34"}},
    }
    with pytest.raises(StudyInvalid, match="conditions of encoder, undersample form a circle"):
        parse_search(table)


def test_a_field_that_never_varies_is_refused() -> None:
    """undersample varies beside resnet34d only, and dihedral wants it beside xresnet34."""
    table = {
        "encoder": {"choice": ["xresnet34", "resnet34d"]},
        "undersample": {"choice": [True, False], "when": {"encoder": "resnet34d"}},
        "dihedral": {"uniform": [0.0, 1.0], "when": {"encoder": "xresnet34", "undersample": True}},
    }
    with pytest.raises(StudyInvalid, match=r"search\.dihedral\.when = .* never holds"):
        parse_search(table)


@pytest.mark.parametrize("entry", [{"when": {"encoder": "xresnet34"}}, {"choice": [1], "int": [1, 2]}, [1, 2], {}])
def test_a_field_without_one_kind_is_refused(entry: Any) -> None:
    """A condition alone is no search, and two kinds are one too many."""
    table = {"encoder": {"choice": ["xresnet34"]}, "batch_size": entry}
    with pytest.raises(StudyInvalid, match=r"search\.batch_size = .* is no search; wanted one of choice"):
        parse_search(table)


@pytest.mark.parametrize("ends", [["auto", 32], [8, "auto"]])
def test_a_range_has_numbers_for_ends(ends: list[Any]) -> None:
    """A batch size may be "auto", which is neither above nor below a number."""
    with pytest.raises(StudyInvalid, match=r"search\.batch_size\.int = .*'auto'.*; wanted \[lowest, highest\]"):
        parse_search({"batch_size": {"int": ends}})
