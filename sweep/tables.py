"""Tables of a study as CSV files."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sn7.files import atomic_file

__all__ = ["table_text", "write_table"]


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows, atomically; a column that a row does not have stays empty in it."""
    with atomic_file(path) as temporary:
        temporary.write_text(table_text(rows), encoding="utf-8", newline="")


def table_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as the text of a CSV file; without any it has the column rank."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns or ["rank"])
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
