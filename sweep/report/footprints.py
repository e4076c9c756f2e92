"""What tuning the way from probs to footprints has brought, without training anything."""

from collections.abc import Mapping
from typing import Any

from sweep.report.findings import Findings
from sweep.report.page import Section, Table, Text

__all__ = ["footprints"]

COLUMNS = ("fold", "fitted on", "before", "after", "weights", "probs", "rules of polygons")


def footprints(findings: Findings) -> Section | None:
    """Return the scores before and after, fold by fold, with what was found; None where nothing was tuned."""
    found = findings.summary.get("postprocess")
    if not found:
        return None
    name = found["objective"]
    words = (
        f"{findings.summary['tuning']} Searched were {_searched(findings)}, {found['tried']} times in all, on "
        f"{findings.plan.study.postprocess.images_per_scene} images of each scene at most."
        f"{' The last line is what the ensemble predicts with.' if found['used'] else ''}"
    )
    rows = [
        [str(fold), "the others", f"{before[name]:.3f}", f"{after[name]:.3f}", *_params(params)]
        for fold, (before, after, params) in enumerate(
            zip(found["before_by_fold"], found["by_fold"], found["params_by_fold"], strict=True)
        )
    ]
    rows.append(["all", "the others, each", *_change(found, name, "before", "nested"), "", "", ""])
    rows.append(["all", "all", *_change(found, name, "before_optimistic", "optimistic"), *_params(found["params"])])
    marks = {len(rows) - 1: "best"} if found["used"] else {}
    return Section("Footprints", [Text(words), Table(COLUMNS, rows, marks)])


def _searched(findings: Findings) -> str:
    """Return what the study's table lets vary, in words."""
    table = findings.plan.study.postprocess
    varied = {
        "weights": bool(findings.summary["gain"]),  # of several configurations
        "pooling of months": True,
        "test-time augmentation": table.tta,
        "threshold": True,
        "seeds": table.objective == "f1",
    }
    return f"{', '.join(name for name, varies in varied.items() if varies)} and least area"


def _change(found: Mapping[str, Any], name: str, before: str, after: str) -> list[str]:
    return [f"{found[what][name]:.3f}" for what in (before, after)]


def _params(params: Mapping[str, Any]) -> list[str]:
    weights = ", ".join(f"trial {trial}: {weight:.2f}" for trial, weight in params["weights"].items())
    rules = ", ".join(f"{name} {value:.3g}" for name, value in params["rules"].items())
    return [weights, params["probs"], rules]
