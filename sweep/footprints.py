"""What the tuning of the way to footprints has found, and whether that is more than chance."""

from collections import ChainMap
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sn7.evaluation import FEWEST, by_cluster, gain_interval
from sn7.metrics import Counts
from sweep.found import Params, Tuned, record
from sweep.oof import Weights
from sweep.records import Records
from sweep.selection import Selection

__all__ = ["POSTPROCESS", "ByScene", "Footprints"]

POSTPROCESS = "postprocess"
"""Name of the search, its table and its runs."""
ByScene = Mapping[str, Counts]
LEAST_GAIN = 0.05
"""Where places are too few for an interval; 0.044 on six scenes of the sample was none on new ones."""


@dataclass(frozen=True)
class Footprints:
    """How images become footprints best, and what that is worth."""

    objective: str
    tuned: Tuned[ByScene]
    clusters: Mapping[str, int]
    """The geographic cluster of each scene (see sn7.folds)."""
    seed: int
    """Of the interval's resampling."""

    @cached_property
    def interval(self) -> tuple[float, float] | None:
        """95 % interval of what folds gain by what the others found, over clusters; None where these are too few."""
        after, before = (ChainMap(*map(dict, folds)) for folds in (self.tuned.counts, self.tuned.baseline_counts))
        return gain_interval(by_cluster(after, self.clusters), by_cluster(before, self.clusters), self.seed)

    @property
    def helps(self) -> bool:
        """Whether folds gain more by what the others found than chance may bring; else nothing of it is used."""
        if self.interval:
            return self.interval[0] > 0
        return self.tuned.nested[0] - self.tuned.baseline[0] >= LEAST_GAIN

    @property
    def selection(self) -> Selection:
        """The weights that go with it."""
        return Selection(
            _weights_of(self.tuned.params), tuple(_weights_of(one.params) for one in self.tuned.found[:-1])
        )

    @property
    def advice(self) -> dict[str, Any]:
        """What an ensemble folder keeps of it: the way to probs and the rules of polygons."""
        return {"probs": self.tuned.params["probs"], "rules": self.tuned.params["rules"]}

    @property
    def sentence(self) -> str:
        """What it has brought, in a sentence."""
        before, nested, optimistic = (
            values[0] for values in (self.tuned.baseline, self.tuned.nested, self.tuned.optimistic)
        )
        name = {"f1": "F1 of footprints at IoU 0.25", "dice": "Dice of pixels"}[self.objective]
        if self.interval:
            low, high = self.interval
            doubt = f"Over clusters of scenes the gain is {low:+.3f} to {high:+.3f} (95 % interval)."
        else:
            doubt = f"On fewer than {FEWEST} clusters of scenes a gain below {LEAST_GAIN} may be chance."
        end = "" if self.helps else " It is therefore not used."
        return (
            f"Tuning without training brought {name} from {before:.3f} to {nested:.3f}, each fold with what the others "
            f"found ({optimistic:.3f} with what was fitted on these very folds, which flatters). {doubt}{end}"
        )

    def to_json(self) -> dict[str, Any]:
        """Return what summary.json has of it."""
        about = {"objective": self.objective, "used": self.helps, "gain_interval": self.interval}
        return {**about, **self.tuned.to_json((self.objective,))}

    def record(self, records: Records) -> None:
        """Write the searches to MLflow."""
        record(POSTPROCESS, (self.objective,), self.tuned, records)


def _weights_of(params: Params) -> Weights:
    return {int(trial): weight for trial, weight in params["weights"].items()}
