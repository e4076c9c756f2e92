import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from sn7.outlines import outlines


def test_neighbours_share_their_border() -> None:
    """Between excesses of 0.3 and 0.1 over the threshold the border is three quarters of the way to the lower one."""
    labels = np.array([[1, 1, 2, 2]] * 4, np.int32)
    probs = np.array([[0.8, 0.8, 0.6, 0.6]] * 4, np.float32)
    polygons, owners = outlines(labels, probs, 0.5)
    assert owners.tolist() == [1, 2]
    assert polygons[0].bounds == pytest.approx((0, 0, 2.25, 4), abs=1e-4)
    assert polygons[1].bounds == pytest.approx((2.25, 0, 4, 4), abs=1e-4)
    assert polygons[0].intersection(polygons[1]).area == pytest.approx(0, abs=1e-9)


def test_a_building_in_a_courtyard() -> None:
    """A label inside of another's hole has its own outline, and the other one has a hole."""
    labels = np.zeros((9, 9), np.int32)
    labels[1:8, 1:8] = 1
    labels[2:7, 2:7] = 0
    labels[4, 4] = 2
    polygons, owners = outlines(labels, np.where(labels > 0, 1, 0).astype(np.float32), 0.5)
    assert owners.tolist() == [1, 2]
    assert [len(polygon.interiors) for polygon in polygons] == [1, 0]
    assert polygons[1].area == pytest.approx(0.5, abs=1e-3)


def test_nothing() -> None:
    """No label, no outline."""
    polygons, owners = outlines(np.zeros((3, 3), np.int32), np.zeros((3, 3), np.float32), 0.5)
    assert len(polygons) == len(owners) == 0


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 70), st.integers(1, 12), st.floats(0.1, 0.9))
def test_every_label_has_one_valid_outline(seed: int, height: int, width: int, threshold: float) -> None:
    """Whatever the regions: one polygon each, valid, around the centres of its own pixels, apart from all others."""
    random = np.random.default_rng(seed)
    probs = random.random((height, width), np.float32)
    labels, count = ndimage.label(probs >= threshold, output=np.int32)
    labels[(labels == 1) & (np.arange(width) >= width // 2)] = count + 1  # one region is parted, by columns
    relabelled = np.zeros_like(labels)
    number = 0
    for label in range(1, count + 2):
        pieces, found = ndimage.label(labels == label)
        relabelled[pieces > 0] = number + pieces[pieces > 0]
        number += found
    polygons, owners = outlines(relabelled, probs, threshold)
    assert owners.tolist() == list(range(1, number + 1))
    assert shapely.is_valid(polygons).all()
    rows, columns = np.nonzero(relabelled)
    centres = shapely.points(columns + 0.5, rows + 0.5)
    assert shapely.contains(polygons[relabelled[rows, columns] - 1], centres).all()
    overlap = shapely.area(polygons).sum() - shapely.area(shapely.union_all(polygons))
    assert overlap == pytest.approx(0, abs=1e-4)
