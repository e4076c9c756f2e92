"""Folds as a study or a person asks for them, and what they and the named splits hold and leak, in words."""

from pathlib import Path

from sn7.errors import SplitInvalid
from sn7.folds import (
    CLUSTER_KM,
    NAMED_SPLITS,
    Split,
    building_pixels,
    clusters,
    fold_split,
    leaks,
    make_folds,
    named_split,
)
from sn7.foldsfile import read_folds
from sn7.prepared import Prepared

__all__ = ["choose_folds", "describe_folds"]


def choose_folds(folds: int | str, prepared: Prepared, seed: int) -> list[list[str]]:
    """Return `folds` folds of whole clusters, balanced by building pixels, or those of the file that it names.

    Raises SplitInvalid where they cannot be made, or the file is not right.
    """
    if isinstance(folds, int) or folds.isdecimal():
        return make_folds(prepared.centres(), building_pixels(prepared), int(folds), seed)
    return read_folds(Path(folds), prepared.scenes)


def describe_folds(folds: list[list[str]], prepared: Prepared) -> str:
    """Return a line for each fold, and for each pair of neighbours that the folds or a named split separate."""
    pixels, cluster = building_pixels(prepared), clusters(prepared.centres())
    total = sum(pixels.values()) or 1.0
    lines = [
        f"fold {number}: {len(scenes)} scenes of {len({cluster[scene] for scene in scenes})} clusters, "
        f"{sum(pixels[scene] for scene in scenes) / total:.1%} of the building pixels"
        for number, scenes in enumerate(folds)
    ]
    lines.append("neighbours that are separated, so that one is trained on and the other validates:")
    splits = [fold_split(folds, number) for number in range(len(folds))]
    pairs = {pair for split in splits for pair in leaks(split, prepared.centres()) if pair[0] < pair[1]}
    lines += _leak_lines("the folds", sorted(pairs, key=lambda pair: (pair[2], pair)))
    for name in NAMED_SPLITS:
        split = _named(name, prepared)
        lines += (
            [f"  {name}: none of its scenes is here"]
            if split is None
            else _leak_lines(
                f"{name} ({len(split.validation)} of its {len(NAMED_SPLITS[name])} scenes are here)",
                leaks(split, prepared.centres()),
            )
        )
    return "\n".join(lines)


def _named(name: str, prepared: Prepared) -> Split | None:
    try:
        return named_split(name, prepared)
    except SplitInvalid:
        return None


def _leak_lines(what: str, pairs: list[tuple[str, str, float]]) -> list[str]:
    if not pairs:
        return [f"  {what}: none within {CLUSTER_KM:g} km"]
    return [f"  {what}: {len(pairs)}", *(f"    {a} and {b}, {km:.0f} km" for a, b, km in pairs)]
