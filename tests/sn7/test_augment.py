import pytest
import torch
from fastai.torch_core import TensorImage
from fastai.vision import augment as fastai_augment
from torch import Tensor

from sn7 import augment
from sn7.augment import SYMMETRIES, Augmentation, augmentation, enlarge
from sn7.config import TrainConfig
from sn7.losses import IGNORE

PLAIN = {"dihedral": 0, "rotate": 0, "brightness": 0, "contrast": 0, "saturation": 0}


def picture(side: int = 33, scale: int = 1) -> tuple[Tensor, Tensor]:
    """Return 16 dark tiles with a bright building and an invalid square; the target `scale` times as fine."""
    rgb, target = torch.full((16, 3, side, side), 0.2), torch.zeros((16, side, side), dtype=torch.int64)
    rgb[:, :, 4:14, 6:18], target[:, 4:14, 6:18] = 0.9, 1
    target[:, 20:25, 20:25] = IGNORE
    return rgb, target.repeat_interleave(scale, 1).repeat_interleave(scale, 2)


@pytest.mark.parametrize("scale", [1, 3])
@pytest.mark.parametrize("move", [{"dihedral": 1.0}, {"rotate": 1.0}, {"scale_jitter": 0.5}, {"cutmix": 1.0}])
def test_image_and_target_move_together(move: dict[str, float], scale: int) -> None:
    """A building and its mask stay on one another; labels stay labels and values in range, also enlarged."""
    rgb, target = picture(scale=scale)
    rgb[::2] = rgb[::2].flip(2)  # neighbours differ, or CutMix would change nothing
    target[::2] = target[::2].flip(1)
    draw = augmentation(TrainConfig(tile_size=33, **{**PLAIN, **move}))
    assert draw is not None
    moved, mask = draw(rgb, target)
    assert moved.shape[2:] == mask.shape[1:] == target.shape[1:]
    assert mask.dtype == torch.int64 and set(mask.unique().tolist()) <= {0, 1, IGNORE}
    assert not torch.equal(mask, target)
    building, ground = moved[:, 0][mask == 1], moved[:, 0][mask == 0]
    assert (building > 0.5).float().mean() > 0.95  # bilinear blurs the rim
    assert (ground < 0.6).float().mean() > 0.95
    assert moved.min() >= 0 and moved.max() <= 1


def test_flips_and_quarter_turns_are_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of the 8 symmetries moves pixels without mixing them, at odd sizes too; all are different."""
    rgb, target = torch.rand(8, 3, 9, 9), torch.randint(0, 2, (8, 9, 9))
    rgb[:], target[:] = rgb[:1].clone(), target[:1].clone()
    monkeypatch.setattr(torch, "randint", lambda low, high, size, device: torch.arange(8))
    moved, mask = Augmentation(1.0, 0, 0, 0, 0, 0, 0)(rgb, target)
    assert torch.equal(mask[0], target[0]) and torch.allclose(moved[0], rgb[0], atol=1e-6)
    by_hand = [
        t for flip in (target[0], target[0].flip(1)) for t in (torch.rot90(flip, quarter) for quarter in range(4))
    ]
    assert sorted(map(str, mask.tolist())) == sorted(map(str, (one.tolist() for one in by_hand)))
    assert torch.allclose(moved.flatten(2).sort().values, rgb.flatten(2).sort().values, atol=1e-5)
    assert len(set(SYMMETRIES)) == 8


def test_colours_are_those_of_fastai(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the same draws, brightness, contrast and saturation in one matrix give what fastai's three steps give."""
    rgb = torch.rand(8, 3, 17, 17)
    brightness, contrast, saturation = (torch.linspace(*ends, 8) for ends in ((0.42, 0.58), (0.8, 1.25), (1.25, 0.8)))
    steps = [
        fastai_augment._BrightnessLogit(draw=brightness.tolist(), p=1.0),
        fastai_augment._ContrastLogit(draw=contrast.tolist(), p=1.0),
        fastai_augment._SaturationLogit(draw=saturation.tolist(), p=1.0),
    ]
    theirs = TensorImage(rgb.clone())
    for step in steps:
        step.before_call(theirs)
        theirs = theirs.lighting(step)
    factors = iter((contrast, saturation))
    monkeypatch.setattr(augment, "_uniform", lambda *_: brightness)
    monkeypatch.setattr(augment, "_happens", lambda count, *_: torch.ones(count, dtype=torch.bool))
    monkeypatch.setattr(augment, "_factor", lambda *_: next(factors))
    ours, _ = Augmentation(0, 0, 0, 0.2, 0.2, 0.2, 0)(rgb, torch.zeros((8, 17, 17), dtype=torch.int64))
    assert torch.allclose(ours, theirs.as_subclass(Tensor), atol=5e-5)
    assert (ours - rgb).abs().max() > 0.05


def test_half_of_the_tiles_are_turned() -> None:
    """A probability of a half leaves about half of the tiles as they are."""
    torch.manual_seed(0)
    rgb, target = torch.rand(1, 3, 8, 8).repeat(400, 1, 1, 1), torch.rand(8, 8).mul(2).long().repeat(400, 1, 1)
    _, mask = Augmentation(0.5, 0, 0, 0, 0, 0, 0)(rgb, target)
    same = (mask == target).flatten(1).all(1).float().mean()
    assert 0.45 < same < 0.68  # a half, and an eighth of the other half


def test_switched_off_is_none() -> None:
    """Nothing is computed where nothing is wanted; enlarging once is nothing either."""
    assert augmentation(TrainConfig(**PLAIN)) is None
    rgb = torch.rand(1, 3, 4, 4)
    assert enlarge(rgb, 1) is rgb
    assert enlarge(rgb, 2).shape == (1, 3, 8, 8)
