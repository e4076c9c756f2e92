"""TrainConfig → the U-Net: fastai's DynamicUnet over an encoder, with two output channels."""

import torch
from fastai.vision.models.unet import DynamicUnet
from torch import Tensor, nn

from sn7.config import TrainConfig
from sn7.encoders import build_body
from sn7.errors import EncoderUnknown

__all__ = ["CLASSES", "IMAGENET_MEAN", "IMAGENET_STD", "build_unet", "normalize", "parameter_groups"]

CLASSES = 2
"""Output channels: background, building."""
MIN_SKIPS = 3
"""Resolutions of the encoder that the decoder must be able to connect to, for the result to be a U-Net."""
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def build_unet(config: TrainConfig) -> nn.Module:
    """Return the U-Net of a configuration: float (N, 3, H, W) → logits (N, 2, H, W), for any H and W.

    The weights are random, drawn from torch's current generator. Raises EncoderUnknown where the encoder
    does not exist or cannot be the first half of a U-Net.
    """
    body = build_body(config.encoder)
    try:
        model = DynamicUnet(body, CLASSES, (config.tile_size, config.tile_size))
    except (AssertionError, AttributeError, IndexError, RuntimeError, TypeError, ValueError) as error:
        # Whatever an architecture trips over when its parts are run one after the other.
        raise EncoderUnknown(_unfit(config, f"{type(error).__name__}: {error}")) from error
    if len(model.sfs) < MIN_SKIPS:
        raise EncoderUnknown(
            _unfit(config, f"it has {len(model.sfs)} resolutions to connect; wanted {MIN_SKIPS} or more")
        )
    return model


def _unfit(config: TrainConfig, reason: str) -> str:
    return (
        f"encoder {config.encoder!r} cannot be the first half of a U-Net at {config.tile_size} px ({reason}); "
        "take a convolutional one, such as resnet34d or xresnet34."
    )


def parameter_groups(model: nn.Module) -> list[list[nn.Parameter]]:
    """Return the parameters in three groups: stem, rest of the encoder, decoder.

    fastai's rule for xresnets, so that discriminative learning rates mean the same as in the notebook.
    """
    body, decoder = model[0], model[1:]  # type: ignore[index]
    return [list(part.parameters()) for part in (body[:3], body[3:], decoder)]


def normalize(rgb: Tensor) -> Tensor:
    """Return RGB, float (N, 3, H, W) in [0, 1], with ImageNet's mean and standard deviation taken off."""
    mean = torch.tensor(IMAGENET_MEAN, device=rgb.device, dtype=rgb.dtype).view(1, 3, 1, 1)
    std = torch.tensor(IMAGENET_STD, device=rgb.device, dtype=rgb.dtype).view(1, 3, 1, 1)
    return (rgb - mean) / std
