"""The ensemble that a study ends with, and what stands beside it: each configuration alone, and their plain mean."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from sn7.config import TrainConfig
from sn7.ensemble import save_ensemble
from sn7.errors import StudyInvalid
from sn7.files import read_json
from sweep.costs import Cost, costs_of
from sweep.oof import Weights, equal
from sweep.plan import Plan
from sweep.scoring import OutOfFold, Scorer
from sweep.selection import Selection, select
from sweep.trial import split_folder

__all__ = [
    "ENSEMBLE",
    "SUMMARY",
    "Candidate",
    "Candidates",
    "folds_json",
    "gain_sentence",
    "read_chosen",
    "write_ensemble",
]

ENSEMBLE = "ensemble"
SUMMARY = "summary.json"


@dataclass(frozen=True)
class Candidate:
    """Configurations that could be the ensemble, with all their fold models."""

    name: str
    selection: Selection
    scored: OutOfFold
    cost: Cost

    @property
    def weights(self) -> Weights:
        """Of the configurations, chosen on all folds."""
        return self.selection.weights

    @property
    def thresholds(self) -> dict[int | None, float]:
        """The threshold fitted without each fold, and, by None, on all."""
        return {None: self.scored.threshold, **{fold.fold: fold.threshold for fold in self.scored.folds}}

    def to_json(self) -> dict[str, Any]:
        """Return what summary.json and the report have of it."""
        return {
            "model": self.name,
            "weights": _texts(self.weights),
            "dice": self.scored.counts.dice,
            "dice_optimistic": self.scored.optimistic.dice,
            **asdict(self.cost),
        }


@dataclass(frozen=True)
class Candidates:
    """Scores what could be the ensemble: means of configurations that were trained on every fold."""

    plan: Plan
    configs: Mapping[int, TrainConfig]
    """By trial."""
    scorer: Scorer

    def scored(self, name: str, selection: Selection) -> Candidate:
        """Return a mean with its scores and costs."""
        plan = self.plan
        scored = self.scorer.score(selection, plan.folds)
        cost = costs_of(selection.weights, self.configs, plan.folds, self.scorer.results, plan.prepared)
        return Candidate(name, selection, scored, cost)

    def compare(self, trials: Sequence[int], names: Mapping[int, str]) -> list[Candidate]:
        """Return each configuration alone, the plain mean of `trials`, and last what is selected of these."""
        found = [self.scored(names[trial], Selection({trial: 1.0})) for trial in self.configs]
        if len(trials) > 1:
            found.append(self.scored(f"mean of the best {len(trials)}", Selection(equal(trials))))
        selected = select(trials, self.plan.folds, self.scorer.results, self.plan.prepared, self.scorer.stage)
        return [*found, self.scored(ENSEMBLE, selected)]

    def tuned(self, candidates: Sequence[Candidate], selection: Selection, way: str) -> list[Candidate]:
        """Return the candidates with what tuning has found as the last one: another selection, if it is another one.

        Scores are of plain probs, costs of probs that are made in this `way`.
        """
        *others, chosen = candidates
        if selection != chosen.selection:
            others, chosen = [*others, replace(chosen, name="greedy selection")], self.scored(ENSEMBLE, selection)
        return [*others, replace(chosen, cost=chosen.cost.of_way(way))]


def folds_json(chosen: Candidate) -> list[dict[str, Any]]:
    """Return what summary.json has of the choices that were made without each fold, for `read_chosen`."""
    return [{"weights": _texts(fold.weights), "threshold": fold.threshold} for fold in chosen.scored.folds]


def read_chosen(results: Path) -> tuple[Selection, dict[int | None, float]]:
    """Return the weights of a complete study's ensemble, and its thresholds, as Candidate has them.

    Raises StudyInvalid where the study is not complete, or was by a version that did not keep them.
    """
    path = results / SUMMARY
    if not path.exists():
        raise StudyInvalid(f"{results} holds no complete study; wanted its out-of-fold probs: go on with --resume.")
    try:
        ensemble = read_json(path)["ensemble"]
        each = [ensemble, *ensemble["folds"]]
        weights, *nested = ({int(trial): weight for trial, weight in one["weights"].items()} for one in each)
        threshold, *thresholds = (float(one["threshold"]) for one in each)
    except (ValueError, KeyError, TypeError) as error:
        raise StudyInvalid(
            f"{path} does not say what each fold's ensemble was ({error!r}); remove it and go on with --resume, which "
            "trains nothing."
        ) from error
    return Selection(weights, tuple(nested)), {None: threshold, **dict(enumerate(thresholds))}


def _texts(weights: Weights) -> dict[str, float]:
    return {str(trial): weight for trial, weight in weights.items()}


def gain_sentence(candidates: Sequence[Candidate]) -> str:
    """Return what the selection has brought, in a sentence; empty where there was nothing to select from."""
    mean = next((other for other in candidates if other.name.startswith("mean of")), None)
    if mean is None:
        return ""
    chosen = candidates[-1]
    taken = ", ".join(f"trial {trial} with weight {weight:.2f}" for trial, weight in chosen.weights.items())
    gain = chosen.scored.counts.dice - mean.scored.counts.dice
    return (
        f"The ensemble is {taken}: Dice {chosen.scored.counts.dice:.3f} out of fold, each fold with weights that the "
        f"others chose, {gain:+.3f} against the plain {mean.name}, with {chosen.cost.models} in place of "
        f"{mean.cost.models} models."
    )


def write_ensemble(plan: Plan, chosen: Candidate, advice: Mapping[str, Any] | None, results: Path) -> Path:
    """Write the ensemble folder; each fold model of a configuration has an equal part of its weight.

    `advice` is what was tuned on the way from its probs to footprints, if it was.
    """
    members = [(trial, split, weight) for trial, weight in chosen.weights.items() for split in plan.folds]
    fitted = {
        "study": plan.study.name,
        "trials": list(chosen.weights),
        "folds": [list(split.validation) for split in plan.folds],
        "data_fingerprint": plan.prepared.fingerprint,
        "out_of_fold": {**chosen.scored.counts.metrics(), "dice_by_fold": chosen.scored.dice_by_fold},
        "optimistic": chosen.scored.optimistic.metrics(),
    }
    save_ensemble(
        results / ENSEMBLE,
        [split_folder(results, trial, split.name) / "model" for trial, split, _ in members],
        chosen.scored.threshold,
        fitted,
        [weight / len(plan.folds) for _, _, weight in members],
        advice,
    )
    return results / ENSEMBLE
