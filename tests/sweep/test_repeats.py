from sweep.repeats import noise_sentence, spread


def test_two_that_cannot_be_told_apart() -> None:
    """Means 0.50 and 0.49, standard deviations 0.0163 over 4 seeds: 2 × √(2 × 0.000267 / 4) = 0.023."""
    first, second = [0.48, 0.50, 0.52, 0.50], [0.47, 0.49, 0.51, 0.49]
    said = noise_sentence({7: second, 3: first})
    assert "trial 3 has Dice 0.500 ± 0.016 and trial 7 0.490 ± 0.016" in said
    assert "inside the noise" in said and "differ by 0.010" in said


def test_two_that_can() -> None:
    """A difference of 0.2 with seeds within 0.01."""
    assert "more than the noise" in noise_sentence({1: [0.5, 0.51], 2: [0.7, 0.71], 3: [0.1, 0.1]})


def test_without_repeats_nothing_is_said() -> None:
    """One trial, or one seed each, says nothing of the noise."""
    assert noise_sentence({1: [0.5], 2: [0.4]}) == ""
    assert noise_sentence({1: [0.5, 0.6]}) == ""
    assert spread([0.5]) == 0.0
