import numpy as np

from sweep.repeats import noise_sentence, spread


def test_two_that_cannot_be_told_apart() -> None:
    """Means 0.50 and 0.49, standard deviations 0.0163 over 4 seeds: 2.447 × √(2 × 0.000267 / 4) = 0.028."""
    first, second = [0.48, 0.50, 0.52, 0.50], [0.47, 0.49, 0.51, 0.49]
    said = noise_sentence({7: second, 3: first})
    assert "Trial 3 has Dice 0.500 ± 0.016 over 4 seeds and trial 7 0.490 ± 0.016 over 4 seeds" in said
    assert "inside the noise" in said and "differ by 0.010" in said and "up to 0.028" in said


def test_equal_ones_are_not_told_apart() -> None:
    """Seeds that change nothing: neither is the better one."""
    said = noise_sentence({1: [0.0, 0.0, 0.0], 2: [0.0, 0.0, 0.0]})
    assert "inside the noise" in said and "more than" not in said


def test_one_configuration_is_rarely_told_apart_from_itself() -> None:
    """Three seeds each from one distribution: at most about one in twenty pairs is called different."""
    pairs = np.random.default_rng(0).normal(0.5, 0.02, (1000, 2, 3)).tolist()
    assert sum("more than the noise" in noise_sentence(dict(enumerate(pair))) for pair in pairs) < 60


def test_each_has_its_own_number_of_seeds() -> None:
    """One training of the second failed."""
    said = noise_sentence({1: [0.5, 0.52, 0.54], 2: [0.5, 0.51]})
    assert "± 0.020 over 3 seeds" in said and "± 0.007 over 2 seeds" in said


def test_two_that_can() -> None:
    """A difference of 0.2 with seeds within 0.01."""
    assert "more than the noise" in noise_sentence({1: [0.5, 0.51, 0.5], 2: [0.7, 0.71, 0.7], 3: [0.1, 0.1, 0.1]})


def test_without_repeats_nothing_is_said() -> None:
    """One trial, or one seed each, says nothing of the noise."""
    assert noise_sentence({1: [0.5], 2: [0.4]}) == ""
    assert noise_sentence({1: [0.5, 0.6]}) == ""
    assert spread([0.5]) == 0.0
