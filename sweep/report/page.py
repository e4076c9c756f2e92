"""A report as HTML: sections of text, tables, charts and pictures, in one file that loads nothing."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import jinja2
import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go
from markupsafe import Markup
from PIL import Image
from plotly.offline import get_plotlyjs

from sweep.report.style import styled

__all__ = ["Block", "Chart", "Facts", "Panels", "Picture", "Section", "Table", "Text", "number", "render"]

WIDTH = 900
"""Of a picture in the report, px."""


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    kind: ClassVar[str] = "text"
    text: str


@dataclass(frozen=True)
class Facts:
    """Numbers that are read at a glance, by what they are."""

    kind: ClassVar[str] = "facts"
    facts: Mapping[str, str]


@dataclass(frozen=True)
class Table:
    """Rows of cells: texts, or numbers of any kind. A row may have a class of the style sheet, by its index."""

    kind: ClassVar[str] = "table"
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    marks: Mapping[int, str] = field(default_factory=dict)
    caption: str = ""
    folded: str = ""
    """What stands instead of the table until a reader opens it."""


@dataclass(frozen=True)
class Chart:
    """A plotly figure with a caption; narrower than `min_width` px it scrolls, and where there is room two halves stand
    beside each other."""

    kind: ClassVar[str] = "chart"
    figure: go.Figure
    caption: str = ""
    min_width: int = 0
    half: bool = False

    def html(self) -> Markup:
        """Return the chart's HTML; plotly escapes what its JSON holds."""
        figure = styled(self.figure)
        settings = {"displayModeBar": False, "responsive": True}
        height = f"{figure.layout.height}px"
        return Markup(figure.to_html(full_html=False, include_plotlyjs=False, config=settings, default_height=height))


@dataclass(frozen=True)
class Picture:
    """The middle of a picture file, with a caption: thin lines would vanish from a reduced one."""

    kind: ClassVar[str] = "picture"
    path: Path
    caption: str

    @property
    def source(self) -> str:
        """The picture as a data address, at most WIDTH pixels wide and high."""
        with Image.open(self.path) as picture:
            left, top = (max(0, length - WIDTH) // 2 for length in picture.size)
            right, bottom = left + min(WIDTH, picture.width), top + min(WIDTH, picture.height)
            return _inline(picture.crop((left, top, right, bottom)), "JPEG")


@dataclass(frozen=True)
class Panels:
    """Small pictures, uint8 (h, w, 3), that belong together, by name: in one row, or in two where it is narrow."""

    kind: ClassVar[str] = "panels"
    pictures: Mapping[str, npt.NDArray[np.uint8]]
    caption: str

    @property
    def sources(self) -> dict[str, str]:
        """The pictures as data addresses; photographs as JPEG, those of few colours, which it would blur, as PNG."""
        return {
            name: _inline(picture, "PNG" if picture.getcolors(16) else "JPEG")
            for name, pixels in self.pictures.items()
            for picture in [Image.fromarray(pixels)]
        }


Block = Text | Facts | Table | Chart | Picture | Panels


@dataclass(frozen=True)
class Section:
    """A chapter of the report."""

    title: str
    blocks: Sequence[Block]

    @property
    def anchor(self) -> str:
        """What the table of contents leads to."""
        return self.title.lower().replace(" ", "-")


def render(title: str, headline: str, sections: Sequence[Section]) -> str:
    """Return the page. Everything that comes from data is escaped: texts by Jinja, figures by plotly."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["shown"] = number
    return environment.get_template("page.html").render(
        title=title,
        headline=headline,
        sections=sections,
        plotly=Markup(get_plotlyjs()),
        numeric=lambda value: isinstance(value, int | float),
    )


def number(value: Any) -> str:
    """Return a cell's text: real numbers with four significant digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _inline(picture: Image.Image, kind: str) -> str:
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, format=kind, quality=88, optimize=True)
    return f"data:image/{kind.lower()};base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
