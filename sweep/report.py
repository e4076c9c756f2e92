"""report.html: what a study found, in one file, with its figures beside it."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from sn7.files import atomic_file
from sweep.leaderboard import Row
from sweep.study import Study

__all__ = ["write_report"]

PREVIEWS = 6
"""Prediction pictures that the report shows."""


def write_report(
    study: Study,
    rows: Sequence[Row],
    folds: Sequence[Mapping[str, Any]],
    headline: str,
    curves: Path,
    pictures: Sequence[Path],
    previews: Sequence[Path],
    path: Path,
) -> None:
    """Write the report as one self-contained file, atomically."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["shown"] = _shown
    html = environment.get_template("report.html").render(
        study=study,
        rows=rows,
        columns=list(rows[0]) if rows else [],
        folds=folds,
        headline=headline,
        curves=_inline(curves),
        pictures=[_inline(picture) for picture in pictures],
        previews=[(f"{preview.parent.name}/{preview.stem}", _inline(preview)) for preview in previews[:PREVIEWS]],
    )
    with atomic_file(path) as temporary:
        temporary.write_text(html, encoding="utf-8")


def _inline(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode("ascii")


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
