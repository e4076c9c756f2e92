import pytest
import timm
import torch

from sn7.config import TrainConfig
from sn7.encoders import XRESNETS, TimmBody, build_body, require_encoder, stem_and_rest
from sn7.errors import EncoderUnknown
from sn7.unet import build_unet

TRAINED = [
    "xresnet18",
    "xresnet34",
    "xresnet50",
    "xresnet18_deep",
    "xse_resnet18",
    "xresnext18",
    "resnet18d",
    "resnet34d",
    "resnet50d",
    "resnext50_32x4d",
    "efficientnet_b0",
    "efficientnet_b3",
    "convnext_atto",
    "regnety_002",
    "mobilenetv3_large_100",
    "dla34",
]
LARGE = ("xresnet34", "xresnet50", "resnet34d", "resnet50d", "resnext50_32x4d", "efficientnet_b3")
"""Seconds each."""
MARKED = [pytest.param(name, marks=pytest.mark.slow if name in LARGE else ()) for name in TRAINED]
BROKEN_IN_FASTAI = "xsenet154"
"""fastai forgets its `expansion`."""
BUILT = [
    *(name for name in XRESNETS if name not in (*TRAINED, BROKEN_IN_FASTAI)),
    "resnet101d",
    "densenet121",
    "hrnet_w18_small",
    "xception41",
    "inception_v3",
    *(f"efficientnet_b{i}" for i in (1, 2, 4, 5)),
]


def _step(encoder: str, side: int) -> list[bool]:
    """Run forward and backward on two tiles; return whether each weight has got a gradient."""
    model = build_unet(TrainConfig(encoder=encoder, tile_size=side)).train()
    logits = model(torch.rand(2, 3, side, side))
    assert logits.shape == (2, 2, side, side)
    logits.mean().backward()
    return [parameter.grad is not None for parameter in model.parameters()]


@pytest.mark.parametrize("encoder", MARKED)
def test_encoders_train(encoder: str) -> None:
    """One step of each reaches every weight: none of them is idle."""
    assert all(_step(encoder, 64))


@pytest.mark.slow
@pytest.mark.parametrize("encoder", BUILT)
def test_more_encoders_build(encoder: str) -> None:
    """Large ones and variants run on shapes without values, at the notebook's odd size."""
    with torch.device("meta"):
        assert all(_step(encoder, 255))


@pytest.mark.parametrize("encoder", ["xresnet18", "resnet18d", "efficientnet_b0", "convnext_atto"])
def test_any_size_goes_through(encoder: str) -> None:
    """Two logits a pixel also at sizes that the U-Net was not built for, square or not."""
    model = build_unet(TrainConfig(encoder=encoder, tile_size=64)).eval()
    with torch.no_grad():
        for height, width in ((64, 64), (96, 160), (65, 127)):
            assert model(torch.zeros(1, 3, height, width)).shape == (1, 2, height, width)


@pytest.mark.parametrize("encoder", ["resnet18d", "efficientnet_b0", "densenet121"])
def test_a_timm_body_computes_what_timm_does(encoder: str) -> None:
    """Its taps hand on timm's own feature maps, and the last is what the body returns."""
    body = build_body(encoder).eval()
    assert isinstance(body, TimmBody)
    tapped: list[torch.Tensor] = []
    for tap in body:
        tap.register_forward_hook(lambda _, __, feature_map: tapped.append(feature_map))
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        last, maps = body(image), body.net(image)
    assert all(torch.equal(one, other) for one, other in zip(tapped, maps, strict=True))
    assert last is tapped[-1]


def test_building_a_timm_body_draws_no_more_than_timm() -> None:
    """Asking for the feature maps leaves torch's generator alone, so seeded weights are timm's own."""
    torch.manual_seed(0)
    ours = build_body("resnet18d").state_dict()
    torch.manual_seed(0)
    theirs = timm.create_model("resnet18d", features_only=True).state_dict()
    assert all(torch.equal(ours[f"net.{name}"], tensor) for name, tensor in theirs.items())


def test_the_stem_is_what_runs_before_the_first_pooling() -> None:
    """resnet34d and its twin have the same one: three convolutions, three batch norms."""
    shapes = [[list(one.shape) for one in stem_and_rest(build_body(name))[0]] for name in ("xresnet34", "resnet34d")]
    assert shapes[0] == shapes[1]
    assert len(shapes[0]) == 9


@pytest.mark.parametrize("encoder", ["xse_resnet18", "efficientnet_b0", "convnext_atto", "hrnet_w18_small"])
def test_stem_and_rest_are_all_of_the_encoder(encoder: str) -> None:
    """Each weight in one group, and no group empty."""
    with torch.device("meta"):
        body = build_body(encoder)
    stem, rest = stem_and_rest(body)
    assert stem and rest
    assert sorted(map(id, [*stem, *rest])) == sorted(map(id, body.parameters()))


def test_an_encoder_that_does_not_exist_names_near_ones() -> None:
    """A slip of the pen costs no GPU hour."""
    with pytest.raises(EncoderUnknown, match=r"near names are .*xresnet34"):
        require_encoder("xresnet43")


@pytest.mark.parametrize("encoder", ["init_cnn", "XResNet", "se_kwargs1"])
def test_fastais_other_names_are_no_encoders(encoder: str) -> None:
    """Its module of xresnets also exports what they are made with."""
    with pytest.raises(EncoderUnknown, match="neither an xresnet of fastai nor a timm model"):
        require_encoder(encoder)


@pytest.mark.parametrize(
    ("encoder", "side"),
    [
        ("vit_tiny_patch16_224", 64),  # one resolution
        ("swin_tiny_patch4_window7_224", 224),  # one size of image
        ("convmixer_1024_20_ks9_p14", 64),
        (BROKEN_IN_FASTAI, 64),
    ],
)
def test_an_encoder_that_makes_no_unet_is_refused(encoder: str, side: int) -> None:
    """In one sentence that says why, also where it would fit at this one size."""
    with (
        torch.device("meta"),
        pytest.raises(EncoderUnknown, match=rf"encoder '{encoder}' cannot be the first half of a U-Net .*take a conv"),
    ):
        build_unet(TrainConfig(encoder=encoder, tile_size=side))
