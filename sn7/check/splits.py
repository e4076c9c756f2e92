"""The neighbours that the published splits separate."""

from dataclasses import dataclass

from sn7.check.scenes import SceneReport
from sn7.folds import NAMED_SPLITS, Split, clusters, leaks

__all__ = ["Leak", "SplitReport", "count_clusters", "split_reports"]


@dataclass(frozen=True)
class Leak:
    """Two neighbouring scenes, one of which is trained on while the other one validates."""

    training: str
    validation: str
    km: float


@dataclass(frozen=True)
class SplitReport:
    """What a published split comes to with the scenes that are there."""

    split: str
    training: int
    """Scenes to train on."""
    validation: int
    """Scenes to validate on."""
    wanted: int
    """Validation scenes that the split names."""
    leaks: tuple[Leak, ...]
    """Scenes within 60 km that it separates, the nearest first."""


def count_clusters(scenes: list[SceneReport]) -> int:
    """Return how many clusters of neighbours the scenes to train on form; folds keep them whole."""
    return len(set(clusters(_centres(scenes)).values()))


def split_reports(scenes: list[SceneReport]) -> list[SplitReport]:
    """Return what each published split comes to."""
    centres = _centres(scenes)
    return [_split_report(name, set(named), centres) for name, named in NAMED_SPLITS.items()]


def _centres(scenes: list[SceneReport]) -> dict[str, tuple[float, float]]:
    return {
        row.scene: (row.lon, row.lat)
        for row in scenes
        if row.part == "train" and row.lon is not None and row.lat is not None
    }


def _split_report(name: str, named: set[str], centres: dict[str, tuple[float, float]]) -> SplitReport:
    training = tuple(sorted(set(centres) - named))
    validation = tuple(sorted(set(centres) & named))
    pairs = leaks(Split(name, training, validation), centres) if training and validation else []
    return SplitReport(name, len(training), len(validation), len(named), tuple(Leak(*pair) for pair in pairs))
