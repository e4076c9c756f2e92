"""The rules of tracking, tuned on a study's out-of-fold probs against the truth's own identities.

Pooling over months, threshold, least area, ghosts, bridging, and what a change must show: searched with Optuna for SCOT
and F1@0.25 at once, nested over the folds (see sweep.nested), in tasks of a scene each; no GPU is needed. Beside what
is found stand the rules as they ship and naive matching month by month, at the threshold of the study's ensemble.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import optuna
import ray

from sn7.challenge import Tracks
from sn7.errors import MonthsInvalid, StudyInvalid
from sn7.metrics import Counts
from sn7.prepared import VALID
from sn7.score.inputs import find_sources, scene_tracks
from sn7.score.scot import MATCH_IOU, SceneScore, f1, score_scene
from sn7.storage import local
from sn7.tracking.config import NAIVE, TrackConfig
from sn7.tracking.months import Months
from sn7.tracking.track import track
from sweep.fits import result
from sweep.found import Params, Tuned
from sweep.nested import Search, search_nested
from sweep.oof import Weights, mean_probs
from sweep.plan import Plan
from sweep.selection import Selection
from sweep.stopping import StopFile

__all__ = ["NAME", "TunedTracks", "Way", "tune_tracks"]

NAME = "tracking"
LONGEST = 12
"""Months; no rule is tried that asks for more."""


@dataclass(frozen=True)
class Way:
    """Rules of tracking, fold by fold, and what they score on each scene."""

    name: str
    rules: tuple[TrackConfig, ...]
    scores: Mapping[str, SceneScore]
    """By scene, in order of the folds."""

    def metrics(self) -> dict[str, float]:
        """Return SCOT and its terms as means over the scenes, and F1@0.25 of summed counts."""
        scores = list(self.scores.values())
        scot, f1_sum = _score([scores])
        terms = {name: fmean(getattr(score, name) for score in scores) for name in ("f_track", "f_change")}
        return {"f1": f1_sum, **terms, "scot": scot}


@dataclass(frozen=True)
class TunedTracks:
    """What the tuning found."""

    tuned: Tuned[list[SceneScore]]
    rules: TrackConfig
    """Chosen on all folds: what to track with."""
    ways: tuple[Way, ...]
    """Naive; the rules as they ship; tuned on the other folds; tuned on all, which is flattering."""
    left_out: tuple[str, ...]
    """A sentence for each scene that could not be used."""


@dataclass(frozen=True, eq=False)
class _Scene:
    """A scene whose months and truth lie in Ray's store, and nowhere else: all scenes' are gigabytes."""

    name: str
    fold: int
    months: int
    content: ray.ObjectRef
    """Of (Months, Tracks)."""


def tune_tracks(
    plan: Plan, selection: Selection, thresholds: Mapping[int | None, float], results: Path, tries: int
) -> TunedTracks:
    """Tune for an ensemble, by what `read_chosen` says of it; `tries` rules for each fold on the others, and for all.

    Needs a connected Ray. Raises StudyInvalid where the data has no identities or too few months, KeyboardInterrupt
    where the study was asked to stop.
    """
    stop = StopFile(results)
    scenes, left_out = _scenes(plan, selection.nested, results, stop)
    tasks = _Tasks(scenes)
    longest = min(LONGEST, max(scene.months for scene in scenes))
    search = Search(
        name=NAME,
        suggest=lambda trial, held_out: _suggest(trial, longest),
        evaluate=lambda params, fold: list(tasks.scores(TrackConfig.from_dict(params), fold).values()),
        score=_score,
        scores=("scot", "f1"),
        baseline=lambda held_out: _baseline(thresholds[held_out], longest),
        trials=tries,
        seed=plan.study.seed,
        about={
            "weights": [list(weights.items()) for weights in (selection.weights, *selection.nested)],
            "data": plan.prepared.fingerprint,
            "scenes": [scene.name for scene in scenes],
        },
    )
    folds = range(len(plan.folds))
    tuned = search_nested(search, len(folds), results, stop.obey)
    rules = TrackConfig.from_dict(tuned.params)
    ways = {
        "naive": [TrackConfig.from_dict({"threshold": _rounded(thresholds[fold])}, NAIVE) for fold in folds],
        "as shipped": [TrackConfig(threshold=_rounded(thresholds[fold])) for fold in folds],
        "tuned": [TrackConfig.from_dict(found.params) for found in tuned.found[:-1]],
        "tuned on all": [rules for _ in folds],
    }
    return TunedTracks(tuned, rules, tuple(tasks.way(name, chosen) for name, chosen in ways.items()), left_out)


def _scenes(
    plan: Plan, weights: Sequence[Weights], results: Path, stop: StopFile
) -> tuple[list[_Scene], tuple[str, ...]]:
    """Return the scenes with their out-of-fold probs and their truth, and a sentence for each that is left out."""
    sources, scenes, left_out = find_sources(local(plan.study.data)), [], []
    for fold, split in enumerate(plan.folds):
        for name in split.validation:
            stop.obey()
            images = [image for image in plan.prepared.scene_images(name) if image.labelled]
            probs = []
            for image in images:
                probs.append(mean_probs(weights[fold], results, image))
                probs[-1][plan.prepared.pixels(image)[VALID] == 0] = np.nan
            truth = scene_tracks(name, sources.get(name), None, truth=True)
            try:
                months = Months.of_probs(name, [image.date for image in images], probs)
            except MonthsInvalid as error:
                left_out.append(str(error))
                continue
            if not truth.identified:
                left_out.append(f"scene {name} has true footprints without an Id; wanted one for each building.")
                continue
            scenes.append(_Scene(name, fold, len(months.dates), ray.put((months, truth.tracks))))
    empty = set(range(len(plan.folds))) - {scene.fold for scene in scenes}
    if empty:
        raise StudyInvalid(f"fold {min(empty)} has no scene to tune tracking on: {' '.join(left_out)}")
    return scenes, tuple(left_out)


class _Tasks:
    """Tracks and scores scenes, each in a Ray task."""

    def __init__(self, scenes: Sequence[_Scene]) -> None:
        self._task = ray.remote(num_cpus=1)(_score_scene)
        self._scenes = scenes

    def scores(self, rules: TrackConfig, fold: int) -> dict[str, SceneScore]:
        """Return the scores of a fold's scenes."""
        waiting = {s.name: self._task.remote(s.content, rules) for s in self._scenes if s.fold == fold}
        return {name: result(reference) for name, reference in waiting.items()}

    def way(self, name: str, rules: Sequence[TrackConfig]) -> Way:
        """Return what rules, one set a fold, score."""
        scores: dict[str, SceneScore] = {}
        for fold, chosen in enumerate(rules):
            scores |= self.scores(chosen, fold)
        return Way(name, tuple(rules), scores)


