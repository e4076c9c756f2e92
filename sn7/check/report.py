"""What was found in a data set, as one JSON object."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sn7.check.findings import CONSEQUENCES, Finding
from sn7.check.scenes import SceneReport
from sn7.check.splits import SplitReport

__all__ = ["Report"]


@dataclass(frozen=True)
class Report:
    """A data set as it is."""

    data: Path
    months: tuple[str, str] | None
    """First and last month of the data set, YYYY-MM; None without images."""
    clusters: int
    """Groups of neighbouring scenes to train on."""
    scenes: tuple[SceneReport, ...]
    """By name, those to train on first."""
    splits: tuple[SplitReport, ...]
    findings: tuple[Finding, ...]
    """The gravest consequence first, then by kind and file."""

    @property
    def stopping(self) -> list[Finding]:
        """The findings for whose sake `sn7 prepare` refuses the data set, so that nothing could be trained."""
        return [found for found in self.findings if found.consequence == "stops prepare"]

    def place(self, found: Finding) -> str:
        """Return the path of a finding's file, relative to the data set."""
        return found.path.relative_to(self.data).as_posix()

    def to_dict(self) -> dict[str, Any]:
        """Return the report for JSON.

        data, months, clusters, and
        scenes: one object a scene with the fields of SceneReport;
        splits: one object a published split with the fields of SplitReport;
        consequences: consequence → number of findings, all consequences;
        findings: kind, consequence, file (relative to data), found (text), count (features or months concerned).
        """
        counts = dict.fromkeys(CONSEQUENCES, 0)
        for found in self.findings:
            counts[found.consequence] += 1
        return {
            "data": str(self.data),
            "months": self.months,
            "clusters": self.clusters,
            "scenes": [asdict(row) for row in self.scenes],
            "splits": [asdict(split) for split in self.splits],
            "consequences": counts,
            "findings": [
                {
                    "kind": found.kind,
                    "consequence": found.consequence,
                    "file": self.place(found),
                    "found": found.found,
                    "count": found.count,
                }
                for found in self.findings
            ],
        }
