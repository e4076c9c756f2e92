"""What the report says of the way from probs to footprints, and elsewhere once it was tuned."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from reported import Study, sections, texts

from sweep.costs import Cost
from sweep.ensembles import Candidates
from sweep.report import Findings
from sweep.report.footprints import footprints
from sweep.report.page import Section, Table
from sweep.summary import headline, polygon_threshold

PARAMS = {"weights": {"1": 1.0}, "probs": "tta", "rules": {"threshold": 0.625}}
TUNED: Mapping[str, Any] = {
    "objective": "f1",
    "used": True,
    "params": PARAMS,
    "params_by_fold": [PARAMS, PARAMS],
    "before": {"f1": 0.4},
    "before_optimistic": {"f1": 0.45},
    "nested": {"f1": 0.5},
    "optimistic": {"f1": 0.6},
    "before_by_fold": [{"f1": 0.3}, {"f1": 0.45}],
    "by_fold": [{"f1": 0.35}, {"f1": 0.55}],
    "tried": 60,
}


def _found(study: Study, **tuned: Any) -> Findings:
    """Return findings with these results of a tuning."""
    found = study.findings(("COMPLETE", 0.5), ("COMPLETE", 0.6))
    postprocess = {**TUNED, **tuned}
    of_way = {"way": PARAMS["probs"], "rules": PARAMS["rules"]} if postprocess["used"] else {}
    ensemble = {**found.summary["ensemble"], **of_way}
    told = {"postprocess": postprocess, "tuning": "It helped.", "ensemble": ensemble}
    return replace(found, summary={**found.summary, **told})


def _tuned(section: Section | None) -> Table:
    assert section is not None
    (table,) = [block for block in section.blocks if isinstance(block, Table)]
    return table


def test_what_tuning_has_brought(study: Study) -> None:
    """Fold by fold what the others found, then on all: nested beside nested, optimistic beside optimistic."""
    table = _tuned(footprints(_found(study)))
    scores = [" → ".join(row[2:4]) for row in table.rows]
    assert scores == ["0.300 → 0.350", "0.450 → 0.550", "0.400 → 0.500", "0.450 → 0.600"]
    assert table.rows[-1][4:] == ["trial 1: 1.00", "tta", "threshold 0.625"]
    assert table.marks == {3: "best"}


def test_what_is_not_used_is_not_marked(study: Study) -> None:
    """Where tuning brought nothing no line is what the ensemble predicts with; where none was tuned is no section."""
    found = _found(study, used=False)
    assert _tuned(footprints(found)).marks == {}
    made = sections(found)
    assert "as tuned" not in " ".join(map(texts, made.values()))
    assert "Footprints" not in sections(replace(found, summary={**found.summary, "postprocess": None}))


@pytest.mark.parametrize(
    ("table", "gain", "words"),
    [
        ({}, "", "pooling of months, threshold, seeds and least area"),
        ({"tta": True}, "", "pooling of months, test-time augmentation, threshold, seeds and least area"),
        ({"objective": "dice"}, "some", "weights, pooling of months, threshold and least area"),
    ],
)
def test_what_was_searched(study: Study, table: Mapping[str, Any], gain: str, words: str) -> None:
    """As the study's table has it: seeds change no pixel, weights are of several configurations."""
    study.plan = replace(
        study.plan, study=replace(study.plan.study, postprocess=replace(study.plan.study.postprocess, **table))
    )
    found = _found(study, objective="f1")
    section = footprints(replace(found, summary={**found.summary, "gain": gain}))
    assert section is not None and f"Searched were {words}, 60 times" in texts(section)


def test_the_ensemble_as_it_predicts(study: Study) -> None:
    """With TTA and a threshold of its own, and Dice is of plain probs: sections of Dice say so."""
    found = _found(study)
    made = sections(found)
    for title in ("Scene by scene", "Dice over the threshold", "Ensemble", "Best, median, worst"):
        assert "of the mean over the 8 symmetries at a threshold of 0.62, as tuned" in texts(made[title]), title
    assert "plain probs of the models that did not see its scene" in headline(found.summary)
    assert polygon_threshold(found.summary) == 0.625
    untuned = {**found.summary["ensemble"], "way": "plain", "rules": {}}
    assert "plain" not in headline({**found.summary, "ensemble": untuned})


def test_the_cost_of_tta(study: Study) -> None:
    """Eight copies of an image take eight times as long; pooling takes no further inference."""
    cost = Cost(models=2, parameters=2000, mb=0.1, seconds_per_km2=0.25)
    assert cost.of_way("tta").seconds_per_km2 == 2.0
    assert cost.of_way("mean 3") == cost.of_way("plain") == cost
    assert replace(cost, seconds_per_km2=None).of_way("tta").seconds_per_km2 is None
    found = _found(study)
    *others, chosen = Candidates(study.plan, {}, study.results).tuned(
        found.candidates, found.candidates[-1].selection, "tta"
    )
    assert others == found.candidates[:-1] and chosen == replace(found.candidates[-1], cost=cost.of_way("tta"))
    facts = sections(found)["Cost"].blocks[0].facts
    assert "km² a second, predicted by the ensemble as the mean over the 8 symmetries" in facts
