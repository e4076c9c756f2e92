"""The report of studies of every kind: many trials, one, failed and pruned ones, no final scenes, hostile names."""

import re
from collections.abc import Callable
from dataclasses import asdict, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from PIL import Image

from sn7.evaluation import Evaluation
from sn7.files import write_json
from sn7.folds import Split
from sn7.history import EpochMetrics, write_rows
from sn7.prepared import MASK, Prepared
from sn7.tiles import Sampling
from sn7.train import TrainResult
from sweep.costs import Cost
from sweep.crossval import OutOfFold, score_out_of_fold
from sweep.endings import ERROR
from sweep.ensembles import Candidate
from sweep.figures import out_of_fold_pictures
from sweep.leaderboard import leaderboard
from sweep.plan import Plan
from sweep.report import SECTIONS, Findings, write_report
from sweep.report.findings import short_names
from sweep.report.footprints import footprints
from sweep.report.page import Section, Table, render
from sweep.search import NOTEBOOK
from sweep.selection import Selection
from sweep.studyfile import load_study
from sweep.trial import split_folder

EPOCHS = 3
FOLDS = (Split("fold0", ("scene2", "scene3"), ("scene0", "scene1")), Split("fold1", ("scene0",), ("scene2", "scene3")))
VALIDATION = Split("random:0", ("scene1", "scene2", "scene3"), ("scene0",))


COST = Cost(models=2, parameters=2000, mb=0.1, seconds_per_km2=0.25)


class Study:
    """Makes the findings of a study with trials as they are asked for: (state, Dice) of each."""

    def __init__(self, prepared: Prepared, study_file: Path, results: Path) -> None:
        self.plan = Plan(load_study(study_file), prepared, (VALIDATION,), FOLDS)
        self.results = results

    def findings(self, *trials: tuple[str, float], final: bool = True, error: str = "it broke") -> Findings:
        """Return the findings; the first trial is the notebook recipe, and was cross-validated beside the best."""
        opened = optuna.create_study(direction="maximize")
        for number, (state, dice) in enumerate(trials):
            self._add(opened, number, state, dice, error)
        rows = leaderboard(opened)
        best = rows[0]["trial"]
        candidates = [
            Candidate(f"trial {trial}", Selection({trial: 1.0}), self._scored(trial, 0.5 + 0.1 * (trial == best)), COST)
            for trial in sorted({0, best})
            if trials[trial][0] == "COMPLETE"
        ]
        candidates.append(replace(candidates[-1], name="ensemble"))
        summary = {
            "trials": len(rows),
            "winner": rows[0],
            "notebook": next(row for row in rows if row["recipe"]),
            "ensemble": {"models": 2, "out_of_fold": candidates[-1].scored.counts.metrics()},
            "gain": "",
            "tuning": "",
            "predicted": 3 if final else 0,
            "skipped": [],
            "ended_by": "trials",
            "spent": {"hours": 0.1, "gpu_hours": 0.0, "dollars": 0.0},
            "noise": "",
        }
        preview = self.results / "predictions" / "scene9" / "image.png"
        preview.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 64), "green").save(preview)
        examples = out_of_fold_pictures(
            candidates[-1].scored, lambda image: self._probs(image, 0.6), self.plan.prepared
        )
        return Findings(
            self.plan,
            opened,
            rows,
            candidates,
            summary,
            self.results,
            examples=examples,
            previews=[preview] if final else [],
            about={"commit": "abc"},
        )

    def _add(self, opened: optuna.Study, number: int, state: str, dice: float, error: str) -> None:
        searched = self.plan.study.space.searched
        middle = {"lr_max": 3e-4 * 1.1**number, "building_weight": 0.75 - 0.005 * number}
        about: dict[str, Any] = {NOTEBOOK: True} if number == 0 else {}
        if state == "FAIL":
            about[ERROR] = error
        else:
            described = {"dice": dice, "dice_std": 0.0, "iou": 0.3, "precision": 0.5, "recall": 0.5}
            about |= {**described, "best_epoch": EPOCHS, "epochs_trained": EPOCHS, "seconds": 60.0}
        opened.add_trial(
            optuna.trial.create_trial(
                state=optuna.trial.TrialState[state],
                params=middle,
                distributions={name: searched[name].distribution for name in middle},
                value=dice if state == "COMPLETE" else None,
                user_attrs=about,
            )
        )
        if state == "COMPLETE":
            self._train(number, dice)

    def _train(self, number: int, dice: float) -> None:
        history = [
            EpochMetrics(epoch, 1 / epoch, 1 / epoch, dice * epoch / EPOCHS, 0.3, 0.5, 0.5, 1e-3, 9.0, 20.0, 100.0, 4)
            for epoch in range(1, EPOCHS + 1)
        ]
        metrics = {"dice": dice, "iou": 0.3, "precision": 0.5, "recall": 0.5}
        found = Evaluation({"scene0": metrics}, dice - 0.1, dice + 0.1, 0.4, dice + 0.01, 0.91)
        result = TrainResult(history[-1], EPOCHS, 10, 5, Sampling(3, 3, 0), found, 1000, 60.0)
        folder = split_folder(self.results, number, self.plan.validation[0].name)
        folder.mkdir(parents=True)
        write_rows(folder / "history.csv", history)
        write_json(folder / "result.json", asdict(result))

    def _probs(self, image: Any, sure: float) -> np.ndarray:
        """Return probs that miss the left part of the image, more of it from scene to scene."""
        mask = self.plan.prepared.pixels(image)[MASK]
        probs = np.where(mask == 1, sure, 0.1).astype(np.float32)
        probs[:, : 16 * (1 + self.plan.prepared.scenes.index(image.scene))] = 0.1
        return probs

    def _scored(self, trial: int, sure: float) -> OutOfFold:
        for image in self.plan.prepared.images:
            path = self.results / "oof" / f"{trial:04d}" / image.array
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, self._probs(image, sure))
        return score_out_of_fold(Selection({trial: 1.0}), FOLDS, self.results, self.plan.prepared)


