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
        f"{findings.summary['tuning']} Searched were weights, pooling of months, threshold, seeds and least area, "
        f"{found['tried']} times in all, on {findings.plan.study.postprocess.images_per_scene} images of each scene at "
        f"most.{' The last line is what the ensemble predicts with.' if found['used'] else ''}"
    )
    rows = [
        [fold, "the others", f"{before[name]:.3f}", f"{after[name]:.3f}", *_params(params)]
        for fold, (before, after, params) in enumerate(
            zip(found["before_by_fold"], found["by_fold"], found["params_by_fold"], strict=True)
        )
    ]
    before, nested, optimistic = (f"{found[what][name]:.3f}" for what in ("before", "nested", "optimistic"))
    rows.append(["all", "the others, each", before, nested, "", "", ""])
    rows.append(["all", "all", before, optimistic, *_params(found["params"])])
    return Section("Footprints", [Text(words), Table(COLUMNS, rows, {len(rows) - 1: "best"})])


def _params(params: Mapping[str, Any]) -> list[str]:
    weights = ", ".join(f"trial {trial}: {weight:.2f}" for trial, weight in params["weights"].items())
    rules = ", ".join(f"{name} {value:.3g}" for name, value in params["rules"].items())
    return [weights, params["probs"], rules]
