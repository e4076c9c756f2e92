"""What the tuning of the way to footprints has found, and whether it is used."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sn7.metrics import Counts
from sweep.found import Params, Tuned, record
from sweep.oof import Weights
from sweep.records import Records
from sweep.selection import Selection

__all__ = ["POSTPROCESS", "ByScene", "Footprints"]

POSTPROCESS = "postprocess"
"""Name of the search, its table and its runs."""
ByScene = Mapping[str, Counts]


@dataclass(frozen=True)
class Footprints:
    """How images become footprints best, and what that is worth."""

    objective: str
    tuned: Tuned[ByScene]

    @property
    def helps(self) -> bool:
        """Whether folds are better off with what the others found than without; else nothing of it is used."""
        return self.tuned.nested > self.tuned.baseline

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
        end = "" if self.helps else " It is therefore not used."
        return (
            f"Tuning without training brought {name} from {before:.3f} to {nested:.3f}, each fold with what the others "
            f"found ({optimistic:.3f} with what was fitted on these very folds, which flatters).{end}"
        )

    def to_json(self) -> dict[str, Any]:
        """Return what summary.json has of it."""
        return {"objective": self.objective, "used": self.helps, **self.tuned.to_json((self.objective,))}

    def record(self, records: Records) -> None:
        """Write the searches to MLflow."""
        record(POSTPROCESS, (self.objective,), self.tuned, records)


def _weights_of(params: Params) -> Weights:
    return {int(trial): weight for trial, weight in params["weights"].items()}
