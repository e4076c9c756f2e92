import copy

import pytest
import torch
from fastai.vision.models.unet import DynamicUnet

from sn7.encoders import build_body
from sn7.hookfree import HookFreeUnet


@pytest.mark.parametrize("encoder", ["xresnet18", "resnet18d"])
def test_it_computes_what_fastais_unet_computes(encoder: str) -> None:
    """Bit by bit, from the same seed, under the same names, also at sizes that no halving divides."""
    nets = []
    for kind in (DynamicUnet, HookFreeUnet):
        torch.manual_seed(0)
        nets.append(kind(build_body(encoder), 2, (64, 64)).eval())
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
