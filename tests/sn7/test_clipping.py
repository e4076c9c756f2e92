import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely import affinity

from sn7.score.clipping import common_areas


def area(first: shapely.Geometry, second: shapely.Geometry) -> float:
    """Return the common area of one pair; the same the other way round."""
    found = common_areas(np.array([first, second], object), np.array([second, first], object))
    assert found[0] == pytest.approx(found[1])
    return float(found[0])


SQUARE = shapely.box(0, 0, 10, 10)


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (shapely.box(5, 5, 15, 15), 25),
        (shapely.box(2, 2, 4, 4), 4),
        (shapely.box(10, 0, 20, 10), 0),
        (shapely.box(50, 50, 60, 60), 0),
        (SQUARE, 100),
        (SQUARE.reverse(), 100),
        (shapely.Polygon([(5, -5), (15, 5), (5, 15), (-5, 5)]), 100),
        (shapely.Polygon([(5, 0), (10, 5), (5, 10), (0, 5)]), 50),
        (shapely.box(0, 0, 10, 10).difference(shapely.box(2, 2, 8, 8)), 64),
        (shapely.MultiPolygon([shapely.box(-5, 0, 1, 10), shapely.box(9, 0, 15, 10)]), 20),
        # a U whose arms reach into the square from above, cut apart: two arms of 2 × 5
        (shapely.Polygon([(1, 5), (3, 5), (3, 20), (7, 20), (7, 5), (9, 5), (9, 25), (1, 25)]), 20),
        (shapely.Polygon([(0, 0), (5, 0), (10, 0), (10, 10), (0, 10)]), 100),
        (shapely.Polygon(), 0),
    ],
)
def test_area_by_hand(other: shapely.Geometry, expected: float) -> None:
    """Overlapping, inside, touching, apart, equal, turned, with a courtyard, in parts, cut apart, empty."""
    assert area(SQUARE, other) == pytest.approx(expected, abs=1e-12)


def test_two_that_are_not_convex() -> None:
    """Two L of 3 × 3 without a corner of 2 × 2, one turned by 180°, share two of nine squares."""
    ell = shapely.Polygon([(0, 0), (3, 0), (3, 1), (1, 1), (1, 3), (0, 3)])
    assert area(ell, affinity.rotate(ell, 180, (1.5, 1.5))) == pytest.approx(2)


def test_far_from_the_origin() -> None:
    """In metres of EPSG:3857 no digits that matter are lost."""
    moved = [affinity.translate(shape, 1.2e7, 4.5e6) for shape in (SQUARE, shapely.box(5, 5, 15, 15))]
    assert area(*moved) == pytest.approx(25, abs=1e-6)


def test_no_pairs() -> None:
    """Nothing gives nothing."""
    assert common_areas(np.array([], object), np.array([], object)).shape == (0,)


@st.composite
def polygons(draw: st.DrawFn) -> shapely.Geometry:
    """Draw a union of up to three turned rectangles, from which one may be cut: of any form, with parts and holes."""

    def rectangle() -> shapely.Geometry:
        x, y, width, height = (draw(st.integers(low, 20)) for low in (0, 0, 1, 1))
        return affinity.rotate(shapely.box(x, y, x + width, y + height), draw(st.sampled_from([0, 45, 90, 17.3])))

    shape = shapely.union_all([rectangle() for _ in range(draw(st.integers(1, 3)))])
    return shape.difference(rectangle()) if draw(st.booleans()) else shape


@settings(max_examples=60, deadline=None)
@given(polygons(), polygons())
def test_as_shapely_has_it(first: shapely.Geometry, second: shapely.Geometry) -> None:
    """The area is that of shapely's intersection."""
    assert area(first, second) == pytest.approx(first.intersection(second).area, abs=1e-9)