def _score_scene(content: tuple[Months, Tracks], rules: TrackConfig) -> SceneScore:
    months, truth = content
    return score_scene(truth, track(months, rules).tracks)


def _score(folds: Sequence[Sequence[SceneScore]]) -> tuple[float, float]:
    """Return the mean SCOT of the scenes of several folds, and F1@0.25 of their summed counts."""
    scores = [score for fold in folds for score in fold]
    counts = sum((score.matches[MATCH_IOU] for score in scores), start=Counts())
    return fmean(score.scot for score in scores), f1(counts)


def _rounded(threshold: float) -> float:
    return round(min(max(threshold, 0.1), 0.95), 2)


def _baseline(threshold: float, longest: int) -> Params:
    """Return what `_suggest` is to draw for the rules as they ship, at a threshold."""
    values: dict[str, Any] = {
        **TrackConfig().to_dict(),
        "threshold": _rounded(threshold),
        "seeds": TrackConfig().seed_level > 0,
    }
    months = ("min_months", "pool_months", "new_months", "gone_months")
    return values | {name: min(values[name], longest) for name in months}


def _suggest(trial: optuna.trial.BaseTrial, longest: int) -> Params:
    """Draw rules; those of the other method stay as they ship."""
    method = trial.suggest_categorical("method", ("pool", "match"))
    drawn: Params = {
        "method": method,
        "threshold": trial.suggest_float("threshold", 0.1, 0.95, step=0.01),
        "min_area_px": trial.suggest_float("min_area_px", 0.0, 20.0, step=1.0),
        "min_months": trial.suggest_int("min_months", 1, min(longest, 6)),
        "fill_unseen": trial.suggest_categorical("fill_unseen", (False, True)),
    }
    if trial.suggest_categorical("seeds", (False, True)):
        drawn["seed_level"] = trial.suggest_float("seed_level", 0.3, 1.0, step=0.05)
        drawn["seed_smoothing"] = trial.suggest_float("seed_smoothing", 0.0, 2.0, step=0.25)
    else:
        drawn["seed_level"] = 0.0
    if method == "match":
        drawn["match_iou"] = trial.suggest_float("match_iou", 0.0, 0.6, step=0.05)
        drawn["bridge_months"] = trial.suggest_int("bridge_months", 0, longest)
        return drawn
    return drawn | {
        "pool_doubt": trial.suggest_float("pool_doubt", 0.0, 1.0, step=0.05),
        "pool_months": trial.suggest_int("pool_months", 1, longest),
        "present_share": trial.suggest_float("present_share", 0.2, 1.2, step=0.05),
        "min_valid": trial.suggest_float("min_valid", 0.1, 1.0, step=0.1),
        "new_months": trial.suggest_int("new_months", 1, min(longest, 4)),
        "gone_months": trial.suggest_int("gone_months", 1, longest),
        "change_cost": trial.suggest_float("change_cost", 0.0, 8.0, step=0.5),
    }
