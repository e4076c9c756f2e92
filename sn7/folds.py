"""Scenes → geographic clusters → splits and folds.

Neighbouring scenes show the same roofs and the same weather, so a model that trained on one knows the other:
what is split here is whole clusters of scenes, except by the published splits, which straddle some.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sn7.errors import SplitInvalid
from sn7.prepared import Prepared

__all__ = [
    "NAMED_SPLITS",
    "Split",
    "building_pixels",
    "clusters",
    "fold_split",
    "leaks",
    "make_folds",
    "named_split",
    "require_split_name",
]

Centres = Mapping[str, tuple[float, float]]
"""Longitude and latitude of each scene, degrees."""

CLUSTER_KM = 60.0
EARTH_RADIUS_KM = 6371.0088

NAMED_SPLITS: dict[str, tuple[str, ...]] = {
    "notebook": (
        "L15-0457E-1135N_1831_3648_13",
        "L15-0571E-1075N_2287_3888_13",
        "L15-0632E-0892N_2528_4620_13",
        "L15-0924E-1108N_3699_3757_13",
        "L15-1185E-0935N_4742_4450_13",
        "L15-1210E-1025N_4840_4088_13",
        "L15-1438E-1134N_5753_3655_13",
        "L15-1481E-1119N_5927_3715_13",
        "L15-1615E-1205N_6460_3370_13",
    ),
    "lxastro0": (
        "L15-0387E-1276N_1549_3087_13",
        "L15-0566E-1185N_2265_3451_13",
        "L15-0632E-0892N_2528_4620_13",
        "L15-1015E-1062N_4061_3941_13",
        "L15-1200E-0847N_4802_4803_13",
        "L15-1276E-1107N_5105_3761_13",
        "L15-1438E-1134N_5753_3655_13",
        "L15-1615E-1206N_6460_3366_13",
        "L15-1690E-1211N_6763_3346_13",
        "L15-1848E-0793N_7394_5018_13",
    ),
}
"""Validation scenes of splits in use elsewhere; all other scenes are trained on."""


@dataclass(frozen=True)
class Split:
    """Scenes to train on and scenes to validate on.

    Raises SplitInvalid at construction where one of them is empty or a scene is in both.
    """

    name: str
    training: tuple[str, ...]
    validation: tuple[str, ...]

    def __post_init__(self) -> None:
        both = sorted(set(self.training) & set(self.validation))
        if both:
            raise SplitInvalid(f"split {self.name} has {', '.join(both)} in training and in validation; wanted in one.")
        if not self.training or not self.validation:
            raise SplitInvalid(
                f"split {self.name} trains on {len(self.training)} scenes and validates on "
                f"{len(self.validation)}; wanted at least one of each: give another split, or more scenes."
            )


def clusters(centres: Centres, distance_km: float = CLUSTER_KM) -> dict[str, int]:
    """Return the cluster of each scene: scenes at most `distance_km` apart, and their neighbours', share one.

    Clusters are numbered from 0 in the order of their first scene's name.
    """
    names = sorted(centres)
    near = _distances(centres, names, names) <= distance_km
    labels = np.arange(len(names))
    while True:  # each scene takes the lowest label within reach, until none changes
        lowest = np.where(near, labels, len(names)).min(axis=1, initial=len(names))
        if np.array_equal(lowest, labels):
            break
        labels = lowest
    _, numbers = np.unique(labels, return_inverse=True)
    return dict(zip(names, numbers.tolist(), strict=True))


def building_pixels(prepared: Prepared) -> dict[str, float]:
    """Return the valid building pixels of each scene, over all its labelled images."""
    totals = dict.fromkeys(prepared.scenes, 0.0)
    for image in prepared.images:
        totals[image.scene] += image.building_share * image.valid_share * image.height * image.width
    return totals


def make_folds(centres: Centres, weights: Mapping[str, float], k: int, seed: int = 0) -> list[list[str]]:
    """Divide scenes into `k` folds of whole clusters with about the same sum of `weights` (building pixels).

    The heaviest cluster comes first, each into the lightest fold; `seed` varies that order among clusters of
    similar weight. The result does not depend on the order of `centres`.
    Raises SplitInvalid where k is below 2 or above the number of clusters, or `seed` below 0.
    """
    if seed < 0:
        raise SplitInvalid(f"seed = {seed} cannot be used; wanted a whole number from 0.")
    members = _members(clusters(centres))
    if not 2 <= k <= len(members):
        raise SplitInvalid(
            f"{k} folds cannot be made of {_count(len(centres), len(members))}; wanted at least 2 folds and "
            f"a cluster for each: ask for other folds, or add scenes more than {CLUSTER_KM:g} km away."
        )
    sums = np.array([sum(weights[scene] for scene in scenes) for scenes in members])
    order = np.argsort(-sums * np.random.default_rng(seed).uniform(0.75, 1.25, len(sums)), kind="stable")
    folds: list[list[str]] = [[] for _ in range(k)]
    load = np.zeros(k)
    for cluster in order:
        lightest = min(range(k), key=lambda fold: (load[fold], len(folds[fold])))
        folds[lightest] += members[cluster]
        load[lightest] += sums[cluster]
    return [sorted(fold) for fold in folds]


def fold_split(folds: list[list[str]], k: int) -> Split:
    """Return the split that validates on fold `k` (from 0) and trains on all others; its name is fold<k>.

    Raises SplitInvalid where there is no such fold.
    """
    if not 0 <= k < len(folds):
        raise SplitInvalid(f"there is no fold {k}; wanted 0 to {len(folds) - 1}.")
    training = sorted(scene for number, fold in enumerate(folds) if number != k for scene in fold)
    return Split(f"fold{k}", tuple(training), tuple(folds[k]))


def require_split_name(name: str) -> None:
    """Raise SplitInvalid where `name` is none that `named_split` knows."""
    kind, _, seed = name.partition(":")
    if name not in NAMED_SPLITS and not (kind == "random" and seed.isdecimal()):
        known = ", ".join(NAMED_SPLITS)
        raise SplitInvalid(f"{name!r} is no split; wanted {known}, or random:SEED with a whole number, like random:0.")


def named_split(name: str, prepared: Prepared) -> Split:
    """Return the split `notebook`, `lxastro0`, or `random:SEED` (a fifth of the clusters validates).

    Of a published split, those validation scenes count that the data has.
    Raises SplitInvalid for an unknown name, or where nothing is there to validate or to train on.
    """
    require_split_name(name)
    if name in NAMED_SPLITS:
        validation = set(NAMED_SPLITS[name]) & set(prepared.scenes)
        if not validation:
            raise SplitInvalid(
                f"split {name} finds none of its {len(NAMED_SPLITS[name])} validation scenes in "
                f"{prepared.folder}; wanted at least one: use random:SEED or folds, or get the scenes."
            )
    else:
        validation = _random_validation(name, prepared.centres())
    training = tuple(scene for scene in prepared.scenes if scene not in validation)
    return Split(name, training, tuple(sorted(validation)))


def leaks(split: Split, centres: Centres, distance_km: float = CLUSTER_KM) -> list[tuple[str, str, float]]:
    """Return each (training scene, validation scene, km) at most `distance_km` apart, the nearest first."""
    distances = _distances(centres, split.training, split.validation)
    pairs = [
        (split.training[i], split.validation[j], float(distances[i, j]))
        for i, j in np.argwhere(distances <= distance_km).tolist()
    ]
    return sorted(pairs, key=lambda pair: (pair[2], pair))


def _random_validation(name: str, centres: Centres) -> set[str]:
    members = _members(clusters(centres))
    if len(members) < 2:
        raise SplitInvalid(
            f"split {name} needs two clusters of scenes, and {_count(len(centres), len(members))} are there; "
            f"add scenes more than {CLUSTER_KM:g} km away."
        )
    rng = np.random.default_rng(int(name.partition(":")[2]))
    chosen = rng.permutation(len(members))[: max(1, len(members) // 5)]
    return {scene for cluster in chosen for scene in members[cluster]}


def _members(labels: Mapping[str, int]) -> list[list[str]]:
    """Return the scenes of each cluster, both in order."""
    groups: list[list[str]] = [[] for _ in range(len(set(labels.values())))]
    for scene in sorted(labels):
        groups[labels[scene]].append(scene)
    return groups


def _distances(
    centres: Centres, rows: list[str] | tuple[str, ...], columns: list[str] | tuple[str, ...]
) -> npt.NDArray[np.float64]:
    """Return the great-circle distances in km, (rows, columns)."""
    a, b = (np.radians([centres[name] for name in names], dtype=np.float64).reshape(-1, 2) for names in (rows, columns))
    lon, lat = a[:, None, 0] - b[None, :, 0], a[:, None, 1] - b[None, :, 1]
    cosines = np.cos(a[:, None, 1]) * np.cos(b[None, :, 1])
    haversine = np.sin(lat / 2) ** 2 + cosines * np.sin(lon / 2) ** 2
    distances: npt.NDArray[np.float64] = 2 * EARTH_RADIUS_KM * np.arcsin(np.sqrt(np.clip(haversine, 0, 1)))
    return distances


def _count(scenes: int, groups: int) -> str:
    return f"{scenes} scene{'s' * (scenes != 1)} in {groups} cluster{'s' * (groups != 1)}"
