import numpy as np
import pytest

from sn7.pooling import pool, window_of

NAN = np.nan
MONTHS = np.array([[0.2, NAN, 0.1, NAN], [0.4, 0.6, 0.9, NAN], [0.9, 0.8, NAN, NAN]], np.float32)


@pytest.mark.parametrize(("how", "expected"), [("mean", [0.5, 0.7, 0.5, NAN]), ("median", [0.4, 0.7, 0.5, NAN])])
def test_invalid_months_do_not_count(how: str, expected: list[float]) -> None:
    """Three months, two, two others, none: mean and median over the valid ones, NaN where there is none."""
    pooled = pool(MONTHS.copy(), how)
    assert pooled.dtype == np.float32
    np.testing.assert_allclose(pooled, expected, atol=1e-6)


def test_median_against_numpy() -> None:
    """For any number of months and of holes, over rasters, as numpy's nanmedian, which is slower."""
    random = np.random.default_rng(0)
    for count in range(1, 8):
        months = random.random((count, 9, 11), np.float32)
        months[random.random(months.shape) < 0.3] = NAN
        months[0, :, :] = 0.5  # one is always valid, so numpy does not warn
        np.testing.assert_allclose(pool(months.copy(), "median"), np.nanmedian(months, axis=0), atol=1e-6)


def test_a_window_is_of_the_calendar() -> None:
    """Three months around 2018-12 reach into the next year; a missing month is not made up for."""
    dates = ["2018-10", "2018-11", "2018-12", "2019-01", "2019-03"]
    assert window_of(dates, 2, 3) == [1, 2, 3]
    assert window_of(dates, 4, 3) == [4]
    assert window_of(dates, 4, 5) == [3, 4]
    assert window_of(dates, 0, 1) == [0]
    assert window_of(dates, 0, 0) == [0, 1, 2, 3, 4]
