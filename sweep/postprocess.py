"""The way from images to footprints, tuned on out-of-fold probs without training anything.

Searched are the ensemble's weights, pooling over months or test-time augmentation, threshold, seeds, and the least
area of a footprint; nested over the folds (see sweep.nested). Of each scene some images are judged, which bounds the
time; of test-time augmentation the mean over its eight symmetries is kept, of these images alone, since all eight of
all images would take eight times the disk that out-of-fold probs take.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import ray

from sn7.ensemble import load_predictor
from sn7.files import atomic_file
from sn7.metrics import Counts
from sn7.prepared import RGB, load_prepared
from sn7.rules import PolygonRules
from sn7.symmetries import Symmetries
from sn7.windows import predict_array
from sweep.fits import result
from sweep.judge import PLAIN, TTA, WAYS, Judged, count, true_footprints
from sweep.nested import Params, Search, Tuned, record, search_nested
from sweep.oof import TTA_PROBS, Weights, equal, probs_path
from sweep.plan import Plan
from sweep.records import Records
from sweep.selection import Selection
from sweep.stopping import StopFile
from sweep.trial import split_folder

__all__ = ["POSTPROCESS", "Footprints", "choose_images", "tune"]

POSTPROCESS = "postprocess"
"""Name of the search, its table and its runs."""
SELECTED, MEAN, BEST = "selected", "mean", "best alone"
"""Weights of the configurations: as selected greedily, equal ones, or the best one alone."""


@dataclass(frozen=True)
class Footprints:
    """How images become footprints best, and what that is worth."""

    objective: str
    tuned: Tuned

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


def tune(
    plan: Plan, trials: Sequence[int], selection: Selection, thresholds: Mapping[int | None, float], results: Path
) -> Footprints:
    """Tune for the mean of `selection`, whose `thresholds` were fitted without each fold, and, by None, on all.

    `trials` are the configurations that were selected from, the best one first. Needs a connected Ray. Raises
    KeyboardInterrupt where the study was asked to stop.
    """
    table = plan.study.postprocess
    judged = choose_images(plan)
    if table.tta:
        _predict_tta(plan, trials, judged, results)
    ways = (*WAYS, TTA) if table.tta else WAYS
    weights = {fold: _weights(trials, selection, fold) for fold in (None, *range(len(plan.folds)))}
    search = Search(
        name=POSTPROCESS,
        suggest=partial(_suggest, ways=ways, weights=weights, objective=table.objective),
        evaluate=_evaluator(judged, table.objective, results, plan.prepared.place),
        score=_score,
        scores=(table.objective,),
        baseline=lambda held_out: _baseline(thresholds[held_out]),
        trials=table.trials,
        seed=plan.study.seed,
        about={
            "weights": {str(fold): list(choices.values()) for fold, choices in weights.items()},
            "ways": ways,
            "objective": table.objective,
            "images": [one.image.sha256 for one in judged],
        },
    )
    return Footprints(table.objective, search_nested(search, len(plan.folds), results, StopFile(results).requested))


def _weights(trials: Sequence[int], selection: Selection, fold: int | None) -> dict[str, dict[str, float]]:
    """Return the weights by name that a search may choose from which does not see `fold`; JSON has keys as texts."""
    selected = selection.weights if fold is None or not selection.nested else selection.nested[fold]
    choices = {SELECTED: selected, MEAN: equal(trials), BEST: {trials[0]: 1.0}}
    return {name: {str(trial): weight for trial, weight in w.items()} for name, w in choices.items()}


def _baseline(threshold: float) -> Params:
    """Return what is done without a search: the fitted threshold, and the rules' own values."""
    return {
        "weights": SELECTED,
        "probs": PLAIN,
        "threshold": round(min(max(threshold, 0.05), 0.95), 2),
        "min_area_m2": PolygonRules().min_area_m2,
        "seeds": False,
    }


def _suggest(
    trial: optuna.trial.BaseTrial,
    held_out: int | None,
    ways: Sequence[str],
    weights: Mapping[int | None, Mapping[str, Mapping[str, float]]],
    objective: str,
) -> Params:
    several = len(weights[None][MEAN]) > 1
    chosen = trial.suggest_categorical("weights", (SELECTED, MEAN, BEST)) if several else SELECTED
    rules = {
        "threshold": trial.suggest_float("threshold", 0.05, 0.95, step=0.01),
        "min_area_m2": trial.suggest_float("min_area_m2", 0.0, 150.0, step=5.0),
    }
    way = trial.suggest_categorical("probs", tuple(ways))
    # Seeds part footprints that touch, and change no pixel.
    if objective == "f1" and trial.suggest_categorical("seeds", (False, True)):
        above = trial.suggest_float("seed_level", 0.0, 1.0, step=0.05)  # 0: at the threshold, 1: at 1
        rules["seed_level"] = round(rules["threshold"] + above * (1 - rules["threshold"]), 4)
        rules["seed_smoothing"] = trial.suggest_float("seed_smoothing", 0.0, 2.0, step=0.25)
    return {"weights": dict(weights[held_out][chosen]), "probs": way, "rules": rules}


def choose_images(plan: Plan) -> list[Judged]:
    """Return the images that footprints are judged on, with their truth, fold by fold."""
    prepared = plan.prepared
    return [
        Judged(image, fold, true_footprints(image, prepared))
        for fold, split in enumerate(plan.folds)
        for scene in split.validation
        for image in prepared.scene_images(scene, plan.study.postprocess.images_per_scene, spread=True)
    ]


def _evaluator(
    judged: Sequence[Judged], objective: str, results: Path, place: str | Path
) -> Callable[[Params, int], Counts]:
    """Return a function of parameters and a fold; the images of one are judged at once, each a Ray task."""
    task = ray.remote(num_cpus=1)(count)
    by_fold: dict[int, list[ray.ObjectRef]] = {}
    for one in judged:
        by_fold.setdefault(one.fold, []).append(ray.put(one))

    def evaluate(params: Params, fold: int) -> Counts:
        counts = [task.remote(one, params, objective, results, place) for one in by_fold[fold]]
        return sum(map(result, counts), start=Counts())

    return evaluate


def _score(counts: Sequence[Counts]) -> tuple[float, ...]:
    """Return Dice, which of footprints is called F1."""
    return (sum(counts, start=Counts()).dice,)


def _predict_tta(plan: Plan, trials: Sequence[int], judged: Sequence[Judged], results: Path) -> None:
    """Predict the judged images with test-time augmentation, each by the fold model that did not train on it."""
    resources = plan.study.resources
    task = ray.remote(num_cpus=resources.cpu, num_gpus=float(resources.gpu))(_predict_fold_tta)
    waiting = [
        task.remote(trial, model, [one for one in judged if one.fold == fold], results, plan.prepared.place)
        for trial in trials
        for fold, split in enumerate(plan.folds)
        if (model := split_folder(results, trial, split.name) / "model").is_dir()
    ]
    for reference in waiting:
        result(reference)


def _predict_fold_tta(trial: int, model: Path, judged: Sequence[Judged], results: Path, place: str | Path) -> None:
    missing = [one.image for one in judged if not probs_path(results, trial, one.image, TTA_PROBS).exists()]
    if not missing:
        return
    predictor, prepared = Symmetries(load_predictor(model)), load_prepared(place)
    for image in missing:
        probs = predict_array(np.ascontiguousarray(prepared.pixels(image)[RGB]), predictor)
        with atomic_file(probs_path(results, trial, image, TTA_PROBS)) as temporary:
            np.save(temporary, probs.astype(np.float16))
