import pytest

from sweep.halving import keeps, rungs


@pytest.mark.parametrize(
    ("epochs", "splits", "grace", "wanted"),
    [
        (40, 1, 10, (10, 30)),
        (40, 5, 10, (10, 30, 80)),  # 90 is in the third split: its start compares less than the end of the second
        (8, 2, 8, (8,)),
        (4, 5, 2, (2, 8, 16)),
        (9, 1, 9, ()),
        (9, 1, 1, (1, 3)),  # a trial at step 9 is done
    ],
)
def test_rungs(epochs: int, splits: int, grace: int, wanted: tuple[int, ...]) -> None:
    """Three times further each; beyond the first split at the end of one; never at the very end."""
    assert rungs(epochs, splits, grace) == wanted


@pytest.mark.parametrize(
    ("value", "others", "goes_on"),
    [
        (0.1, [], True),
        (0.1, [0.2], False),
        (0.3, [0.2, 0.1], True),
        (0.2, [0.3, 0.1], True),  # two of three
        (0.1, [0.3, 0.2], False),
        (0.2, [0.3, 0.1, 0.1], True),  # two of four
        (0.2, [0.3, 0.4, 0.1], False),
        (0.2, [0.2], True),
        (0.0, [0.0, 0.0, 0.0], True),  # nobody is better: too early to tell
    ],
)
def test_the_better_half_goes_on(value: float, others: list[float], goes_on: bool) -> None:
    """Rounded up; equals go on."""
    assert keeps(value, others) is goes_on
