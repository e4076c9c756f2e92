"""Study + prepared data → what will be run: splits, folds, tiles and epochs; `--dry-run` prints it."""

from dataclasses import dataclass, replace
from typing import Any

from sn7.errors import SplitInvalid
from sn7.folds import Split, building_pixels, clusters, fold_split, leaks, make_folds, named_split
from sn7.loader import training_tiles, validation_tiles
from sn7.prepared import Prepared
from sweep.search import open_optuna
from sweep.study import Study

__all__ = ["Plan", "describe", "leak_warnings", "make_plan"]

SHOWN = 5
"""Configurations that a dry run draws."""


@dataclass(frozen=True)
class Plan:
    """A study resolved against its data."""

    study: Study
    prepared: Prepared
    validation: tuple[Split, ...]
    """What every trial trains on, one after the other."""
    folds: tuple[Split, ...]
    """What the best configurations are trained on."""

    @property
    def trial_epochs(self) -> int:
        """Epochs of all trials, if none is pruned."""
        return self.study.trials * len(self.validation) * self.study.base.epochs

    @property
    def fold_epochs(self) -> int:
        """Epochs of the cross-validation; none where the trials have trained the folds already."""
        already = self.validation == self.folds
        return 0 if already else self.study.refit * len(self.folds) * self.study.base.epochs


def make_plan(study: Study, prepared: Prepared) -> Plan:
    """Divide the scenes as the study asks.

    Raises SplitInvalid where there are more folds than clusters of scenes, or a split finds no scenes.
    """
    folds = make_folds(prepared.centres(), building_pixels(prepared), study.folds, study.seed)
    splits = tuple(fold_split(folds, k) for k in range(study.folds))
    validation = splits if study.validation == "folds" else (named_split(study.validation, prepared),)
    for split in (*validation, *splits):
        _require_buildings(split, prepared, study)
    return Plan(study, prepared, validation, splits)


def _require_buildings(split: Split, prepared: Prepared, study: Study) -> None:
    """Raise SplitInvalid where a split has nothing to train on, or no building to be measured by."""
    fewest = min(getattr(study.space.get("images_per_scene"), "choices", (study.base.images_per_scene,)))
    training_tiles(prepared, split.training, replace(study.base, images_per_scene=fewest))
    measured = [
        image for scene in split.validation for image in prepared.scene_images(scene, study.base.validation_images)
    ]
    if not any(image.building_share > 0 for image in measured):
        raise SplitInvalid(
            f"split {split.name} has no building in the {len(measured)} images that it validates on; raise "
            "validation_images, or choose another split or seed."
        )


def describe(plan: Plan) -> str:
    """Return the plan for people: what is trained on what, the first configurations, and the cost in epochs."""
    study, prepared = plan.study, plan.prepared
    base = study.base
    lines = [
        f"study {study.name}: {study.trials} trials of {base.epochs} epochs, each on "
        f"{study.resources.cpu} CPU and {study.resources.gpu:g} GPU",
        f"data: {len(prepared.scenes)} scenes in {len(set(clusters(prepared.centres()).values()))} clusters, "
        f"{sum(image.labelled for image in prepared.images)} of {len(prepared.images)} images labelled, "
        f"fingerprint {prepared.fingerprint[:12]}",
        *(_split_line(split, plan) for split in plan.validation),
        *leak_warnings(plan),
        f"cross-validation: best {study.refit} on {study.folds} folds of "
        + ", ".join(str(len(split.validation)) for split in plan.folds)
        + " scenes",
        "the first configurations (later ones depend on results):",
        *(f"  {i}. {_values(values)}" for i, values in enumerate(_first(study))),
        "fixed: " + _values({name: value for name, value in base.to_dict().items() if name not in study.search}),
        f"cost: at most {plan.trial_epochs} epochs of trials and {plan.fold_epochs} of cross-validation; "
        f"pruning begins at epoch {study.grace} and keeps about a third at each rung "
        f"({_rungs(study, len(plan.validation))})",
    ]
    return "\n".join(lines)


def _split_line(split: Split, plan: Plan) -> str:
    training = len(training_tiles(plan.prepared, split.training, plan.study.base))
    validation = len(validation_tiles(plan.prepared, split.validation, plan.study.base))
    steps = max(1, training // plan.study.base.batch_size)
    return (
        f"split {split.name}: {len(split.training)} scenes to train on, {len(split.validation)} to validate on; "
        f"an epoch has {training} training tiles ({steps} steps; [search] may change them) and {validation} "
        "validation tiles"
    )


def leak_warnings(plan: Plan) -> list[str]:
    """Return a sentence for each pair of neighbouring scenes that the search trains and validates on."""
    centres = plan.prepared.centres()
    return [
        f"warning: split {split.name} trains on {a}, {km:.0f} km from {b}, which it validates on"
        for split in plan.validation
        for a, b, km in leaks(split, centres)
    ]


def _first(study: Study) -> list[dict[str, Any]]:
    drawn = open_optuna(study, None)
    return [drawn.ask(study.space).params for _ in range(min(SHOWN, study.trials))]


def _rungs(study: Study, splits: int) -> str:
    steps = study.base.epochs * splits
    rungs = [study.grace]
    while rungs[-1] * 3 < steps:
        rungs.append(rungs[-1] * 3)
    return "epochs " + ", ".join(map(str, rungs))


def _values(values: dict[str, Any]) -> str:
    return ", ".join(
        f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}" for name, value in values.items()
    )
