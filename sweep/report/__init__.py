"""report.html: what a study found, in one file that opens in any browser, without a network.

A section is a function of the findings; to add one, write it beside the others and give it its place in SECTIONS.
"""

from collections.abc import Callable
from pathlib import Path

from sn7.files import atomic_file
from sweep.report.cost import cost, origin
from sweep.report.ensemble import ensemble
from sweep.report.fields import fields
from sweep.report.findings import Findings
from sweep.report.footprints import footprints
from sweep.report.outoffold import calibration, scenes, thresholds
from sweep.report.page import Section, render
from sweep.report.pictures import final_scenes, predictions
from sweep.report.searched import leaderboard, searched
from sweep.report.training import learning, seeds
from sweep.summary import headline

__all__ = ["SECTIONS", "Findings", "write_report"]

SECTIONS: tuple[Callable[[Findings], Section | None], ...] = (
    searched,
    leaderboard,
    fields,
    learning,
    seeds,
    scenes,
    thresholds,
    calibration,
    ensemble,
    footprints,
    predictions,
    final_scenes,
    cost,
    origin,
)
"""The sections in their order; one that has nothing to say returns None."""


def write_report(findings: Findings, path: Path) -> None:
    """Write the report as one self-contained file, atomically."""
    sections = [section for make in SECTIONS if (section := make(findings))]
    said = [headline(findings.summary), *(findings.summary[what] for what in ("noise", "gain", "tuning"))]
    html = render(findings.plan.study.name, " ".join(filter(None, said)), sections)
    with atomic_file(path) as temporary:
        temporary.write_text(html, encoding="utf-8")
