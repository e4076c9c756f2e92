"""report.html: what a study found, in one file, with its figures beside it."""

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from PIL import Image

from sn7.files import atomic_file
from sweep.leaderboard import Row
from sweep.study import Study

__all__ = ["write_report"]

PREVIEWS = 6
"""Scenes whose prediction the report shows."""
WIDTH = 900
"""Of a picture in the report, px."""


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
    """Return a picture as a data address, at most WIDTH pixels wide."""
    with Image.open(path) as picture:
        picture.thumbnail((WIDTH, WIDTH))
        buffer = io.BytesIO()
        picture.save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
