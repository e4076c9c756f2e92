import numpy as np
import numpy.typing as npt
import pytest

from sn7.errors import ConfigError
from sn7.regions import label_regions
from sn7.rules import PolygonRules


def dumbbell() -> npt.NDArray[np.float32]:
    """Return probs of two blocks of 3 × 3 px at 0.9, joined by a bridge of a pixel at 0.6."""
    probs = np.zeros((5, 9), np.float32)
    probs[1:4, 1:4] = probs[1:4, 5:8] = 0.9
    probs[2, 4] = 0.6
    return probs


def test_a_threshold_keeps_together_what_touches() -> None:
    """Without seeds both blocks and the bridge are one region of 19 px."""
    whole, labels = label_regions(dumbbell()[None], PolygonRules())
    assert labels is whole and np.bincount(labels.ravel()).tolist() == [26, 19]


def test_seeds_part_what_touches() -> None:
    """Two seeds above 0.8: two regions, of which one gets the bridge; numbered by their first pixels."""
    whole, labels = label_regions(dumbbell()[None], PolygonRules(seed_level=0.8))
    assert whole.max() == 1
    assert sorted(np.bincount(labels.ravel()).tolist()) == [9, 10, 26]
    assert (labels[1, 1], labels[1, 5]) == (1, 2)


def test_one_seed_or_none_leaves_a_region_whole() -> None:
    """A seed in one block alone keeps both; no seed at all drops nothing."""
    probs = dumbbell()
    probs[2, 2] = 0.95
    assert label_regions(probs[None], PolygonRules(seed_level=0.94))[1].max() == 1
    assert label_regions(probs[None], PolygonRules(seed_level=0.99))[1].max() == 1


@pytest.mark.parametrize(("share", "regions"), [(1.0, 2), (0.0, 1)])
def test_contact_parts_neighbours(share: float, regions: int) -> None:
    """Where probs alone show one block, a contact output between its halves parts them, as far as it counts."""
    outputs = np.zeros((3, 4, 8), np.float32)
    outputs[0, 1:3, 1:7] = 0.9
    outputs[2, :, 3:5] = 0.8
    _, labels = label_regions(outputs, PolygonRules(seed_level=0.5, contact_share=share))
    assert labels.max() == regions
    assert np.count_nonzero(labels) == 12  # the watershed gives away every pixel of the building


def test_smoothing_finds_the_neck_of_a_perfect_mask() -> None:
    """All probs are 1, so there is no valley to part at; smoothed, the neck is lower than the blocks."""
    probs = (dumbbell() > 0).astype(np.float32)
    assert label_regions(probs[None], PolygonRules(seed_level=0.8))[1].max() == 1
    assert label_regions(probs[None], PolygonRules(seed_level=0.8, seed_smoothing=0.7))[1].max() == 2


def test_rules_are_checked() -> None:
    """Out of range, of another type, unknown."""
    with pytest.raises(ConfigError, match=r"threshold = 1.5 cannot be used; wanted a number from 0.001 to 0.999"):
        PolygonRules(threshold=1.5)
    with pytest.raises(ConfigError, match="min_area_m2 = 'big' is of type str"):
        PolygonRules(min_area_m2="big")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="treshold is not a field of the rules of polygons; did you mean threshold"):
        PolygonRules.from_dict({"treshold": 0.4})
    assert PolygonRules.from_dict(PolygonRules(seed_level=0.7).to_dict()).seed_level == 0.7
