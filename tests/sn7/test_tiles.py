from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from sn7.config import TrainConfig
from sn7.errors import SplitInvalid
from sn7.prepared import MASK, VALID, Prepared
from sn7.tiles import cut, round_up, sampling, tile_starts, training_images, training_tiles, validation_tiles


def test_the_notebook_grid() -> None:
    """255 px tiles: 4 an axis, for 1,024 and for 1,023 px, the last 3 or 4 px dropped."""
    for length in (1024, 1023):
        assert tile_starts(length, 255, 0, slack=4) == [0, 255, 510, 765]


@pytest.mark.parametrize(
    ("length", "size", "overlap", "wanted"),
    [
        (128, 64, 0, [0, 64]),
        (130, 64, 0, [0, 64, 66]),
        (100, 64, 32, [0, 32, 36]),
        (64, 64, 0, [0]),
        (40, 64, 0, [0]),
    ],
)
def test_tiles_reach_the_end_of_an_axis(length: int, size: int, overlap: int, wanted: list[int]) -> None:
    """The last tile ends at the border; a short axis has one tile."""
    assert tile_starts(length, size, overlap, slack=0) == wanted


def test_validation_counts_every_valid_pixel_once(make_prepared: Callable[..., Prepared]) -> None:
    """Over overlapping, odd-sized tiles, building and valid pixels add up to the images' own."""
    prepared = make_prepared(scenes=2, months=2, shape=(75, 107))
    tiles = validation_tiles(prepared, prepared.scenes, TrainConfig(tile_size=50, validation_images=2))
    assert {tile.size for tile in tiles} == {64}
    parts = [cut(prepared.pixels(tile.image), tile) for tile in tiles]
    whole = [prepared.pixels(image) for image in prepared.images]
    assert sum(int(part[VALID].sum()) for part in parts) == sum(int(array[VALID].sum()) for array in whole)
    assert sum(int((part[MASK] & part[VALID]).sum()) for part in parts) == sum(int(a[MASK].sum()) for a in whole)


def test_a_tile_larger_than_the_image_is_filled_with_invalid(make_prepared: Callable[..., Prepared]) -> None:
    """40 × 50 px in a 64 px tile: nothing is lost, nothing counts twice."""
    prepared = make_prepared(scenes=1, shape=(40, 50))
    (tile,) = validation_tiles(prepared, prepared.scenes, TrainConfig(tile_size=64))
    part = cut(prepared.pixels(tile.image), tile)
    assert part.shape == (5, 64, 64)
    assert part[VALID].sum() == prepared.pixels(prepared.images[0])[VALID].sum()


def test_undersampling_leaves_out_tiles_without_buildings(make_prepared: Callable[..., Prepared]) -> None:
    """With it fewer tiles, each with a building; without it all."""
    prepared = make_prepared(scenes=1, shape=(128, 128))
    array = np.load(prepared.folder / prepared.images[0].array)
    array[MASK, :64, :64] = 0
    np.save(prepared.folder / prepared.images[0].array, array)
    kept = training_tiles(prepared, prepared.scenes, TrainConfig(tile_size=64))
    every = training_tiles(prepared, prepared.scenes, TrainConfig(tile_size=64, undersample=False))
    assert len(every) == 4
    assert [(tile.row, tile.col) for tile in kept] == [(0, 64), (64, 0), (64, 64)]


def test_images_per_scene_takes_the_earliest(make_prepared: Callable[..., Prepared]) -> None:
    """Two of three months, in date order."""
    prepared = make_prepared(scenes=2, months=3)
    tiles = training_tiles(prepared, prepared.scenes, TrainConfig(tile_size=64, images_per_scene=2))
    assert [(tile.image.scene, tile.image.date) for tile in tiles] == [
        (scene, date) for scene in ("scene0", "scene1") for date in ("2020-01", "2020-02")
    ]


def _with_valid_shares(prepared: Prepared, shares: list[float]) -> Prepared:
    """Return the data set with these shares of valid pixels, image by image."""
    images = zip(prepared.images, shares, strict=True)
    return replace(prepared, images=tuple(replace(image, valid_share=share) for image, share in images))


@pytest.mark.parametrize(
    ("count", "shares", "wanted"),
    [
        (1, [0.2, 0.9, 0.5, 0.9, 0.1, 0.3], [2]),  # the earliest of equals
        (2, [0.2, 0.9, 0.5, 0.6, 0.1, 0.3], [2, 4]),  # the best of each half
        (3, [0.2, 0.9, 0.5, 0.6, 0.1, 0.3], [2, 4, 6]),
        (4, [0.2, 0.9, 0.5, 0.6, 0.1, 0.3], [2, 3, 4, 6]),
        (2, [0.0, 0.9, 0.0, 0.6, 0.1, 0.3], [2, 6]),  # of those with a valid pixel
        (9, [1.0] * 6, [1, 2, 3, 4, 5, 6]),
    ],
)
def test_spread_takes_the_most_valid_of_each_period(
    count: int, shares: list[float], wanted: list[int], make_prepared: Callable[..., Prepared]
) -> None:
    """In date order, each period of the scene is there."""
    prepared = _with_valid_shares(make_prepared(scenes=1, months=6), shares)
    config = TrainConfig(images_per_scene=count, image_selection="spread")
    assert [int(image.date[-2:]) for image in training_images(prepared, ["scene0"], config)] == wanted


def test_all_takes_all(make_prepared: Callable[..., Prepared]) -> None:
    """Whatever images_per_scene says; validation keeps to the earliest, so that trials compare."""
    prepared = make_prepared(scenes=1, months=3)
    config = TrainConfig(tile_size=64, image_selection="all")
    assert [image.date for image in training_images(prepared, ["scene0"], config)] == ["2020-01", "2020-02", "2020-03"]
    assert {tile.image.date for tile in validation_tiles(prepared, ["scene0"], config)} == {"2020-01"}


def test_sampling_counts_what_is_left_out(make_prepared: Callable[..., Prepared]) -> None:
    """Two of three images; of their eight tiles one has no building."""
    prepared = make_prepared(scenes=1, months=3, shape=(128, 128))
    array = np.load(prepared.folder / prepared.images[0].array)
    array[MASK, :64, :64] = 0
    np.save(prepared.folder / prepared.images[0].array, array)
    config = TrainConfig(tile_size=64, images_per_scene=2)
    tiles = training_tiles(prepared, ["scene0"], config)
    seen = sampling(prepared, ["scene0"], config, len(tiles))
    assert (len(tiles), seen.images, seen.labelled, seen.tiles_left_out) == (7, 2, 3, 1)


def test_scenes_without_buildings_cannot_be_undersampled(make_prepared: Callable[..., Prepared]) -> None:
    """Nothing left to train on is said before anything is trained."""
    prepared = make_prepared(scenes=1)
    path = prepared.folder / prepared.images[0].array
    array = np.load(path)
    array[MASK] = 0
    np.save(path, array)
    with pytest.raises(SplitInvalid, match="no training tile with a building in scene0"):
        training_tiles(prepared, prepared.scenes, TrainConfig(tile_size=64))


def test_round_up() -> None:
    """255 → 256; a multiple stays."""
    assert [round_up(size) for size in (1, 32, 33, 255, 256)] == [32, 32, 64, 256, 256]
