"""What the report says out of fold: of scenes, of the ensemble beside its parts, and how far that can be trusted."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from reported import FOLDS, Study, sections, texts

from sn7.folds import Split
from sn7.prepared import Prepared
from sweep.report.page import Table

SIX = tuple(f"scene{number}" for number in range(6))
HALVES = (Split("fold0", SIX[3:], SIX[:3]), Split("fold1", SIX[:3], SIX[3:]))


def test_the_scenes_and_the_ensemble_out_of_fold(study: Study) -> None:
    """Dice falls from scene to scene as less of each is found, which tells the ensemble from the recipe, too.

    Of 4 × 6 columns of buildings it finds 14 and the recipe 10, nothing else: Dice 28 / 38 and 20 / 34.
    """
    found = study.findings(("COMPLETE", 0.4), ("COMPLETE", 0.5))
    made = sections(found)
    figure = made["Scene by scene"].blocks[1].figure
    ensemble = figure.data[1]
    assert ensemble.name == "ensemble" and [row[0] for row in ensemble.customdata] == list(figure.layout.yaxis.ticktext)
    assert figure.layout.yaxis.ticktext == ("scene3", "scene2", "scene1", "scene0")
    assert list(ensemble.x) == sorted(ensemble.x) and 0 < ensemble.x[0] < ensemble.x[-1] < 1
    assert all(low >= 0 for low in ensemble.error_x.arrayminus)
    (rows,) = [block.rows for block in made["Ensemble"].blocks if block.kind == "table" and not block.folded]
    assert [row[0] for row in rows] == ["trial 0", "trial 1", "ensemble"]
    assert [row[1:] for row in rows] == [
        ["0.588", "0.588", "+0.149", 2, "0", "0.25"],
        ["0.737", "0.737", "+0.000", 2, "0", "0.25"],
        ["0.737", "0.737", "", 2, "0", "0.25"],
    ]
    assert made["Cost"].blocks[0].facts["km² a second, predicted by the ensemble"] == "4"
    panels = made["Best, median, worst"].blocks[1:]
    assert [panel.caption.split(", ")[0] for panel in panels] == [
        "best: scene0",
        "best: scene1",
        "worst: scene2",
        "worst: scene3",
    ]
    assert list(panels[0].pictures) == ["image", "target", "prediction", "probability"]


def test_calibration_by_hand(study: Study) -> None:
    """Where a building has 0.6 and what was missed 0.1, the share at 0.6 is 1."""
    chart = sections(study.findings(("COMPLETE", 0.4), ("COMPLETE", 0.5)))["Calibration"].blocks[1].figure
    ensemble = next(trace for trace in chart.data if trace.name == "ensemble")
    assert ensemble.x == pytest.approx([0.1, 0.6], abs=0.01)
    assert ensemble.y[1] == 1 and 0 < ensemble.y[0] < 0.2


def test_four_scenes_have_no_intervals(study: Study) -> None:
    """The tables have no column for them, the chart no bars, and a sentence says why, once a section."""
    made = sections(study.findings(("COMPLETE", 0.4), ("COMPLETE", 0.5)))
    assert texts(made["Ensemble"]).count("There are no intervals") == 1
    table = next(block for block in made["Ensemble"].blocks if isinstance(block, Table))
    assert not [name for name in table.columns if "interval" in name]
    chart = next(block for block in made["Ensemble"].blocks if block.kind == "chart").figure
    assert [trace.error_x.visible for trace in chart.data] == [False] * 3


@pytest.fixture
def six(make_prepared: Callable[..., Prepared], write_study: Callable[..., Path], tmp_path: Path) -> Study:
    """Return what makes the findings of a study on six scenes, far apart."""
    file = write_study({"epochs = 2": "epochs = 3"})
    return Study(make_prepared(scenes=6, shape=(96, 128)), file, tmp_path / "results", HALVES)


def test_six_scenes_have_intervals(six: Study) -> None:
    """Every scene gains, so the gain's interval leaves out 0; it is told with its sign."""
    section = sections(six.findings(("COMPLETE", 0.4), ("COMPLETE", 0.5)))["Ensemble"]
    assert "Intervals come from drawing geographic clusters" in texts(section)
    table = next(block for block in section.blocks if isinstance(block, Table))
    recipe = dict(zip(table.columns, table.rows[0], strict=True))
    gain, (low, high) = float(recipe["the ensemble's gain"]), recipe["95 % interval of the gain"].split(" to ")
    assert 0 < float(low) < gain < float(high) and low.startswith("+")
    low, high = recipe["95 % interval"].split(" to ")
    assert float(low) < float(recipe["Dice, nested"]) < float(high)


def test_neighbours_are_no_further_evidence(six: Study) -> None:
    """The same six scenes, but two of them 0.1° apart: five clusters are too few for an interval."""
    images = [replace(image, lon=0.1 if image.scene == "scene1" else image.lon) for image in six.plan.prepared.images]
    six.plan = replace(six.plan, prepared=replace(six.plan.prepared, images=tuple(images)))
    section = sections(six.findings(("COMPLETE", 0.4), ("COMPLETE", 0.5)))["Ensemble"]
    assert "There are no intervals" in texts(section)


def test_what_no_nesting_undoes(study: Study) -> None:
    """Configurations were chosen on validation scenes that are scored again: on one of four, or, with folds, on all."""
    trials = [("COMPLETE", 0.4), ("COMPLETE", 0.5)]
    words = texts(sections(study.findings(*trials))["Ensemble"])
    assert "the best of 2 trials by Dice on the validation scenes, 1 of the 4 that are scored here" in words
    study.plan = replace(study.plan, validation=FOLDS)
    study.results = study.results / "other"
    assert "the best of 2 trials by Dice on these very scenes, all of them" in texts(
        sections(study.findings(*trials))["Ensemble"]
    )


def test_what_the_models_are_and_which_failed(study: Study) -> None:
    """Each is trained once a fold and left that fold out; what failed there stands here, not among final scenes."""
    found = study.findings(("COMPLETE", 0.4), ("COMPLETE", 0.5))
    made = sections(replace(found, summary={**found.summary, "failed": ["trial 7, fold 1: it diverged"]}))
    assert "each trained 2 times, each time without one of the 2 folds" in texts(made["Ensemble"])
    assert "could not be trained on every fold: trial 7, fold 1: it diverged" in texts(made["Ensemble"])
    assert "it diverged" not in texts(made["Final scenes"])
    table = next(block for block in made["Ensemble"].blocks if isinstance(block, Table))
    assert "Dice is of one fold model of each configuration" in table.caption
