"""The best configurations with other seeds: how far apart do runs of one configuration lie?"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev

from scipy.special import stdtrit

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
    """Return whether the first two trials, by mean Dice over their further seeds, lie inside the noise of the seeds.

    The first value of each, by which it was chosen, is left out: the highest of many is too high. They do unless
    their means differ by more than Welch's t-test allows for at 5 %. Empty where there are fewer than two trials of
    two further seeds.
    """
    known = {trial: dice[1:] for trial, dice in values.items() if len(dice) > 2}
    if len(known) < 2:
        return ""
    first, second = sorted(known, key=lambda trial: -fmean(known[trial]))[:2]
    difference = fmean(known[first]) - fmean(known[second])
    noise = _noise(known[first], known[second])
    told = (
        "they lie inside the noise, so nothing says that the first is the better one"
        if difference <= noise
        else "more than the noise"
    )
    return (
        f"Trial {first} has Dice {_over_seeds(known[first])} and trial {second} {_over_seeds(known[second])}, without "
        f"the seed that each was chosen by ({values[first][0]:.3f} and {values[second][0]:.3f}): {told} "
        f"(they differ by {difference:.3f}; equal ones differ by up to {noise:.3f} in 95 of 100 cases)."
    )


def _noise(first: Sequence[float], second: Sequence[float]) -> float:
    """Return by how much two means over seeds may differ where nothing but the seed does, in 95 of 100 cases.

    The error of the difference times Student's quantile, with the degrees of freedom of Welch (1947).
    """
    parts = [spread(values) ** 2 / len(values) for values in (first, second)]
    if not any(parts):
        return 0.0
    freedom = sum(parts) ** 2 / sum(
        part**2 / (len(values) - 1) for part, values in zip(parts, (first, second), strict=True)
    )
    return float(sum(parts) ** 0.5 * stdtrit(freedom, 0.975))


def _over_seeds(values: Sequence[float]) -> str:
    return f"{fmean(values):.3f} ± {spread(values):.3f} over {len(values)} further seeds"
