"""What a report is written from, and the few questions that several of its sections ask."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import optuna

from sn7.errors import ModelInvalid
from sn7.evaluation import Evaluation
from sn7.folds import clusters
from sn7.history import EpochMetrics, read_rows
from sn7.panels import TilePicture
from sn7.predict.way import Way
from sn7.train import read_result
from sweep.ensembles import Candidate
from sweep.leaderboard import Row
from sweep.plan import Plan
from sweep.summary import polygon_threshold
from sweep.trial import split_folder

__all__ = ["Findings", "short_names"]


@dataclass(frozen=True)
class Findings:
    """A finished study."""

    plan: Plan
    opened: optuna.Study
    rows: Sequence[Row]
    """The leaderboard."""
    candidates: Sequence[Candidate]
    """Each configuration that was cross-validated, their mean, and last the ensemble."""
    summary: Mapping[str, Any]
    """What summary.json says."""
    results: Path
    repeats: Mapping[int, Sequence[float]] = field(default_factory=dict)
    """Dice of the best trials with each seed, their own first."""
    examples: Sequence[TilePicture] = ()
    """Out-of-fold predictions, the best first."""
    previews: Sequence[Path] = ()
    """Pictures of the final scenes' predictions."""
    about: Mapping[str, str] = field(default_factory=dict)
    """Where it all comes from, as the tags of the study's run."""

    @property
    def best(self) -> int:
        """Number of the best trial."""
        return int(self.summary["winner"]["trial"])

    @property
    def notebook(self) -> int | None:
        """Number of the trial that is the notebook recipe; None where it has not begun."""
        return next((int(row["trial"]) for row in self.rows if row["recipe"]), None)

    @cached_property
    def clusters(self) -> dict[str, int]:
        """The geographic cluster of each scene: what intervals are drawn from."""
        return clusters(self.plan.prepared.centres())

    @property
    def as_tuned(self) -> str:
        """How the ensemble makes polygons where that was tuned, beside figures that are not of that; else empty."""
        if not self.summary["ensemble"]["rules"]:
            return ""
        return (
            f" The ensemble makes its polygons of {Way.of(self.summary['ensemble']['way']).words} at a threshold of "
            f"{polygon_threshold(self.summary):.2f}, as tuned (see Footprints); what stands here is of plain probs, at "
            "thresholds fitted for Dice."
        )

    def name(self, trial: int) -> str:
        """Return what a trial is called in charts and tables."""
        return f"trial {trial}" + (" (notebook recipe)" if trial == self.notebook else "")

    def fields(self) -> list[str]:
        """Return the fields that vary, in the study file's order."""
        return list(self.plan.study.space.fields)

    def history(self, trial: int) -> list[EpochMetrics]:
        """Return the epochs of a trial on its first split: none where it has none, or they cannot be read."""
        path = self._folder(trial) / "history.csv"
        try:
            return read_rows(path) if path.exists() else []
        except ModelInvalid:
            return []

    def evaluation(self, trial: int) -> Evaluation | None:
        """Return what the kept epoch is worth on the validation scenes, where there is one split and it has ended."""
        if len(self.plan.validation) > 1:
            return None
        try:
            result = read_result(self._folder(trial))
        except ModelInvalid:
            return None
        return result.evaluation if result else None

    def _folder(self, trial: int) -> Path:
        return split_folder(self.results, trial, self.plan.validation[0].name)


def short_names(scenes: Sequence[str]) -> dict[str, str]:
    """Return the scenes' names as charts have room for them: the position alone, where that tells them apart."""
    found = {scene: re.sub(r"^L15-(\d{4}[EW]-\d{4}[NS])_\d+_\d+_13$", r"\1", scene) for scene in scenes}
    return {scene: name if list(found.values()).count(name) == 1 else scene for scene, name in found.items()}
