"""The best configurations with other seeds: how far apart do runs of one configuration lie?"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev

from sn7.folds import Split
from sn7.train import read_result
from sweep.budget import Budget
from sweep.crossval import Member
from sweep.fence import newest
from sweep.fits import Fit, Told, run_fits
from sweep.study import Study
from sweep.trial import base_folder

__all__ = ["noise_sentence", "repeat", "repeat_values", "spread"]


def repeat(
    members: Sequence[Member],
    splits: Sequence[Split],
    study: Study,
    results: Path,
    prepared: str | Path,
    budget: Budget,
    told: Told,
) -> Iterator[tuple[Fit, str]]:
    """Train each member with the seeds after its own, on the splits of the search; see run_fits for the rest."""
    fits = [
        fit
        for member in members
        for number in range(1, study.repeats)
        for fit in _fits(member, number, splits, results)
    ]
    return run_fits(fits, "repeats", study, results, prepared, budget, None, told)


def _fits(member: Member, number: int, splits: Sequence[Split], results: Path) -> list[Fit]:
    config = replace(member.config, seed=member.config.seed + number)
    return [
        Fit(
            member.trial,
            f"seed {config.seed}",
            number,
            config,
            split,
            _folder(results, member.trial, number, split),
            "best",
        )
        for split in splits
    ]


def _folder(results: Path, trial: int, number: int, split: Split) -> Path:
    folder = base_folder(results, trial, split.name)
    return folder.with_name(f"{folder.name}-repeat-{number}")


def repeat_values(trial: int, first: float, splits: Sequence[Split], repeats: int, results: Path) -> list[float]:
    """Return a trial's Dice with each seed: its own, `first`, then the repeats that were trained on every split."""
    values = [first]
    for number in range(1, repeats):
        found = [read_result(newest(_folder(results, trial, number, split))) for split in splits]
        trained = [result.best.dice for result in found if result is not None]
        if len(trained) == len(splits):
            values.append(fmean(trained))
    return values


def spread(values: Sequence[float]) -> float:
    """Return the sample standard deviation, 0 of a single value."""
    return stdev(values) if len(values) > 1 else 0.0


def noise_sentence(values: Mapping[int, Sequence[float]]) -> str:
    """Return whether the first two trials, by mean Dice over their seeds, lie inside the noise of the seeds.

    They do where their means differ by less than twice the standard error of the difference. Empty where there are
    fewer than two trials of two seeds.
    """
    known = {trial: dice for trial, dice in values.items() if len(dice) > 1}
    if len(known) < 2:
        return ""
    first, second = sorted(known, key=lambda trial: -fmean(known[trial]))[:2]
    difference = fmean(known[first]) - fmean(known[second])
    error = sum(spread(known[trial]) ** 2 / len(known[trial]) for trial in (first, second)) ** 0.5
    told = (
        "they lie inside the noise, so nothing says that the first is the better one"
        if difference < 2 * error
        else "more than the noise"
    )
    return (
        f"Over {len(known[first])} seeds trial {first} has Dice {fmean(known[first]):.3f} ± {spread(known[first]):.3f} "
        f"and trial {second} {fmean(known[second]):.3f} ± {spread(known[second]):.3f}: {told} (they differ by "
        f"{difference:.3f}, twice the standard error of that is {2 * error:.3f})."
    )
