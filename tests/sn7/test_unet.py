import pytest
import torch
from fastai.vision.learner import create_unet_model
from fastai.vision.models.xresnet import xresnet34

from sn7.config import TrainConfig
from sn7.encoders import require_encoder
from sn7.errors import EncoderUnknown
from sn7.unet import build_unet, normalize, parameter_groups


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


@pytest.mark.parametrize("encoder", ["xresnet18", "resnet18d", "efficientnet_b0", "regnety_002", "convnext_atto"])
def test_encoders_of_several_families(encoder: str) -> None:
    """Each gives two logits a pixel, at the size it was built for and at others."""
    model = build_unet(TrainConfig(encoder=encoder, tile_size=64)).eval()
    with torch.no_grad():
        for height, width in ((64, 64), (96, 160)):
            assert model(torch.zeros(1, 3, height, width)).shape == (1, 2, height, width)


def test_an_encoder_that_does_not_exist_names_near_ones() -> None:
    """A slip of the pen costs no GPU hour."""
    with pytest.raises(EncoderUnknown, match=r"near names are .*xresnet34"):
        require_encoder("xresnet43")


def test_an_encoder_without_feature_maps_is_refused() -> None:
    """A vision transformer is known to timm but is no half of a U-Net."""
    with pytest.raises(EncoderUnknown, match=r"vit_tiny_patch16_224.*cannot be the first half of a U-Net"):
        build_unet(TrainConfig(encoder="vit_tiny_patch16_224", tile_size=64))


def test_normalize_by_hand() -> None:
    """A pixel of ImageNet's mean becomes 0."""
    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    assert torch.allclose(normalize(mean), torch.zeros(1, 3, 1, 1), atol=1e-6)
