"""The way from images to footprints, tuned on out-of-fold probs without training anything.

Searched are the ensemble's weights, pooling over months or test-time augmentation, threshold, seeds, and the least
area of a footprint; nested over the folds (see sweep.nested). Of each scene some images are judged, which bounds the
time; of test-time augmentation the mean over its eight symmetries is kept, of these images alone, since all eight of
all images would take eight times the disk that out-of-fold probs take.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import optuna
import ray

from sn7.ensemble import load_predictor
from sn7.files import atomic_file
from sn7.folds import clusters
from sn7.metrics import Counts
from sn7.prepared import RGB, PreparedImage, load_prepared
from sn7.rules import PolygonRules
from sn7.symmetries import Symmetries
from sn7.windows import predict_array
from sweep.fits import result
from sweep.footprints import POSTPROCESS, ByScene, Footprints
from sweep.found import Params
from sweep.judge import PLAIN, TTA, WAYS, Judged, count, true_footprints
from sweep.nested import Search, search_nested
from sweep.oof import TTA_PROBS, equal, probs_path
from sweep.plan import Plan
from sweep.selection import Selection
from sweep.stage import Stage
from sweep.trial import split_folder

__all__ = ["choose_images", "tune"]

SELECTED, MEAN, BEST = "selected", "mean", "best alone"
"""Weights of the configurations: as selected greedily, equal ones, or the best one alone."""


def tune(
    plan: Plan,
    trials: Sequence[int],
    selection: Selection,
    thresholds: Mapping[int | None, float],
    results: Path,
    stage: Stage,
) -> Footprints:
    """Tune for the mean of `selection`, whose `thresholds` were fitted without each fold, and, by None, on all.

    `trials` are the configurations that were selected from, the best one first. Needs a connected Ray. Raises
    KeyboardInterrupt where the study was asked to stop.
    """
    table = plan.study.postprocess
    judged = choose_images(plan)
    if table.tta:
        _predict_tta(plan, trials, judged, results, stage)
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
    tuned = search_nested(search, len(plan.folds), results, stage.beat)
    return Footprints(table.objective, tuned, clusters(plan.prepared.centres()), plan.study.seed)


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
) -> Callable[[Params, int], ByScene]:
    """Return a function of parameters and a fold; the images of one are judged at once, each a Ray task."""
    task = ray.remote(num_cpus=1)(count)
    by_fold: dict[int, list[tuple[str, ray.ObjectRef]]] = {}
    for one in judged:
        by_fold.setdefault(one.fold, []).append((one.image.scene, ray.put(one)))

    def evaluate(params: Params, fold: int) -> ByScene:
        waiting = [(scene, task.remote(one, params, objective, results, place)) for scene, one in by_fold[fold]]
        counts: dict[str, Counts] = {}
        for scene, reference in waiting:
            counts[scene] = counts.get(scene, Counts()) + result(reference)
        return counts

    return evaluate


def _score(folds: Sequence[ByScene]) -> tuple[float, ...]:
    """Return Dice, which of footprints is called F1."""
    return (sum((counts for fold in folds for counts in fold.values()), start=Counts()).dice,)


def _predict_tta(plan: Plan, trials: Sequence[int], judged: Sequence[Judged], results: Path, stage: Stage) -> None:
    """Predict the judged images with test-time augmentation, each by the fold model that did not train on it."""
    tasks = []
    for trial, (fold, split) in product(trials, enumerate(plan.folds)):
        images = [one.image for one in judged if one.fold == fold]
        missing = [image for image in images if not probs_path(results, trial, image, TTA_PROBS).exists()]
        if missing:
            model = split_folder(results, trial, split.name) / "model"
            tasks.append((trial, model, missing, results, plan.prepared.place))
    for _ in stage.run(_predict_fold_tta, tasks, "folds with all symmetries", as_trials=True):
        pass


def _predict_fold_tta(
    trial: int, model: Path, images: Sequence[PreparedImage], results: Path, place: str | Path
) -> None:
    predictor, prepared = Symmetries(load_predictor(model)), load_prepared(place)
    for image in images:
        probs = predict_array(np.ascontiguousarray(prepared.pixels(image)[RGB]), predictor)
        with atomic_file(probs_path(results, trial, image, TTA_PROBS)) as temporary:
            np.save(temporary, probs.astype(np.float16))
