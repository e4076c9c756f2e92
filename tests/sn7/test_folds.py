import csv
import math
from pathlib import Path

import numpy as np
import pytest

from sn7.errors import SplitInvalid
from sn7.folds import (
    NAMED_SPLITS,
    Split,
    building_pixels,
    clusters,
    fold_split,
    leaks,
    make_folds,
    named_split,
    require_split_name,
)
from sn7.prepared import Prepared, PreparedImage

# At the equator a degree is 111.195 km: a and b are 33 km apart, b and c 56, a and c 89; d and e are alone.
CENTRES = {"a": (0.0, 0.0), "b": (0.3, 0.0), "c": (0.8, 0.0), "d": (5.0, 0.0), "e": (0.0, 9.0)}


def prepared_of(centres: dict[str, tuple[float, float]], building_share: float = 0.25) -> Prepared:
    """Return a prepared data set, in memory only, of one 10 × 20 px image a scene, half of it valid."""
    images = [
        PreparedImage(
            scene, f"image-{scene}", "2020-01", 10, 20, (1, 0, 0, 0, -1, 0), "EPSG:3857", lon, lat, True, 3,
            0.5, building_share, (0, 0, 0), "", "",
        )
        for scene, (lon, lat) in sorted(centres.items())
    ]  # fmt: skip
    return Prepared(Path("prepared"), tuple(images), "")


def real_centres(path: Path) -> dict[str, tuple[float, float]]:
    """Return the exact centres of the training scenes, from the XYZ tiles in their names."""
    names = [row["scene"] for row in csv.DictReader(path.open()) if row["split"] == "train"]
    tiles = {name: [int(part) + 0.5 for part in name.split("_")[1:3]] for name in names}
    return {
        name: (x / 2**13 * 360 - 180, math.degrees(math.atan(math.sinh(math.pi * (1 - 2 * y / 2**13)))))
        for name, (x, y) in tiles.items()
    }


def test_clusters_are_chains_of_neighbours() -> None:
    """a and c are too far apart, but b links them; d and e stay alone; numbers follow the names."""
    assert clusters(CENTRES) == {"a": 0, "b": 0, "c": 0, "d": 1, "e": 2}
    assert clusters(CENTRES, 50) == {"a": 0, "b": 0, "c": 1, "d": 2, "e": 3}
    assert clusters(CENTRES, 0) == {name: i for i, name in enumerate(CENTRES)}
    assert clusters(dict(reversed(CENTRES.items()))) == clusters(CENTRES)
    assert clusters({}) == {}


def test_clusters_across_the_date_line_and_near_the_pole() -> None:
    """Distance is on the sphere: 359.6° of longitude are 0.4°, and a degree is short in the north."""
    assert clusters({"a": (-179.8, 0), "b": (179.8, 0)}) == {"a": 0, "b": 0}
    assert clusters({"a": (0, 80), "b": (3, 80)}) == {"a": 0, "b": 0}  # 3 · 111.2 · cos 80° = 58 km
    assert clusters({"a": (0, 0), "b": (3, 0)}) == {"a": 0, "b": 1}


def test_the_real_scenes_form_52_clusters(scenes_csv: Path) -> None:
    """At 60 km the 60 training scenes are 52 clusters, the last pair just within reach, at 59.8 km."""
    centres = real_centres(scenes_csv)
    assert len(centres) == 60
    assert len(set(clusters(centres).values())) == 52
    assert len(set(clusters(centres, 59.7).values())) == 53
    split = Split("pair", ("L15-0357E-1223N_1429_3296_13",), ("L15-0358E-1220N_1433_3310_13",))
    assert leaks(split, centres)[0][2] == pytest.approx(59.8, abs=0.05)


def test_published_splits_straddle_neighbours(scenes_csv: Path) -> None:
    """All their scenes exist; the notebook's and lxastro0's splits both separate neighbours."""
    centres = real_centres(scenes_csv)
    data = prepared_of(centres)
    notebook, lxastro0 = named_split("notebook", data), named_split("lxastro0", data)
    assert (len(notebook.training), len(notebook.validation)) == (51, 9)
    assert (len(lxastro0.training), len(lxastro0.validation)) == (50, 10)
    assert {pair[:2] for pair in leaks(notebook, centres)} == {
        ("L15-1615E-1206N_6460_3366_13", "L15-1615E-1205N_6460_3370_13"),
        ("L15-1617E-1207N_6468_3360_13", "L15-1615E-1205N_6460_3370_13"),
        ("L15-1439E-1134N_5759_3655_13", "L15-1438E-1134N_5753_3655_13"),
    }
    assert [round(pair[2]) for pair in leaks(notebook, centres)] == [17, 28, 54]
    assert leaks(lxastro0, centres)
    assert leaks(named_split("random:0", data), centres) == []


def test_folds_on_the_real_scenes(scenes_csv: Path) -> None:
    """Five folds hold all scenes once, no neighbours in different ones, weights within a few per cent."""
    centres = real_centres(scenes_csv)
    rng = np.random.default_rng(1)
    weights = {name: float(weight) for name, weight in zip(centres, rng.lognormal(11, 0.8, 60), strict=True)}
    folds = make_folds(centres, weights, 5)
    assert sorted(scene for fold in folds for scene in fold) == sorted(centres)
    assert all(leaks(fold_split(folds, k), centres) == [] for k in range(5))
    loads = [sum(weights[scene] for scene in fold) for fold in folds]
    assert max(loads) / min(loads) < 1.1