@pytest.fixture
def study(make_prepared: Callable[..., Prepared], write_study: Callable[..., Path], tmp_path: Path) -> Study:
    """Return what makes the findings of a study on four small scenes."""
    return Study(
        make_prepared(scenes=4, shape=(96, 96)), write_study({"epochs = 2": "epochs = 3"}), tmp_path / "results"
    )


def _sections(findings: Findings) -> dict[str, Section]:
    return {section.title: section for make in SECTIONS if (section := make(findings))}


def _texts(section: Section) -> str:
    return " ".join(block.text for block in section.blocks if block.kind == "text")


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
    section = _sections(study.findings(("COMPLETE", 0.4), ("FAIL", 0.0), ("COMPLETE", 0.5)))["Leaderboard"]
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
    sections = _sections(found)
    assert "with 1 complete trials" in _texts(sections["The search"])
    assert next(chart.figure.data[0].y for chart in sections["The search"].blocks if chart.kind == "chart") == (0.4,)
    assert "Seeds" not in sections and "Learning curves" in sections


def test_a_search_on_folds(study: Study) -> None:
    """The objective is a mean over folds: no interval of a single split, the curves are of the first fold."""
    study.plan = replace(study.plan, validation=FOLDS)
    sections = _sections(study.findings(("COMPLETE", 0.4), ("COMPLETE", 0.5)))
    assert "the mean over 2 folds" in _texts(sections["What was searched"])
    assert "95 % interval" not in sections["Leaderboard"].blocks[1].columns
    assert "on the first of the folds" in _texts(sections["Learning curves"])


def test_a_notebook_recipe_that_failed(study: Study) -> None:
    """The baseline is missing, and every section that would have it does without."""
    found = study.findings(("FAIL", 0.0), ("COMPLETE", 0.5))
    sections = _sections(found)
    assert sections["Leaderboard"].blocks[1].marks == {0: "best", 1: "failed"}
    assert [trace.name for trace in sections["Calibration"].blocks[1].figure.data] == ["as promised", "ensemble"]


def test_importances_need_ten_trials_that_differ(study: Study) -> None:
    """From ten complete trials on there is a bar a field; ten of the same Dice say nothing."""
    some = _sections(study.findings(*[("COMPLETE", 0.4 + 0.01 * number) for number in range(10)]))["The search"]
    figure = some.blocks[-1].figure
    assert set(figure.data[0].y) == {"lr_max", "building_weight"} and sum(figure.data[0].x) == pytest.approx(1)
    assert "10 complete trials" in some.blocks[-1].caption


def test_equal_trials_have_no_importances(study: Study) -> None:
    """Ten trials of the same Dice: a sentence, no chart."""
    same = _sections(study.findings(*[("COMPLETE", 0.4)] * 10))["The search"]
    assert "all complete trials have the same Dice" in _texts(same)


