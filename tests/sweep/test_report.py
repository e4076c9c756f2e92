"""The report of studies of every kind: many trials, one, failed and pruned ones, no final scenes, hostile names."""

import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from reported import FOLDS, Study, sections, texts

from sweep.report import SECTIONS, write_report
from sweep.report.findings import short_names
from sweep.report.page import Section, Table, render
from sweep.report.style import BEST, NOTEBOOK, OTHER
from sweep.studyfile import load_study
from sweep.trial import split_folder


class Page(HTMLParser):
    """Collects tags, what is loaded from elsewhere, and the text outside of scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loaded: list[str] = []
        self.text, self._in = "", ""

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        """Note the tag and its addresses."""
        self.tags.append(tag)
        self._in = tag
        self.loaded += [
            value for name, value in attrs if name in ("src", "href") and not value.startswith(("#", "data:"))
        ]

    def handle_data(self, data: str) -> None:
        """Note text that is read."""
        self.text += data if self._in not in ("script", "style") else ""


def test_the_whole_report(study: Study, tmp_path: Path) -> None:
    """One file: plotly once, nothing loaded from elsewhere, every section, hostile names as text and not as tags."""
    hostile = "<script>alert('x')</script>"
    trials = [("COMPLETE", 0.4 + 0.01 * number) for number in range(10)]
    found = study.findings(*trials, ("FAIL", 0.0), ("PRUNED", 0.2), error=f"it broke {hostile}")
    plan = study.plan
    split = replace(plan.validation[0], validation=(f"scene{hostile}",))
    found = replace(found, plan=replace(plan, validation=(split,)), summary={**found.summary, "noise": f"Of {hostile}"})
    write_report(found, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    page = Page()
    page.feed(text)
    assert page.loaded == []
    assert text.count("plotly.js v") == 1
    assert page.text.count("alert('x')") == 3 and hostile not in text  # headline, split, error
    assert page.tags.count("section") == len(SECTIONS) - 2  # no seeds were repeated, nothing was tuned
    assert page.tags.count("script") == 2 + text.count('class="plotly-graph-div"')
    assert text.count('class="plotly-graph-div"') == 10
    assert len(text.encode()) < 8e6


def test_the_leaderboard_marks_the_recipe_and_says_how_sure_it_is(study: Study) -> None:
    """The best first and blue, the recipe yellow with its interval; a failed trial has its error and no Dice."""
    section = sections(study.findings(("COMPLETE", 0.4), ("FAIL", 0.0), ("COMPLETE", 0.5)))["Leaderboard"]
    table = section.blocks[1]
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    assert table.marks == {0: "best", 1: "notebook", 2: "failed"}
    assert [(row["trial"], row["Dice"], row["95 % interval"]) for row in rows[:2]] == [
        ("2 best", "0.500", "0.400 to 0.600"),
        ("0 notebook recipe", "0.400", "0.300 to 0.500"),
    ]
    assert (rows[2]["trial"], rows[2]["Dice"], rows[2]["error"]) == ("1", "", "it broke")
    assert "0.910" in table.caption and "its own best threshold, 0.40, the best trial has 0.510" in table.caption


def test_one_trial_is_a_report(study: Study) -> None:
    """The notebook recipe alone: no importances, and it says why; nothing is compared with itself."""
    found = study.findings(("COMPLETE", 0.4))
    made = sections(found)
    assert "with 1 complete trials" in texts(made["The search"])
    assert next(chart.figure.data[0].y for chart in made["The search"].blocks if chart.kind == "chart") == (0.4,)
    assert "Seeds" not in made and "Learning curves" in made


def test_the_seed_that_a_trial_was_chosen_by_is_shown_apart(study: Study) -> None:
    """A ring, and not in the mean; a trial without a further seed is left out."""
    found = replace(study.findings(("COMPLETE", 0.4), ("COMPLETE", 0.6)), repeats={1: [0.6, 0.4, 0.5], 0: [0.4]})
    chart = sections(found)["Seeds"].blocks[0]
    dots, mean = chart.figure.data
    assert dots.x == (0.6, 0.4, 0.5) and dots.marker.symbol == ("circle-open", "circle", "circle")
    assert mean.x == pytest.approx((0.45,)) and "in no mean" in chart.caption


def test_a_search_on_folds(study: Study) -> None:
    """The objective is a mean over folds: no interval of a single split, the curves are of the first fold."""
    study.plan = replace(study.plan, validation=FOLDS)
    made = sections(study.findings(("COMPLETE", 0.4), ("COMPLETE", 0.5)))
    assert "the mean over 2 folds" in texts(made["What was searched"])
    assert "95 % interval" not in made["Leaderboard"].blocks[1].columns
    assert "on the first of the folds" in texts(made["Learning curves"])


def test_a_notebook_recipe_that_failed(study: Study) -> None:
    """The baseline is missing, and every section that would have it does without."""
    found = study.findings(("FAIL", 0.0), ("COMPLETE", 0.5))
    made = sections(found)
    assert made["Leaderboard"].blocks[1].marks == {0: "best", 1: "failed"}
    assert [trace.name for trace in made["Calibration"].blocks[1].figure.data] == ["as promised", "ensemble"]


def test_importances_need_ten_trials_that_differ(study: Study) -> None:
    """From ten complete trials on there is a bar a field; ten of the same Dice say nothing."""
    some = sections(study.findings(*[("COMPLETE", 0.4 + 0.01 * number) for number in range(10)]))["The search"]
    figure = some.blocks[-1].figure
    assert set(figure.data[0].y) == {"lr_max", "building_weight"} and sum(figure.data[0].x) == pytest.approx(1)
    assert "10 complete trials" in some.blocks[-1].caption


def test_equal_trials_have_no_importances(study: Study) -> None:
    """Ten trials of the same Dice: a sentence, no chart."""
    same = sections(study.findings(*[("COMPLETE", 0.4)] * 10))["The search"]
    assert "all complete trials have the same Dice" in texts(same)


def test_the_parallel_lines_are_the_trials(study: Study) -> None:
    """The line of the notebook recipe is orange, that of the best trial the bluest: by their own Dice."""
    section = sections(study.findings(("COMPLETE", 0.4), ("COMPLETE", 0.6), ("PRUNED", 0.1), ("COMPLETE", 0.5)))[
        "The search"
    ]
    lines = [trace for trace in section.blocks[1].figure.data if trace.mode == "lines"]
    assert [line.customdata[0][1] for line in lines] == ["0.4", "0.6", "0.5"]
    assert lines[1].line.color == "rgb(0, 114, 178)"
    assert [line.line.color == "#E69F00" for line in lines] == [True, False, False]
    assert [line.line.width > 3 for line in lines] == [True, True, False]


def test_lines_and_dots_are_the_trials_where_optuna_sorts_them(study: Study, write_study: Callable[..., Path]) -> None:
    """A field with numbers to choose from, 5, 1 and 2 in these trials: Optuna draws lines and dots by its values."""
    file = write_study({"building_weight = { uniform = [0.5, 0.9] }": "images_per_scene = { choice = [1, 2, 5] }"})
    study.plan = replace(study.plan, study=load_study(file))
    section = sections(study.findings(("COMPLETE", 0.5), ("COMPLETE", 0.7), ("COMPLETE", 0.6)))["The search"]
    lines = section.blocks[1].figure.data
    assert [line.customdata[0][1] for line in lines] == ["0.7", "0.6", "0.5"]
    assert [line.line.color == "#E69F00" for line in lines] == [False, False, True]
    assert lines[0].line.color == "rgb(0, 114, 178)" and lines[0].line.width > 3
    dots = section.blocks[2].figure.data[0]
    assert list(zip(dots.x, dots.y, dots.text, strict=True)) == [
        ("1", 0.7, "trial 1"),
        ("2", 0.6, "trial 2"),
        ("5", 0.5, "trial 0 (notebook recipe)"),
    ]
    assert dots.marker.color == (BEST, OTHER, NOTEBOOK)


def test_the_cost_of_a_search_on_folds(study: Study) -> None:
    """Two trials on two folds are four trainings, and the folds of the cross-validation are these."""
    study.plan = replace(study.plan, validation=FOLDS)
    found = study.findings(("COMPLETE", 0.4), ("COMPLETE", 0.5))
    for trial in (0, 1):
        split_folder(found.results, trial, "fold1").mkdir()
    (rows,) = [block.rows for block in sections(found)["Cost"].blocks if block.kind == "table"]
    assert [row[:3] for row in rows] == [["search", 4, 6]]


def test_without_final_scenes_and_with_skipped_ones(study: Study) -> None:
    """It says that there are none, and each sentence of what was skipped."""
    found = study.findings(("COMPLETE", 0.4), final=False)
    found = replace(found, summary={**found.summary, "skipped": ["x.tif has no valid pixel."]})
    section = sections(found)["Final scenes"]
    assert "None was predicted: the data set has no readable images below test_public." in texts(section)
    assert "Skipped: x.tif has no valid pixel." in texts(section)


def test_names_of_scenes() -> None:
    """The position alone, where it tells the scenes apart."""
    pair = ["L15-1669E-1160N_6678_3548_13", "L15-1669E-1160N_6679_3549_13"]
    assert short_names(["L15-0331E-1257N_1327_3160_13", *pair]) == {
        "L15-0331E-1257N_1327_3160_13": "0331E-1257N",
        **{scene: scene for scene in pair},
    }
    assert short_names(["town"]) == {"town": "town"}


def test_cells_are_text() -> None:
    """Numbers are short and to the right, what comes from data is escaped."""
    page = render("t", "h", [Section("s", [Table(["a"], [[0.123456], [7], [""], ["<b>"]])])])
    assert re.findall(r"<td.*?</td>", page) == [
        '<td class="number">0.1235</td>',
        '<td class="number">7</td>',
        "<td></td>",
        "<td>&lt;b&gt;</td>",
    ]
