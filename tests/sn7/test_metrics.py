import numpy as np
import pytest

from sn7.metrics import BINS, Counts, ThresholdCurve, block_curves


def test_the_metrics_by_hand() -> None:
    """6 found, 2 too many, 4 missed."""
    counts = Counts(tp=6, fp=2, fn=4)
    assert counts.dice == pytest.approx(12 / 18)
    assert counts.iou == pytest.approx(6 / 12)
    assert counts.precision == pytest.approx(6 / 8)
    assert counts.recall == pytest.approx(6 / 10)


def test_counts_are_summed_before_the_division() -> None:
    """An image with 1 building pixel does not weigh as much as one with 100."""
    total = Counts(1, 0, 0) + Counts(50, 0, 50)
    assert total.dice == pytest.approx(102 / 152)


def test_nothing_to_find_and_nothing_found_is_perfect() -> None:
    """The convention where a division would be 0 / 0."""
    assert Counts().metrics() == {"dice": 1.0, "iou": 1.0, "precision": 1.0, "recall": 1.0}


def _images() -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    random = np.random.default_rng(0)
    images = []
    for _ in range(3):
        mask = (random.random((40, 30)) < 0.2).astype(np.uint8)
        probs = np.clip(0.3 + 0.3 * mask + 0.2 * random.standard_normal((40, 30)), 0, 1).astype(np.float32)
        images.append((probs, mask, random.random((40, 30)) < 0.9))
    return images


def test_a_curve_equals_direct_counting_at_every_threshold() -> None:
    """Histograms of three images give what thresholding the pixels gives."""
    images = _images()
    curve = sum((ThresholdCurve.of(*image) for image in images), start=ThresholdCurve.empty())
    for k in (0, 1, 77, 128, 200, BINS - 1):
        predicted = [probs >= k / BINS for probs, _, _ in images]
        tp = sum(int((p & (m == 1) & v).sum()) for p, (_, m, v) in zip(predicted, images, strict=True))
        fp = sum(int((p & (m == 0) & v).sum()) for p, (_, m, v) in zip(predicted, images, strict=True))
        fn = sum(int((~p & (m == 1) & v).sum()) for p, (_, m, v) in zip(predicted, images, strict=True))
        assert curve.counts(k / BINS) == Counts(tp, fp, fn)
        assert curve.dice()[k] == pytest.approx(Counts(tp, fp, fn).dice)


def test_the_best_threshold_has_the_highest_dice() -> None:
    """No other multiple of 1 / BINS does better."""
    probs, mask, valid = _images()[0]
    curve = ThresholdCurve.of(probs, mask, valid)
    assert curve.counts(curve.best_threshold()).dice == pytest.approx(curve.dice().max())


def test_a_plateau_is_answered_with_its_middle() -> None:
    """Buildings at 0.9 and background at 0.1: any threshold between is perfect, 0.5 is the safest."""
    probs = np.array([[0.9, 0.1]], np.float32)
    curve = ThresholdCurve.of(probs, np.array([[1, 0]], np.uint8), np.ones((1, 2), bool))
    assert curve.best_threshold() == pytest.approx(0.5, abs=0.01)


def test_invalid_pixels_may_hold_anything() -> None:
    """NaN where invalid does not count; NaN where valid is an error."""
    probs = np.array([[0.9, np.nan]], np.float32)
    mask = np.array([[1, 0]], np.uint8)
    assert ThresholdCurve.of(probs, mask, np.array([[1, 0]])).counts(0.5) == Counts(1, 0, 0)
    with pytest.raises(ValueError, match="must lie in"):
        ThresholdCurve.of(probs, mask, np.array([[1, 1]]))


def test_blocks_add_up_to_their_image() -> None:
    """Of 5 × 3 px in 2 × 2 blocks each pixel is in one; rows 0 to 2 and columns 0 and 1 are the first block's."""
    mask = np.zeros((5, 3), np.uint8)
    mask[0, 0] = mask[4, 2] = 1
    probs = np.full((5, 3), 0.75, np.float32)
    valid = np.ones((5, 3), np.uint8)
    valid[2, 1] = 0
    blocks = block_curves(probs, mask, valid, 2)
    assert [int(block.building.sum()) for block in blocks] == [1, 0, 0, 1]
    assert [int(block.background.sum()) for block in blocks] == [4, 3, 4, 1]
    whole = ThresholdCurve.of(probs, mask, valid)
    assert np.array_equal(sum(block.background for block in blocks), whole.background)
    assert whole.building[192] == 2


def test_a_threshold_is_above_0() -> None:
    """Also where all is building: with one of 0, what is invalid would be, too, and no ensemble could be loaded."""
    probs, mask = np.array([[0.001, 0.001, 0.9]], np.float32), np.ones((1, 3), np.uint8)
    assert ThresholdCurve.of(probs, mask, mask).best_threshold() == 1 / BINS
