"""What searches without training have found: beside the baseline, as tables, and as runs in MLflow."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sweep.records import Records
from sweep.tables import table_text

__all__ = ["Count", "Found", "Params", "Scores", "Tuned", "record", "rows"]

Params = dict[str, Any]
Scores = tuple[float, ...]
Count = TypeVar("Count")
"""What parameters come to on one fold, such as `sn7.metrics.Counts`; scores are made of those of several folds."""


@dataclass(frozen=True)
class Found:
    """What one search has found."""

    held_out: int | None
    """The fold that it did not see, or None."""
    params: Params
    """The best ones."""
    values: Scores
    """Their scores on the folds that it saw."""
    trials: tuple[tuple[Params, Scores], ...]
    """All that it tried."""
    span: tuple[int, int]
    """When it began and ended, ms since 1970."""


@dataclass(frozen=True)
class Tuned(Generic[Count]):
    """What all searches have found."""

    params: Params
    """Chosen on all folds: what to use."""
    optimistic: Scores
    """On all folds, with these very parameters."""
    nested: Scores
    """On all folds, each with parameters chosen on the others: what to report."""
    baseline: Scores
    """On all folds, each with its search's baseline."""
    found: tuple[Found, ...]
    """One search a fold, in order, then that on all."""
    counts: tuple[Count, ...]
    """Of each fold, with parameters chosen on the others."""
    baseline_counts: tuple[Count, ...]
    """Of each fold, with its search's baseline."""
    by_fold: tuple[Scores, ...]
    """Of each fold alone, with parameters chosen on the others."""
    baseline_by_fold: tuple[Scores, ...]
    """Of each fold alone, with its search's baseline."""

    def to_json(self, scores: Sequence[str]) -> dict[str, Any]:
        """Return what summary.json has of it, with the names of the scores."""
        named = {what: dict(zip(scores, getattr(self, what), strict=True)) for what in ("nested", "optimistic")}
        return {
            "params": self.params,
            **named,
            "before": dict(zip(scores, self.baseline, strict=True)),
            "before_optimistic": dict(zip(scores, self.found[-1].trials[0][1], strict=True)),
            "by_fold": [dict(zip(scores, values, strict=True)) for values in self.by_fold],
            "before_by_fold": [dict(zip(scores, values, strict=True)) for values in self.baseline_by_fold],
            "params_by_fold": [found.params for found in self.found[:-1]],
            "tried": sum(len(found.trials) for found in self.found),
        }


def record(name: str, scores: Sequence[str], tuned: Tuned[Any], records: Records) -> None:
    """Write each search to a run of its own in MLflow: what it found, its scores there and on the fold held out."""
    for found in tuned.found:
        metrics = {f"seen_{score}": value for score, value in zip(scores, found.values, strict=True)}
        if found.held_out is not None:
            values = tuned.by_fold[found.held_out]
            metrics |= {f"held_out_{score}": value for score, value in zip(scores, values, strict=True)}
        else:
            for what, values in (("nested", tuned.nested), ("before", tuned.baseline)):
                metrics |= {f"{what}_{score}": value for score, value in zip(scores, values, strict=True)}
        tried = table_text(rows(scores, found))
        records.search(name, found.held_out, found.span, _flat(found.params), metrics, tried)


def rows(scores: Sequence[str], found: Found) -> list[dict[str, Any]]:
    """Return what a search tried, a row each."""
    return [
        {
            "held_out": "" if found.held_out is None else found.held_out,
            "number": number,
            **_flat(params),
            **dict(zip(scores, values, strict=True)),
            "chosen": params == found.params,
        }
        for number, (params, values) in enumerate(found.trials)
    ]


def _flat(params: Params) -> dict[str, Any]:
    """Return parameters with those of a table within named as table.name."""
    flat: dict[str, Any] = {}
    for name, value in params.items():
        inner = value if isinstance(value, dict) else None
        flat |= {name: value} if inner is None else {f"{name}.{key}": part for key, part in inner.items()}
    return flat
