from pathlib import Path
from typing import Any

import pytest

from sweep.summary import closing

ROW = {"rank": 1, "trial": 3, "recipe": "", "state": "COMPLETE", "dice": 0.5}
SUMMARY: dict[str, Any] = {
    "trials": 4,
    "winner": ROW,
    "notebook": None,
    "ensemble": {"models": 2, "threshold": 0.61, "way": "plain", "rules": {}, "out_of_fold": {"dice": 0.45}},
    "noise": "",
    "failed": [],
    "predicted": 3,
    "skipped": [],
    "none_predicted": "",
}


def _said(**changed: Any) -> str:
    return closing({**SUMMARY, **changed}, [ROW], Path("results"), "make ui")


def test_what_failed_is_not_what_was_skipped() -> None:
    """Images are skipped, configurations left out of the ensemble; why no scene was predicted is told."""
    said = _said(failed=["trial 7, fold 1: it diverged"], skipped=["a.tif has no valid pixel."])
    assert "left out of the ensemble: trial 7, fold 1: it diverged" in said
    assert "skipped: a.tif has no valid pixel." in said and "3 images, 1 skipped" in said
    assert "no final scene is predicted" not in said
    assert "no final scene is predicted: nobody looked" in _said(predicted=0, none_predicted="nobody looked")


@pytest.mark.parametrize(("rules", "threshold"), [({}, "0.61"), ({"threshold": 0.3}, "0.30")])
def test_the_threshold_is_that_of_polygons(rules: dict[str, float], threshold: str) -> None:
    """As tuned, where that is used."""
    ensemble = {**SUMMARY["ensemble"], "rules": rules}
    assert f"2 models, threshold {threshold}" in _said(ensemble=ensemble)
