from typing import Any

import pytest
import torch
from fastai.vision.learner import create_unet_model
from fastai.vision.models.unet import DynamicUnet
from fastai.vision.models.xresnet import xresnet18, xresnet34
from torch import nn

from sn7.config import TrainConfig
from sn7.encoders import build_body
from sn7.errors import EncoderUnknown
from sn7.unet import build_unet, normalize, output_channels, parameter_groups


def test_the_notebook_recipe_has_the_notebooks_parameters() -> None:
    """41,240,400, all of them in the three groups that learn at rates of their own."""
    model = build_unet(TrainConfig())
    assert sum(parameter.numel() for parameter in model.parameters()) == 41_240_400
    grouped = [parameter for group in parameter_groups(model) for parameter in group]
    assert len({id(parameter) for parameter in grouped}) == len(list(model.parameters()))


def test_the_notebook_network_is_fastais() -> None:
    """With fastai's own weights it computes what fastai's U-Net computes."""
    theirs = create_unet_model(xresnet34, 2, (64, 64), pretrained=False).eval()
    ours = build_unet(TrainConfig(tile_size=64)).eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    batch = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(ours(batch), theirs(batch), atol=1e-5)


def test_a_seed_gives_the_weights_of_fastais_unet() -> None:
    """Options that are off draw nothing: the losses of seeded trainings stay what they were."""
    torch.manual_seed(0)
    body = nn.Sequential(*list(xresnet18(pretrained=False).children())[:-4])
    theirs = DynamicUnet(body, 2, (64, 64)).state_dict()
    torch.manual_seed(0)
    ours = build_unet(TrainConfig(encoder="xresnet18", tile_size=64)).state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], tensor) for name, tensor in theirs.items())


OPTIONS: list[dict[str, Any]] = [
    {"aspp": True},
    {"self_attention": True},
    {"activation": "mish"},
    {"activation": "silu"},
    {"blur": True},
    {"separation_weight": 0.5},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_each_option_changes_the_network_and_trains(options: dict[str, Any]) -> None:
    """A step of gradient descent reaches every weight and lowers the loss; the encoder is the same in all."""
    torch.manual_seed(0)
    plain = build_unet(TrainConfig(encoder="xresnet18", tile_size=64))
    torch.manual_seed(0)
    config = TrainConfig(encoder="xresnet18", tile_size=64, **options)
    model = build_unet(config)
    assert str(model[0]) == str(plain[0])
    assert str(model) != str(plain)
    images, target = torch.rand(2, 3, 64, 64), torch.randint(output_channels(config), (2, 64, 64))
    optimizer = torch.optim.SGD(model.train().parameters(), lr=1e-3)
    before = nn.functional.cross_entropy(model(images), target)
    before.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    optimizer.step()
    assert nn.functional.cross_entropy(model(images), target) < before


def test_options_are_of_the_decoder() -> None:
    """Together, too: the encoder keeps its two groups, all that the options add learns as the decoder does."""
    options = {name: value for option in OPTIONS for name, value in option.items()}
    with torch.device("meta"):
        models = [build_unet(TrainConfig(encoder="xresnet18", **chosen)) for chosen in ({}, options)]
        assert models[1](torch.rand(1, 3, 96, 64)).shape == (1, 4, 96, 64)
    plain, rich = ([sum(one.numel() for one in group) for group in parameter_groups(model)] for model in models)
    assert plain[:2] == rich[:2]
    assert plain[2] < rich[2]
    assert sum(rich) == sum(parameter.numel() for parameter in models[1].parameters())


def test_large_tiles_cost_nothing_to_build_for() -> None:
    """2,048 px tiles at four times the scale get the network of 255 px tiles, without an image of their size."""
    large = build_unet(TrainConfig(encoder="xresnet18", tile_size=2048, upscale=4))
    usual = build_unet(TrainConfig(encoder="xresnet18"))
    assert [one.shape for one in large.parameters()] == [one.shape for one in usual.parameters()]


@pytest.mark.parametrize(("tile_size", "upscale"), [(255, 1), (300, 1), (512, 1), (515, 1), (150, 2), (255, 4)])
def test_what_an_encoder_trips_over_it_trips_over_when_built(tile_size: int, upscale: int) -> None:
    """dla34 cannot halve some sizes, which a smaller image in place of a large tile must not hide."""
    side = tile_size * upscale
    config = TrainConfig(encoder="dla34", tile_size=tile_size, upscale=upscale)
    with torch.device("meta"):
        try:
            build_body("dla34")(torch.rand(1, 3, side, side))
        except RuntimeError:
            with pytest.raises(EncoderUnknown, match=f"'dla34' cannot be the first half .* of {tile_size} px"):
                build_unet(config)
        else:
            assert build_unet(config)(torch.rand(1, 3, side, side)).shape == (1, 2, side, side)


def test_normalize_by_hand() -> None:
    """A pixel of ImageNet's mean becomes 0."""
    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    assert torch.allclose(normalize(mean), torch.zeros(1, 3, 1, 1), atol=1e-6)
