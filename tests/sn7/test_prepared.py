from collections.abc import Callable

import numpy as np
import pytest

from sn7.errors import PreparedInvalid
from sn7.prepared import MASK, SEPARATION, Prepared, fine_window, load_prepared

Make = Callable[..., Prepared]


@pytest.mark.parametrize("upscale", [2, 3, 4])
@pytest.mark.parametrize(("row", "col"), [(0, 0), (5, 3), (-4, -3), (20, 18), (-2, 30), (40, 0), (0, -9)])
def test_windows_are_what_the_whole_holds(upscale: int, row: int, col: int) -> None:
    """At any place, inside, sticking out at each side, and beyond: 23 columns are no whole number of bytes."""
    fine = np.random.default_rng(0).integers(0, 2, (3, upscale * 25, upscale * 23), np.uint8)
    around = np.pad(fine, ((0, 0), (upscale * 50, upscale * 50), (upscale * 50, upscale * 50)))
    top, left, side = upscale * (50 + row), upscale * (50 + col), upscale * 9
    window = fine_window(np.packbits(fine, axis=2), upscale, row, col, 9)
    assert (window.dtype, window.shape) == (np.uint8, (3, side, side))
    assert np.array_equal(window, around[:, top : top + side, left : left + side])


def test_a_window_larger_than_the_image() -> None:
    """A tile of 8 px from a mask of 1 × 3 px at 3 ×, set from the second column on: one byte, and a bit of the next."""
    packed = np.array([[[0b00011111, 0b10000000]] * 3], np.uint8)
    expected = np.zeros((1, 24, 24), np.uint8)
    expected[0, 3:6, 9:15] = 1
    assert np.array_equal(fine_window(packed, 3, -1, -2, 8), expected)


@pytest.mark.parametrize("separation", [False, True])
def test_fine_labels_are_mapped(make_prepared: Make, separation: bool) -> None:
    """One plane or three; of the fixture they are the native labels, repeated."""
    prepared = make_prepared(scenes=1, shape=(40, 37), upscales=(2, 3), separation=separation)
    assert (prepared.upscales, prepared.separation) == ((2, 3), separation)
    (image,) = prepared.images
    fine = prepared.fine_labels(image, 3)
    assert isinstance(fine, np.memmap)
    assert fine.shape == (3 if separation else 1, 120, 14)
    array = prepared.pixels(image)
    native = np.concatenate([array[MASK : MASK + 1], array[SEPARATION]])
    window = fine_window(fine, 3, 2, 3, 20)
    assert np.array_equal(window, native[:, 2:22, 3:23].repeat(3, axis=1).repeat(3, axis=2))


def test_scales_that_the_set_lacks(make_prepared: Make) -> None:
    """The sentence says what there is, and the command that makes what is wanted without losing it."""
    prepared = make_prepared(scenes=1, upscales=(2,))
    with pytest.raises(
        PreparedInvalid, match=r"has no labels at upscale 3 \(it has 2\); run .* --upscale 2 --upscale 3"
    ):
        prepared.fine_labels(prepared.images[0], 3)
    with pytest.raises(
        PreparedInvalid,
        match=r"upscale 3, 4 \(it has 2\) and no boundary .* channels; run .* --sep.* 2 --upscale 3 --upscale 4`",
    ):
        prepared.require_labels((2, 3, 4), separation=True)
    with pytest.raises(
        PreparedInvalid, match=r"has no boundary and contact channels; run `sn7 prepare … --separation -"
    ):
        prepared.require_labels((2,), separation=True)
    prepared.require_labels((2,))
    plain = make_prepared(scenes=1)
    with pytest.raises(PreparedInvalid, match=r"upscale 3 \(it has none\); run `sn7 prepare … --upscale 3`"):
        plain.fine_labels(plain.images[0], 3)


def test_fine_labels_that_are_damaged_or_changed(make_prepared: Make) -> None:
    """Of another shape, missing, or of a set that somebody prepares anew."""
    prepared = make_prepared(scenes=1, upscales=(2, 4))
    (image,) = prepared.images
    path = prepared.folder / "scene0/image0.x2.npy"
    np.save(path, np.zeros((1, 128, 8), np.uint8))
    with pytest.raises(PreparedInvalid, match=r"x2\.npy holds uint8 \(1, 128, 8\); wanted uint8 \(1, 128, 16\)"):
        prepared.fine_labels(image, 2)
    path.unlink()
    with pytest.raises(PreparedInvalid, match=r"x2\.npy cannot be read"):
        load_prepared(prepared.folder).fine_labels(image, 2)
    index = prepared.folder / "index.json"
    index.write_text(index.read_text().replace("f" * 64, "e" * 64))
    with pytest.raises(PreparedInvalid, match="has changed"):
        prepared.fine_labels(image, 4)
