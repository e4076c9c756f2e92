"""Tables of a study as CSV files."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sn7.files import atomic_file

__all__ = ["write_table"]


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows, atomically; a column that a row does not have stays empty in it."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with atomic_file(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns or ["rank"])
        writer.writeheader()
        writer.writerows(rows)
