import pytest

from sn7.evaluation import Evaluation, dice_interval, gain_interval
from sn7.metrics import Counts


def test_the_interval_of_equal_scenes_is_their_dice() -> None:
    """Whatever is drawn of three scenes of Dice 0.8, it is 0.8; scenes of 0 and 1 lie at the ends."""
    assert dice_interval([Counts(4, 1, 1)] * 3, seed=0) == pytest.approx((0.8, 0.8))
    assert dice_interval([Counts(4, 0, 0), Counts(0, 4, 4)], seed=0) == (0.0, 1.0)


def test_a_gain_is_paired() -> None:
    """Every scene gains from 0.5 to 0.75: the gain is sure, though the scenes' sizes differ a hundredfold."""
    old = [Counts(2, 2, 2), Counts(200, 200, 200)]
    new = [Counts(3, 1, 1), Counts(300, 100, 100)]
    assert gain_interval(new, old, seed=0) == pytest.approx((0.25, 0.25))
    low, high = gain_interval([new[0], old[1]], old, seed=0)
    assert low == 0 and 0 < high <= 0.25


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
