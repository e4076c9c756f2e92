"""Study + prepared data → what will be run: splits, folds, tiles and epochs; `--dry-run` prints it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from sn7.errors import SplitInvalid
from sn7.folds import Split, clusters, fold_split, leaks, named_split
from sn7.prepared import Prepared
from sn7.splitreport import choose_folds
from sn7.tiles import sampling, training_tiles, validation_tiles
from sweep.halving import KEPT, rungs
from sweep.search import earlier_trials, next_trial, open_optuna
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
    def rungs(self) -> tuple[int, ...]:
        """Steps (epochs over all splits of a trial) at which trials are compared."""
        return rungs(self.study.base.epochs, len(self.validation), self.study.grace)

    @property
    def expected_epochs(self) -> int:
        """Epochs of all trials, if half go on at each rung, and the notebook recipe to its end."""
        steps = len(self.validation) * self.study.base.epochs
        ends = (*self.rungs, steps)
        legs = zip((0, *ends), ends, strict=False)
        each = sum((end - start) / KEPT**passed for passed, (start, end) in enumerate(legs))
        return steps + round((self.study.trials - 1) * each)

    @property
    def later(self) -> tuple[int, int]:
        """Trainings after the search, stage by stage: of further seeds, then of folds, but for those of the trials."""
        seeds = self.study.refit * (self.study.repeats - 1) * len(self.validation)
        return seeds, 0 if self.validation == self.folds else self.study.refit * len(self.folds)

    @property
    def repeat_epochs(self) -> int:
        """Epochs of the further seeds of the best configurations."""
        return self.later[0] * self.study.base.epochs

    @property
    def fold_epochs(self) -> int:
        """Epochs of the cross-validation; none where the trials have trained the folds already."""
        return self.later[1] * self.study.base.epochs


def make_plan(study: Study, prepared: Prepared) -> Plan:
    """Divide the scenes as the study asks.

    Raises SplitInvalid where there are more folds than clusters of scenes, or a split finds no scenes.
    """
    folds = choose_folds(study.folds, prepared, study.seed)
    splits = tuple(fold_split(folds, k) for k in range(len(folds)))
    validation = splits if study.validation == "folds" else (named_split(study.validation, prepared),)
    for split in dict.fromkeys((*validation, *splits)):  # with validation = "folds" they are the same
        _require_buildings(split, prepared, study)
    return Plan(study, prepared, validation, splits)


def _require_buildings(split: Split, prepared: Prepared, study: Study) -> None:
    """Raise SplitInvalid where a split has nothing to train on, or no building to be measured by."""
    fewest = min((*study.space.values("images_per_scene"), study.base.images_per_scene))
    training_tiles(prepared, split.training, replace(study.base, images_per_scene=fewest))
    measured = [
        image for scene in split.validation for image in prepared.scene_images(scene, study.base.validation_images)
    ]
    if not any(image.building_share > 0 for image in measured):
        raise SplitInvalid(
            f"split {split.name} has no building in the {len(measured)} images that it validates on; raise "
            "validation_images, or choose another split or seed."
        )


def describe(plan: Plan, measured: Mapping[str, float] | None = None) -> str:
    """Return the plan for people: what is trained on what, the first configurations, and the cost.

    `measured` may hold seconds_per_epoch, of one trial, and price_per_hour, in dollars, of one trial's share of a
    node; what the study costs is unknown without.
    """
    study, prepared = plan.study, plan.prepared
    base, space = study.base, study.space
    gpu = "as much of a GPU as it needs (auto)" if study.resources.auto else f"{study.resources.gpu:g} GPU"
    lines = [
        f"study {study.name}: {study.trials} trials of {base.epochs} epochs, each on "
        f"{study.resources.cpu} CPU and {gpu}",
        f"data: {len(prepared.scenes)} scenes in {len(set(clusters(prepared.centres()).values()))} clusters, "
        f"{sum(image.labelled for image in prepared.images)} of {len(prepared.images)} images labelled, "
        f"fingerprint {prepared.fingerprint[:12]}",
        *(_split_line(split, plan) for split in plan.validation),
        *leak_warnings(plan),
        "search:" if space.size is None else f"search of {space.size} configurations, none of them twice:",
        *(f"  {line}" for line in space.describe()),
        "fixed: " + _values({name: value for name, value in base.to_dict().items() if name not in study.search}),
        *_elsewhere(plan),
        *_first_lines(study),
        f"cross-validation: best {study.refit} on {len(plan.folds)} folds of "
        + ", ".join(str(len(split.validation)) for split in plan.folds)
        + " scenes",
        *_repeat_lines(plan),
        *_footprint_lines(plan),
        *_epoch_lines(plan),
        *_budget_lines(study),
        _cost_line(plan, measured or {}),
    ]
    return "\n".join(lines)


def _split_line(split: Split, plan: Plan) -> str:
    base = plan.study.base
    training = len(training_tiles(plan.prepared, split.training, base))
    seen = sampling(plan.prepared, split.training, base, training)
    validation = len(validation_tiles(plan.prepared, split.validation, base))
    steps = max(1, training // base.batch_size)
    return (
        f"split {split.name}: {len(split.training)} scenes to train on, {len(split.validation)} to validate on; "
        f"an epoch has {training} training tiles ({steps} steps; [search] may change them) of {seen.images} of "
        f"{seen.labelled} labelled images, {seen.tiles_left_out} tiles left out, and {validation} validation tiles"
    )


def leak_warnings(plan: Plan) -> list[str]:
    """Return a sentence for each pair of neighbours that the search, or the cross-validation, trains and validates on.

    Only folds by hand have such pairs.
    """
    centres = plan.prepared.centres()
    return [
        f"warning: split {split.name} trains on {a}, {km:.0f} km from {b}, which it validates on"
        for split in dict.fromkeys((*plan.validation, *plan.folds))
        for a, b, km in leaks(split, centres)
    ]


def _elsewhere(plan: Plan) -> list[str]:
    """Return a line with what the fields are that do not vary everywhere, where they do not."""
    base = plan.study.base.to_dict()
    kept = {name: base[name] for name in plan.study.space.conditional}
    return ["where they do not vary: " + _values(kept)] if kept else []


def _first_lines(study: Study) -> list[str]:
    """Return the first configurations, drawn as the search draws them, and what an earlier study gives to it."""
    earlier, left_out = earlier_trials(study, None)
    opened = open_optuna(study, None)
    lines = ["the first configurations (later ones depend on results):"]
    for number in range(min(SHOWN, study.trials)):
        trial = next_trial(opened, study, earlier)
        if trial is not None:
            lines.append(f"  {number}. {_values(trial.params)}")
    if study.warm_start:
        example = f" ({left_out[0]})" if left_out else ""
        lines.append(
            f"warm start: {len(earlier)} trials of {study.warm_start} inform the search, "
            f"{len(left_out)} are left out{example}"
        )
    return lines


def _repeat_lines(plan: Plan) -> list[str]:
    study = plan.study
    if study.repeats == 1:
        return []
    names = ", ".join(split.name for split in plan.validation)
    return [f"repeats: best {study.refit} with {study.repeats} seeds each on {names}, the trial's own among them"]


def _footprint_lines(plan: Plan) -> list[str]:
    table, folds = plan.study.postprocess, len(plan.folds)
    if not table.trials:
        return []
    judge = {"f1": "F1 of footprints at IoU 0.25", "dice": "Dice of pixels"}[table.objective]
    augmented = "; test-time augmentation is tried, too" if table.tta else ""
    return [
        f"footprints: {table.trials} parameters tried for each of {folds} folds on the others, and on all, by {judge} "
        f"on {table.images_per_scene} images a scene at most, without training{augmented}"
    ]


def _epoch_lines(plan: Plan) -> list[str]:
    repeats = f" and {plan.repeat_epochs} of repeats" if plan.repeat_epochs else ""
    pruning = (
        f"pruning begins at epoch {plan.rungs[0]} and keeps about half at each rung "
        f"({_rungs(plan.rungs, plan.study.base.epochs)}): about {plan.expected_epochs} epochs of trials"
        if plan.rungs
        else "nothing is pruned"
    )
    return [
        f"training: at most {plan.trial_epochs} epochs of trials and {plan.fold_epochs} of cross-validation{repeats}; "
        + pruning
    ]


def _rungs(steps: tuple[int, ...], epochs: int) -> str:
    """Return rungs in words: epochs of the first split, then the number of splits that were trained to their end."""
    early = [str(step) for step in steps if step < epochs]
    late = [str(step // epochs) for step in steps if step >= epochs]
    parts = ["epochs " + ", ".join(early)] if early else []
    if late:
        parts.append("after " + " and ".join(late) + (" split" if late == ["1"] else " splits"))
    return ", then ".join(parts)


def _budget_lines(study: Study) -> list[str]:
    limits = [
        (study.max_hours, f"{study.max_hours:g} hours"),
        (study.max_gpu_hours, f"{study.max_gpu_hours:g} GPU hours"),
        (study.max_cost, f"${study.max_cost:.2f}"),
    ]
    lines = []
    if study.prices:
        prices = [f"{'others' if kind == 'default' else kind} ${price:.2f}" for kind, price in study.prices.items()]
        lines.append("a node-hour costs, by type: " + ", ".join(prices))
    if any(limit for limit, _ in limits):
        budgets = ", ".join(text for limit, text in limits if limit)
        lines.append(f"budget: {budgets}; the search ends while what is left still pays for the cross-validation")
    if study.patience:
        lines.append(f"patience: the search ends when {study.patience} trials in a row have ended without a new best")
    return lines


def _cost_line(plan: Plan, measured: Mapping[str, float]) -> str:
    seconds = measured.get("seconds_per_epoch")
    if seconds is None:
        return "cost: unknown until --preflight or the first epochs have measured an epoch"
    later = plan.fold_epochs + plan.repeat_epochs
    most, expected = (
        _hours((epochs + later) * seconds / 3600, measured.get("price_per_hour"))
        for epochs in (plan.trial_epochs, plan.expected_epochs)
    )
    return f"cost: at most {most}, expected {expected} (at {seconds:.3g} s an epoch, all trials one after the other)"


def _hours(hours: float, price: float | None) -> str:
    return f"{hours:.1f} h" if price is None else f"{hours:.1f} h and ${hours * price:.2f}"


def _values(values: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}" for name, value in values.items()
    )
