import copy
from typing import Any

import pytest
import torch
from fastai.vision.models.unet import DynamicUnet
from torch import Tensor, nn

from sn7.encoders import build_body
from sn7.hookfree import HookFreeUnet, _Shuffle

LAST = torch.channels_last


@pytest.mark.parametrize(("encoder", "blur"), [("xresnet18", False), ("resnet18d", True)])
def test_it_computes_what_fastais_unet_computes(encoder: str, blur: bool) -> None:
    """Bit by bit, from the same seed, under the same names, also at sizes that no halving divides."""
    nets = []
    for kind in (DynamicUnet, HookFreeUnet):
        torch.manual_seed(0)
        nets.append(kind(build_body(encoder), 2, (64, 64), blur=blur).eval())
    theirs, ours = nets
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for height, width in ((64, 64), (65, 95)):
        batch = torch.rand(1, 3, height, width)
        with torch.no_grad():
            assert torch.equal(ours(batch), theirs(batch))


def test_a_copy_is_a_network_of_its_own() -> None:
    """No module holds a hook, so a copy with other weights in its encoder computes something else."""
    model = HookFreeUnet(build_body("xresnet18"), 2, (64, 64)).eval()
    assert not [module for module in model.modules() if module._forward_hooks]
    other = copy.deepcopy(model)
    batch = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(other(batch), model(batch))
        next(other.parameters()).mul_(2)
        assert not torch.equal(other(batch), model(batch))


@pytest.mark.parametrize(("side", "options"), [(64, {}), (65, {"blur": True})])
def test_all_is_computed_in_half_precision(side: int, options: dict[str, Any]) -> None:
    """Under autocast each convolution behind the first gets bf16, also behind the image's own pixels."""
    model, seen = HookFreeUnet(build_body("xresnet18"), 2, (side, side), **options), []
    for layer in convolutions(model):
        layer.register_forward_pre_hook(lambda _, given: seen.append(given[0].dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(torch.rand(2, 3, side, side))
    assert set(seen[1:]) == {torch.bfloat16}


@pytest.mark.parametrize("device", ["cpu", "meta"])  # meta computes strides as a GPU does, but for convolutions
@pytest.mark.parametrize(("side", "options"), [(64, {}), (65, {"blur": True})])
def test_all_stays_channels_last(side: int, options: dict[str, Any], device: str) -> None:
    """No convolution has to bring its input in order first."""
    model, seen = HookFreeUnet(build_body("xresnet18"), 2, (side, side), **options).to(device), []
    for layer in convolutions(model):
        layer.register_forward_pre_hook(lambda _, given: seen.append(given[0].is_contiguous(memory_format=LAST)))
        layer.register_forward_hook(lambda _, given, found: found.contiguous(memory_format=LAST))
    model(torch.rand(2, 3, side, side, device=device).contiguous(memory_format=LAST))
    assert len(seen) > 30 and all(seen)


def convolutions(model: nn.Module) -> list[nn.Module]:
    """Return the convolutions of a network."""
    return [module for module in model.modules() if isinstance(module, nn.Conv2d)]


class Elsewhere(Tensor):
    """A tensor that says it is on a GPU."""

    device = torch.device("cuda")


@pytest.mark.parametrize("scale", [2, 3])
def test_pixels_are_shuffled_as_torch_does(scale: int) -> None:
    """The way of other devices than the processor gives torch's values, and gradients in the order of the input."""
    batch = torch.rand(2, 4 * scale**2, 5, 7).contiguous(memory_format=LAST)
    elsewhere = batch.as_subclass(Elsewhere).requires_grad_()
    found = _Shuffle(scale)(elsewhere)
    assert found.is_contiguous(memory_format=LAST)
    assert torch.equal(found.as_subclass(Tensor), nn.functional.pixel_shuffle(batch, scale))
    (gradient,) = torch.autograd.grad((found * found).sum(), elsewhere)
    assert gradient.is_contiguous(memory_format=LAST)
    assert torch.equal(gradient.as_subclass(Tensor), 2 * batch)
