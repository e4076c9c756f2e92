"""Greedy selection with replacement, on scores that can be worked out by hand."""

import pytest

from sn7.selection import Taken, select_greedily


def _near(target: tuple[float, ...]):
    """Return a score that is 1 where the shares are the target and falls with the distance from it."""

    def score(taken: Taken) -> float:
        return 1 - sum(abs(count / sum(taken) - want) for count, want in zip(taken, target, strict=True))

    return score


@pytest.mark.parametrize(
    ("target", "taken"),
    [((1, 0, 0), (1, 0, 0)), ((0.5, 0.5, 0), (1, 1, 0)), ((0.75, 0, 0.25), (3, 0, 1)), ((0.2, 0.4, 0.4), (1, 2, 2))],
)
def test_it_finds_the_shares(target: tuple[float, ...], taken: Taken) -> None:
    """One candidate alone, two alike, one three times: with replacement, weights come from counting."""
    assert select_greedily(3, _near(target), 6) == taken


def test_a_member_has_to_be_worth_its_time() -> None:
    """A second member that adds less than the margin is left out; one that adds more is taken."""
    gain = {True: 0.0004, False: 0.001}
    for little, taken in ((True, (1, 0)), (False, (1, 1))):
        scores = {(1, 0): 0.5, (0, 1): 0.4, (1, 1): 0.5 + gain[little], (2, 0): 0.5}
        assert select_greedily(2, lambda counts, scores=scores: scores.get(counts, 0.0), 2) == taken


def test_one_candidate_is_taken_once() -> None:
    """Where there is nothing to choose."""
    assert select_greedily(1, lambda taken: 0.3, 4) == (1,)
