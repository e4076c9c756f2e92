import csv
from pathlib import Path

import pytest

from sn7.sample.place import place_of
from sn7.xyz import Tile, scene_tile


@pytest.mark.parametrize("index", range(12))
def test_the_samples_scenes(index: int) -> None:
    """The generator, which knows where its scenes lie, and their names agree on the grid."""
    place = place_of("train", index)
    tile = scene_tile(place.scene)
    assert tile == Tile(place.x, place.y, 13)
    assert tuple(tile.transform) == pytest.approx(tuple(place.transform), abs=1e-6)


def test_centres_of_the_real_scenes(scenes_csv: Path) -> None:
    """They are those of the list, which has two decimals."""
    for row in csv.DictReader(scenes_csv.open()):
        tile = scene_tile(row["scene"])
        assert tile is not None
        if row["lon"]:  # test scenes have none there
            assert tile.centre == pytest.approx((float(row["lon"]), float(row["lat"])), abs=0.0051)


def test_places_in_tiles() -> None:
    """The world is one tile at zoom 0; the corner of four tiles is where 0°, 0° lies at zoom 1."""
    assert Tile(0, 0, 0).locate(0, 0) == pytest.approx((0.5, 0.5))
    assert Tile(1, 1, 1).locate(0, 0) == pytest.approx((0, 0))
    assert Tile(0, 0, 1).locate(90, 0) == pytest.approx((1.5, 1))
    assert Tile(5, 2, 3).locate(*Tile(5, 2, 3).centre) == pytest.approx((0.5, 0.5))


@pytest.mark.parametrize(
    "name", ["Rotterdam", "L15_13", "a_8192_0_13", "a_0_8192_13", "a_1_2", "a_1_2_13_b", "a_-1_2_13"]
)
def test_names_that_tell_no_place(name: str) -> None:
    """No three numbers at the end, or a tile that its zoom does not have."""
    assert scene_tile(name) is None