def test_the_parallel_lines_are_the_trials(study: Study) -> None:
    """The line of the notebook recipe is orange, that of the best trial the bluest: by their own Dice."""
    section = _sections(study.findings(("COMPLETE", 0.4), ("COMPLETE", 0.6), ("PRUNED", 0.1), ("COMPLETE", 0.5)))[
        "The search"
    ]
    lines = [trace for trace in section.blocks[1].figure.data if trace.mode == "lines"]
    assert [line.customdata[0][1] for line in lines] == ["0.4", "0.6", "0.5"]
    assert lines[1].line.color == "rgb(0, 114, 178)"
    assert [line.line.color == "#E69F00" for line in lines] == [True, False, False]
    assert [line.line.width > 3 for line in lines] == [True, True, False]


def test_without_final_scenes_and_with_skipped_ones(study: Study) -> None:
    """It says that there are none, and each sentence of what was skipped."""
    found = study.findings(("COMPLETE", 0.4), final=False)
    found = replace(found, summary={**found.summary, "skipped": ["x.tif has no valid pixel."]})
    section = _sections(found)["Final scenes"]
    assert "None was predicted" in _texts(section) and "Skipped: x.tif has no valid pixel." in _texts(section)


def test_the_scenes_and_the_ensemble_out_of_fold(study: Study) -> None:
    """Dice falls from scene to scene as less of each is found; the gain over itself is 0, over the recipe too."""
    found = study.findings(("COMPLETE", 0.4), ("COMPLETE", 0.5))
    sections = _sections(found)
    figure = sections["Scene by scene"].blocks[1].figure
    ensemble = figure.data[1]
    assert ensemble.name == "ensemble" and [row[0] for row in ensemble.customdata] == list(figure.layout.yaxis.ticktext)
    assert figure.layout.yaxis.ticktext == ("scene3", "scene2", "scene1", "scene0")
    assert list(ensemble.x) == sorted(ensemble.x) and 0 < ensemble.x[0] < ensemble.x[-1] < 1
    assert all(low >= 0 for low in ensemble.error_x.arrayminus)
    (rows,) = [block.rows for block in sections["Ensemble"].blocks if block.kind == "table" and not block.folded]
    assert [row[0] for row in rows] == ["trial 0", "trial 1", "ensemble"]
    assert [row[4:] for row in rows] == [
        *[["+0.000", "+0.000 to +0.000", 2, "0", "0.25"]] * 2,
        ["", "", 2, "0", "0.25"],
    ]
    assert sections["Cost"].blocks[0].facts["km² a second, predicted by the ensemble"] == "4"
    panels = sections["Best, median, worst"].blocks[1:]
    assert [panel.caption.split(", ")[0] for panel in panels] == [
        "best: scene0",
        "best: scene1",
        "worst: scene2",
        "worst: scene3",
    ]
    assert list(panels[0].pictures) == ["image", "target", "prediction", "probability"]


def test_calibration_by_hand(study: Study) -> None:
    """Where a building has 0.6 and what was missed 0.1, the share at 0.6 is 1."""
    chart = _sections(study.findings(("COMPLETE", 0.4), ("COMPLETE", 0.5)))["Calibration"].blocks[1].figure
    ensemble = next(trace for trace in chart.data if trace.name == "ensemble")
    assert ensemble.x == pytest.approx([0.1, 0.6], abs=0.01)
    assert ensemble.y[1] == 1 and 0 < ensemble.y[0] < 0.2


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


def test_what_tuning_has_brought(study: Study) -> None:
    """Fold by fold what the others found, both figures over all, and what is used; nothing where nothing was tuned."""
    found = study.findings(("COMPLETE", 0.5), ("COMPLETE", 0.6))
    assert footprints(found) is None
    params = {"weights": {"1": 1.0}, "probs": "mean 3", "rules": {"threshold": 0.625}}
    tuned = {
        "objective": "f1",
        "used": True,
        "params": params,
        "params_by_fold": [params, params],
        "before": {"f1": 0.4},
        "nested": {"f1": 0.5},
        "optimistic": {"f1": 0.6},
        "before_by_fold": [{"f1": 0.3}, {"f1": 0.45}],
        "by_fold": [{"f1": 0.35}, {"f1": 0.55}],
        "tried": 60,
    }
    section = footprints(replace(found, summary={**found.summary, "postprocess": tuned, "tuning": "It helped."}))
    assert section is not None
    table = section.blocks[1]
    assert isinstance(table, Table)
    scores = [" → ".join(row[2:4]) for row in table.rows]
    assert scores == ["0.300 → 0.350", "0.450 → 0.550", "0.400 → 0.500", "0.400 → 0.600"]
    assert table.rows[-1][4:] == ["trial 1: 1.00", "mean 3", "threshold 0.625"]
