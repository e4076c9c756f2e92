"""What has come of a prediction."""

from dataclasses import dataclass, fields

from sn7.predict.files import PredictionFiles

__all__ = ["PredictReport"]


@dataclass(frozen=True)
class PredictReport:
    """What went in, what came out, and what did not; reports add up."""

    images: int
    written: tuple[PredictionFiles, ...]
    skipped: tuple[str, ...]
    """One sentence for each image that was left out."""
    warnings: tuple[str, ...] = ()
    """One sentence for each image whose files lack something."""
    km2: float = 0.0
    """Ground area of the images that were predicted."""
    unreadable: int = 0
    """How many of the images that were left out cannot be read; the others have no valid pixel."""

    def __add__(self, other: "PredictReport") -> "PredictReport":
        return PredictReport(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))
