import resource
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from sn7.config import TrainConfig
from sn7.errors import PreparedInvalid
from sn7.files import MOST_FILES
from sn7.folds import Split
from sn7.loader import loaders
from sn7.losses import IGNORE
from sn7.prepared import MASK, VALID, Prepared
from sn7.unet import IMAGENET_MEAN, IMAGENET_STD

CPU = torch.device("cpu")
PLAIN = {"dihedral": 0, "rotate": 0, "brightness": 0, "contrast": 0, "saturation": 0}


def test_a_batch_is_normalised_and_marks_invalid(make_prepared: Callable[..., Prepared], split: Split) -> None:
    """Values go back to the image's own; the target is 255 exactly where valid is 0."""
    prepared = make_prepared()
    _, validation = loaders(TrainConfig(tile_size=64, batch_size=2), prepared, split, CPU)
    ((rgb, target, native),) = list(validation)
    assert native is target
    array = prepared.pixels(validation.tiles[0].image)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    assert torch.allclose((rgb[0] * std + mean) * 255, torch.from_numpy(array[:3].astype(np.float32)), atol=1e-3)
    assert torch.equal(target[0] == IGNORE, torch.from_numpy(array[VALID] == 0))
    assert torch.equal(target[0] == 1, torch.from_numpy((array[MASK] == 1) & (array[VALID] == 1)))
    assert rgb.is_contiguous(memory_format=torch.channels_last)


def test_as_many_images_as_there_are(make_prepared: Callable[..., Prepared], split: Split) -> None:
    """Each takes an open file: the limit is raised to the system's own, and where that is too low, it is named."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    prepared = make_prepared()
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
        loaders(TrainConfig(tile_size=64, batch_size=2), prepared, split, CPU)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == min(hard, MOST_FILES)
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(list(Path("/proc/self/fd").iterdir())), hard))
        with pytest.raises(PreparedInvalid, match=r"Too many open files.*raise the limit of open files"):
            held = [prepared.pixels(image) for image in prepared.images * 50]
            assert held
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


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


@pytest.mark.parametrize(
    ("batch_size", "micro_batch", "training_sizes", "validation_sizes"),
    [
        (4, None, [4, 4], [4]),
        (4, 4, [4, 4], [4]),
        (5, 2, [2, 2, 1], [2, 2]),
        (7, 3, [3, 2, 2], [2, 2]),
        (100, 3, [3, 3, 2], [2, 2]),
        (3, 1, [1] * 6, [1] * 4),
    ],
)
def test_batches_come_in_pieces(
    make_prepared: Callable[..., Prepared],
    split: Split,
    batch_size: int,
    micro_batch: int | None,
    training_sizes: list[int],
    validation_sizes: list[int],
) -> None:
    """8 training and 4 validation tiles: no piece is over the limit or across two batches, the order stays."""
    prepared = make_prepared()
    config = TrainConfig(tile_size=32, batch_size=batch_size, **PLAIN)
    whole, _ = loaders(config, prepared, split, CPU)
    training, validation = loaders(config, prepared, split, CPU, micro_batch)
    pieces = [rgb for rgb, _ in training]
    assert [len(rgb) for rgb in pieces] == training_sizes and len(training) == len(training_sizes)
    assert [len(rgb) for rgb, *_ in validation] == validation_sizes and len(validation) == len(validation_sizes)
    assert torch.equal(torch.cat(pieces), torch.cat([rgb for rgb, _ in whole]))
    assert training.pass_tiles == sum(training_sizes)
