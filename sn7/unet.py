"""TrainConfig → the U-Net: fastai's DynamicUnet over an encoder, with an output channel for each class."""

from torch import Tensor, nn

from sn7.aspp import ASPP
from sn7.config import TrainConfig
from sn7.constants import constant
from sn7.encoders import build_body, stem_and_rest
from sn7.errors import EncoderUnknown
from sn7.hookfree import HookFreeUnet

__all__ = [
    "CLASSES",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "SEPARATION",
    "build_unet",
    "normalize",
    "output_channels",
    "parameter_groups",
]

CLASSES = 2
"""Output channels of every U-Net: background, building."""
SEPARATION = 2
"""Output channels behind them where separation is trained: boundary, contact."""
MIN_SKIPS = 3
"""Resolutions of the encoder that the decoder must be able to connect to, for the result to be a U-Net."""
DRY_RUN = 256
"""Largest side, in pixels, of the image that DynamicUnet counts resolutions and channels with. It is enough for eight
halvings, and the network is that of larger tiles too."""
STRIDE = 32
"""Pixels of the image to one of the last feature map, in most encoders."""
ENCODER_ENDS = 3
"""Place, in the U-Net's sequence, behind the encoder and its normalisation: ASPP goes there."""
ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "mish": nn.Mish, "silu": nn.SiLU}
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def output_channels(config: TrainConfig) -> int:
    """Return how many logits a pixel has: background, building and, where they are trained, boundary, contact."""
    return CLASSES + (SEPARATION if config.separation_weight > 0 else 0)


def build_unet(config: TrainConfig) -> nn.Module:
    """Return the U-Net of a configuration: float (N, 3, H, W) → logits (N, output_channels, H, W).

    H and W may be those of the configuration's tiles or any multiples of 32; most encoders take all others, too.
    All weights are random, drawn from torch's current generator, whatever `pretrained` says: a training starts
    with sn7.pretrained, a finished model has its own. Raises EncoderUnknown where the encoder does not exist or
    cannot be the first half of a U-Net.
    """
    activation = ACTIVATIONS[config.activation]
    side = _dry_run_side(config)
    try:
        model = HookFreeUnet(
            build_body(config.encoder),
            output_channels(config),
            (side, side),
            blur=config.blur,
            self_attention=config.self_attention,
            act_cls=activation,
        )
    except (AssertionError, AttributeError, LookupError, RuntimeError, StopIteration, TypeError, ValueError) as error:
        # Whatever an architecture trips over that has no feature maps, or not at this size.
        raise EncoderUnknown(_unfit(config, " ".join(repr(error).split())[:200])) from error
    if len(model.skips) < MIN_SKIPS:
        raise EncoderUnknown(
            _unfit(config, f"it has {len(model.skips)} resolutions to connect; wanted {MIN_SKIPS} or more")
        )
    if config.aspp:
        model.insert(ENCODER_ENDS, ASPP(model[1].num_features, activation))
    return model


def _dry_run_side(config: TrainConfig) -> int:
    """Return the side of the tiles that are trained on or, in place of a large one, a side of the same remainder."""
    side = config.tile_size * config.upscale
    return side if side <= DRY_RUN else DRY_RUN - -side % STRIDE


def _unfit(config: TrainConfig, reason: str) -> str:
    return (
        f"encoder {config.encoder!r} cannot be the first half of a U-Net for tiles of {config.tile_size} px and images "
        f"of any size ({reason}); take a convolutional one, such as resnet34d or xresnet34."
    )


def parameter_groups(model: nn.Module) -> list[list[nn.Parameter]]:
    """Return the parameters in three groups: stem, rest of the encoder, decoder.

    The stem of an xresnet is fastai's, so that discriminative learning rates mean the same as in the notebook.
    """
    body, decoder = model[0], model[1:]  # type: ignore[index]
    return [*stem_and_rest(body), list(decoder.parameters())]


def normalize(rgb: Tensor) -> Tensor:
    """Return RGB, float (N, 3, H, W) in [0, 1], with ImageNet's mean and standard deviation taken off."""
    mean, std = (constant(of, rgb.device, rgb.dtype).view(1, 3, 1, 1) for of in (IMAGENET_MEAN, IMAGENET_STD))
    return (rgb - mean) / std
