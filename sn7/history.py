"""The epochs of a training as a table, history.csv."""

import csv
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sn7.errors import ModelInvalid
from sn7.files import atomic_file

__all__ = ["EpochMetrics", "read_rows", "write_rows"]


@dataclass(frozen=True)
class EpochMetrics:
    """One row of history.csv; metrics are of the building class over all valid validation pixels."""

    epoch: int
    """From 1."""
    train_loss: float
    valid_loss: float
    dice: float
    iou: float
    precision: float
    recall: float
    lr: float
    """Of the decoder, at the last step of the epoch."""
    tiles_per_s: float
    """Training tiles a second, without validation."""
    seconds: float
    """Training and validation of the epoch."""
    memory_mib: float
    """Peak of the epoch on the GPU; without one the peak of the process so far. In MiB."""
    micro_batch: int
    """Tiles in memory at once; less than batch_size after an out-of-memory."""


WHOLE = ("epoch", "micro_batch")
"""Fields that are whole numbers."""


def write_rows(path: Path, history: list[EpochMetrics]) -> None:
    """Write epochs, one at least, as CSV, atomically."""
    with atomic_file(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(asdict(history[0])))
        writer.writeheader()
        writer.writerows(asdict(metrics) for metrics in history)


def read_rows(path: Path) -> list[EpochMetrics]:
    """Read what write_rows() wrote.

    Raises ModelInvalid where the file is missing or damaged.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        return [EpochMetrics(**{name: _number(name, text) for name, text in row.items()}) for row in rows]
    except (OSError, TypeError, ValueError) as error:
        raise ModelInvalid(f"{path} cannot be read ({error}); remove {path.parent} and train again.") from error


def _number(name: str, text: str) -> Any:
    return int(text) if name in WHOLE else float(text)
