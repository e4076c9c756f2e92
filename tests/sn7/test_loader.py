from collections.abc import Callable

import numpy as np
import pytest
import torch

from sn7.config import TrainConfig
from sn7.errors import SplitInvalid
from sn7.folds import Split
from sn7.loader import IGNORE, augmentation, cut, loaders, round_up, tile_starts, training_tiles, validation_tiles
from sn7.prepared import MASK, VALID, Prepared
from sn7.unet import IMAGENET_MEAN, IMAGENET_STD

CPU = torch.device("cpu")
PLAIN = {"dihedral": 0, "rotate": 0, "brightness": 0, "contrast": 0, "saturation": 0}


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


def test_a_batch_is_normalised_and_marks_invalid(make_prepared: Callable[..., Prepared], split: Split) -> None:
    """Values go back to the image's own; the target is 255 exactly where valid is 0."""
    prepared = make_prepared()
    _, validation = loaders(TrainConfig(tile_size=64, batch_size=2), prepared, split, CPU)
    ((rgb, target),) = list(validation)
    array = prepared.pixels(validation.tiles[0].image)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    assert torch.allclose((rgb[0] * std + mean) * 255, torch.from_numpy(array[:3].astype(np.float32)), atol=1e-3)
    assert torch.equal(target[0] == IGNORE, torch.from_numpy(array[VALID] == 0))
    assert torch.equal(target[0] == 1, torch.from_numpy((array[MASK] == 1) & (array[VALID] == 1)))
    assert rgb.is_contiguous(memory_format=torch.channels_last)


def test_the_order_is_fresh_each_pass_and_repeats_with_the_seed(make_prepared: Callable[..., Prepared]) -> None:
    """Two passes differ; two loaders of one seed agree; every tile comes where the batch size divides them."""
    prepared = make_prepared(shape=(128, 128))
    split = Split("test", ("scene0", "scene1"), ("scene2",))
    config = TrainConfig(tile_size=32, batch_size=4, seed=3, **PLAIN)

    def passes() -> list[torch.Tensor]:
        training, _ = loaders(config, prepared, split, CPU)
        return [torch.cat([rgb for rgb, _ in training]) for _ in range(2)]

    first, again = passes(), passes()
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    assert not torch.equal(first[0], first[1])
    assert len(first[0]) == 32
    sums = [sorted(tile.sum().item() for tile in one) for one in first]
    assert sums[0] == pytest.approx(sums[1])


def test_augmentation_moves_image_and_target_together() -> None:
    """A bright square and its mask stay on one another through flips and rotations; values stay in range."""
    rgb = torch.full((16, 3, 33, 33), 0.2)
    target = torch.zeros((16, 33, 33), dtype=torch.int64)
    rgb[:, :, 4:14, 6:18], target[:, 4:14, 6:18] = 0.9, 1
    target[:, 20:25, 20:25] = IGNORE
    config = TrainConfig(tile_size=33, brightness=0, contrast=0, saturation=0)
    augment = augmentation(config)
    assert augment is not None
    moved, mask = augment(rgb, target)
    assert mask.dtype == torch.int64 and set(mask.unique().tolist()) <= {0, 1, IGNORE}
    assert not torch.equal(mask, target)
    building, ground = moved[:, 0][mask == 1], moved[:, 0][mask == 0]
    assert (building > 0.5).float().mean() > 0.95  # bilinear blurs the rim
    assert (ground < 0.6).float().mean() > 0.95
    assert moved.min() >= 0 and moved.max() <= 1


def test_augmentation_switched_off_is_none() -> None:
    """No transform is built where none is wanted."""
    assert augmentation(TrainConfig(**PLAIN)) is None


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