def test_folds_are_balanced_whole_and_repeatable() -> None:
    """Clusters weigh 6 (a, b, c), 5 and 2: two folds are {abc} and {d, e}, whatever the order of names."""
    weights = {"a": 1.0, "b": 2.0, "c": 3.0, "d": 5.0, "e": 2.0}
    folds = make_folds(CENTRES, weights, 2)
    assert sorted(folds) == [["a", "b", "c"], ["d", "e"]]
    assert make_folds(dict(reversed(CENTRES.items())), dict(reversed(weights.items())), 2) == folds
    assert sorted(make_folds(CENTRES, weights, 3)) == [["a", "b", "c"], ["d"], ["e"]]


def test_seed_decides_the_folds() -> None:
    """The same seed gives the same folds; other seeds give others, where clusters weigh about the same."""
    centres = {f"s{i:02}": (10.0 * i, 0.0) for i in range(20)}
    weights = dict.fromkeys(centres, 1.0)
    assert make_folds(centres, weights, 4, seed=3) == make_folds(centres, weights, 4, seed=3)
    assert len({str(make_folds(centres, weights, 4, seed=seed)) for seed in range(5)}) == 5
    assert [len(fold) for fold in make_folds(centres, weights, 4)] == [5, 5, 5, 5]


def test_no_fold_is_empty_without_buildings() -> None:
    """Scenes that weigh nothing are dealt out by number: one cluster a fold."""
    folds = make_folds(CENTRES, dict.fromkeys(CENTRES, 0.0), 3)
    assert sorted(folds) == [["a", "b", "c"], ["d"], ["e"]]


@pytest.mark.parametrize("k", [-1, 0, 1, 4])
def test_impossible_folds(k: int) -> None:
    """Fewer than two folds, or more than clusters: the sentence says how many there are."""
    with pytest.raises(SplitInvalid, match=rf"{k} folds cannot be made of 5 scenes in 3 clusters; wanted"):
        make_folds(CENTRES, dict.fromkeys(CENTRES, 1.0), k)


def test_fold_split() -> None:
    """Fold 1 validates, all others train; a fold that is not there is an error."""
    folds = [["a", "b"], ["d"], ["e"]]
    assert fold_split(folds, 1) == Split("fold1", ("a", "b", "e"), ("d",))
    for k in (-1, 3):
        with pytest.raises(SplitInvalid, match=rf"no fold {k}; wanted 0 to 2"):
            fold_split(folds, k)


def test_split_checks_itself() -> None:
    """Both halves need a scene, and none may be in both."""
    with pytest.raises(SplitInvalid, match="x has b in training and in validation"):
        Split("x", ("a", "b"), ("b", "c"))
    with pytest.raises(SplitInvalid, match="x trains on 0 scenes and validates on 1; wanted"):
        Split("x", (), ("b",))
    with pytest.raises(SplitInvalid, match="x trains on 1 scenes and validates on 0; wanted"):
        Split("x", ("b",), ())


def test_named_splits_use_what_is_there() -> None:
    """Of the notebook's scenes only those in the data validate; none, or nothing else, is an error."""
    first, second = NAMED_SPLITS["notebook"][:2]
    data = prepared_of({first: (0, 0), "other": (5, 0), second: (10, 0)})
    assert named_split("notebook", data) == Split("notebook", ("other",), (first, second))
    with pytest.raises(SplitInvalid, match="lxastro0 finds none of its 10 validation scenes in prepared"):
        named_split("lxastro0", data)
    with pytest.raises(SplitInvalid, match="notebook trains on 0 scenes and validates on 1"):
        named_split("notebook", prepared_of({first: (0, 0)}))


def test_random_split_takes_a_fifth_of_the_clusters() -> None:
    """Whole clusters, a fifth of them and at least one, the same for the same seed."""
    centres = {f"s{i:02}": (10.0 * (i // 2) + 0.1 * i, 0.0) for i in range(22)}  # 11 pairs
    data = prepared_of(centres)
    split = named_split("random:7", data)
    assert (split.name, len(split.training), len(split.validation)) == ("random:7", 18, 4)
    assert leaks(split, centres) == []
    assert named_split("random:7", data) == split
    assert len({named_split(f"random:{seed}", data).validation for seed in range(9)}) > 1
    assert len(named_split("random:0", prepared_of({"d": (0, 0), "e": (9, 0)})).validation) == 1
    with pytest.raises(SplitInvalid, match="random:0 needs two clusters of scenes, and 2 scenes in 1 cluster are"):
        named_split("random:0", prepared_of({"a": (0, 0), "b": (0.1, 0)}))


@pytest.mark.parametrize("name", ["", "random", "random:", "random:x", "random:-1", "Notebook", "notebook:3", "folds"])
def test_unknown_split_names(name: str) -> None:
    """An unknown name is answered with the known ones."""
    with pytest.raises(SplitInvalid, match=r"is no split; wanted notebook, lxastro0, or random:SEED"):
        require_split_name(name)
    with pytest.raises(SplitInvalid, match="is no split"):
        named_split(name, prepared_of(CENTRES))


def test_leaks_names_the_neighbours_nearest_first() -> None:
    """Each pair that is split and lies close is named with its distance."""
    pairs = leaks(Split("x", ("a", "c", "d"), ("b", "e")), CENTRES)
    assert [pair[:2] for pair in pairs] == [("a", "b"), ("c", "b")]
    assert [pair[2] for pair in pairs] == pytest.approx([33.36, 55.60], abs=0.01)


def test_building_pixels() -> None:
    """10 × 20 px, half of them valid, a quarter of those building: 25."""
    assert building_pixels(prepared_of({"a": (0, 0)})) == {"a": 25.0}
