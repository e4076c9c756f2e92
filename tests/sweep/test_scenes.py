from collections.abc import Callable

import numpy as np
import pytest

from sn7.prepared import MASK, Prepared
from sweep.scenes import read_scene


def test_a_scene_is_the_sum_of_its_images_and_of_its_blocks(make_prepared: Callable[..., Prepared]) -> None:
    """Two months at 0.9 where there is a building, 0.1 elsewhere: the pixels of both, whichever way they are added."""
    prepared = make_prepared(scenes=2, months=2)
    found = read_scene(
        "scene1", lambda image: np.where(prepared.pixels(image)[MASK] == 1, 0.9, 0.1).astype(np.float32), prepared
    )
    buildings = sum(int(prepared.pixels(image)[MASK].sum()) for image, _ in found.images)
    assert [image.image for image, _ in found.images] == ["image0", "image1"]
    assert found.curve.counts(0.5).tp == sum(curve.counts(0.5).tp for _, curve in found.images) == buildings
    assert found.curve.counts(0.5).fp == 0
    assert found.curve.building.sum() + found.curve.background.sum() == 2 * 62 * 64  # two rows are invalid
    assert found.interval(0.5, seed=0) == (1.0, 1.0)
    assert found.ceiling.dice == 1.0


def test_a_scene_that_is_right_in_one_half_only(make_prepared: Callable[..., Prepared]) -> None:
    """Nothing is found in its left half: the blocks disagree, so the interval is wide and holds the scene's Dice."""
    prepared = make_prepared(scenes=1)

    def probs(image: object) -> np.ndarray:
        found = prepared.pixels(prepared.images[0])[MASK].astype(np.float32)
        found[:, :32] = 0
        return found

    scene = read_scene("scene0", probs, prepared)
    low, high = scene.interval(0.5, seed=0)
    assert low < scene.curve.counts(0.5).dice < high
    assert high - low > 0.1
    assert (low, high) == pytest.approx(scene.interval(0.5, seed=0))
