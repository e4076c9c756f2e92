import numpy as np
import pytest

from sn7.evaluation import FEWEST, Evaluation, by_cluster, dice_interval, evaluate, gain_interval
from sn7.metrics import Counts, ThresholdCurve


def test_the_interval_of_equal_scenes_is_their_dice() -> None:
    """Whatever is drawn of six scenes of Dice 0.8, it is 0.8; with scenes of 0 and 1 it goes from one to the other."""
    assert dice_interval([Counts(4, 1, 1)] * 6, seed=0) == pytest.approx((0.8, 0.8))
    low, high = dice_interval([Counts(4, 0, 0), Counts(0, 4, 4)] * 3, seed=0) or (0.5, 0.5)
    assert low < 0.1 and high > 0.9


def test_few_scenes_have_no_interval() -> None:
    """Not one of no width, as resampling a single scene has: five say too little, six something."""
    some = [Counts(4, 1, 1)] * FEWEST
    assert dice_interval([], seed=0) is dice_interval(some[:1], seed=0) is dice_interval(some[1:], seed=0) is None
    assert gain_interval(some[1:], some[1:], seed=0) is None
    assert dice_interval(some, seed=0) is not None


def test_a_gain_is_paired() -> None:
    """Every scene gains from 0.5 to 0.75: the gain is the same whatever is drawn, though sizes differ a hundredfold."""
    old = [Counts(2, 2, 2), Counts(200, 200, 200)] * 3
    new = [Counts(3, 1, 1), Counts(300, 100, 100)] * 3
    assert gain_interval(new, old, seed=0) == pytest.approx((0.25, 0.25))
    low, high = gain_interval([new[0], *old[1:]], old, seed=0) or (1.0, 1.0)
    assert low == 0 and 0 < high <= 0.25


def test_where_nothing_is_gained_the_interval_says_so() -> None:
    """Of six scenes whose gains are noise around 0, fewer than one interval in ten leaves out 0."""
    random = np.random.default_rng(0)
    surprises = 0
    for _ in range(300):
        sizes, gains = random.integers(500, 2000, 6), random.normal(0, 0.03, 6)
        old, new = (
            [Counts(int(size * dice), *[int(size * (1 - dice))] * 2) for size, dice in zip(sizes, dices, strict=True)]
            for dices in (np.full(6, 0.6), 0.6 + gains)
        )
        low, high = gain_interval(new, old, seed=0) or (0.0, 0.0)
        surprises += low > 0 or high < 0
    assert surprises < 0.1 * 300


def test_neighbours_are_one_unit() -> None:
    """Seven scenes, of which three lie together: five clusters are too few, with the three apart they would do."""
    counts = {f"scene{number}": Counts(number, 1, 1) for number in range(7)}
    clusters = {scene: max(0, number - 2) for number, scene in enumerate(counts)}
    assert by_cluster(counts, clusters)[:2] == [Counts(0 + 1 + 2, 3, 3), Counts(3, 1, 1)]
    curve = ThresholdCurve.of(np.full((1, 4), 0.9), np.ones((1, 4)), np.ones((1, 4)))
    curves = dict.fromkeys(counts, curve)
    assert evaluate(curves, Counts(), clusters, seed=0).dice_low is None
    found = evaluate(curves, Counts(), {scene: number for number, scene in enumerate(counts)}, seed=0)
    assert (found.dice_low, found.dice_high) == (1.0, 1.0)


def test_the_metrics_of_an_evaluation() -> None:
    """Single numbers by name: what records keep of it."""
    found = Evaluation({"a": {"dice": 0.5}}, 0.4, 0.6, 0.3, 0.55, 0.9)
    assert found.metrics() == {
        "dice_low": 0.4,
        "dice_high": 0.6,
        "threshold": 0.3,
        "threshold_dice": 0.55,
        "ceiling_dice": 0.9,
    }
    few = Evaluation({"a": {"dice": 0.5}}, None, None, 0.3, 0.55, 0.9)
    assert few.metrics() == {"threshold": 0.3, "threshold_dice": 0.55, "ceiling_dice": 0.9}
