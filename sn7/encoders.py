"""Encoder names → bodies: the first half of a U-Net, as a sequence that fastai's DynamicUnet can hook.

Encoders are fastai's xresnets, with their variants, and every timm model that gives feature maps of several
resolutions, at any size of its input.
"""

import difflib
import inspect
from collections.abc import Iterator

import timm
import torch
from fastai.vision.models import xresnet
from torch import Tensor, nn

from sn7.errors import EncoderUnknown

__all__ = ["XRESNETS", "TimmBody", "build_body", "require_encoder", "stem_and_rest"]

XRESNETS = tuple(name for name in xresnet.__all__ if name.startswith("x") and inspect.isfunction(vars(xresnet)[name]))
XRESNET_STEM = 3
"""Modules of an xresnet in front of its first pooling."""
XRESNET_HEAD = 4
"""Modules of an xresnet behind its last feature map: pooling, flatten, dropout, linear."""
PROBE = 96
"""Side of the image, in pixels, that a timm model shows its feature maps with; no model's own size."""


class TimmBody(nn.Module):
    """A timm model as the sequence of its feature maps: float (N, 3, H, W) → the last, smallest of them.

    DynamicUnet hooks the members of a sequence. They are one tap a map, which hands on what the net has
    computed, in whatever order: so no family of models needs a rule of its own.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        with torch.enable_grad():
            maps = net.eval()(torch.zeros(1, 3, PROBE, PROBE))
            named = {name: parameter for name, parameter in net.named_parameters() if parameter.requires_grad}
            gradients = torch.autograd.grad(maps[0].sum(), list(named.values()), allow_unused=True)
        net.train()
        self.taps = nn.ModuleList(nn.Identity() for _ in maps)
        self.stem = frozenset(name for name, gradient in zip(named, gradients, strict=True) if gradient is not None)
        """Names of the parameters that the first feature map is computed with."""

    def __getitem__(self, index: int) -> nn.Module:
        return self.taps[index]

    def __iter__(self) -> Iterator[nn.Module]:
        return iter(self.taps)

    def forward(self, image: Tensor) -> Tensor:
        """Return the last feature map, having passed each of them through its tap."""
        return [tap(feature_map) for tap, feature_map in zip(self.taps, self.net(image), strict=True)][-1]


def require_encoder(name: str) -> None:
    """Raise EncoderUnknown, naming near ones, if there is no encoder `name`; builds nothing."""
    known = [*XRESNETS, *timm.list_models()]
    if name in known:
        return
    near = difflib.get_close_matches(name, known, n=3)
    raise EncoderUnknown(
        f"encoder {name!r} is neither an xresnet of fastai nor a timm model"
        + (f"; near names are {', '.join(near)}." if near else "; wanted a name such as xresnet34 or resnet34d.")
    )


def build_body(name: str) -> nn.Sequential | TimmBody:
    """Return an encoder with random weights: float (N, 3, H, W) → its last feature map.

    Raises EncoderUnknown where the name is unknown. What a timm model without feature maps, or of one fixed
    input size, trips over passes through as it is.
    """
    require_encoder(name)
    if name in XRESNETS:
        return nn.Sequential(*list(vars(xresnet)[name](pretrained=False).children())[:-XRESNET_HEAD])
    return TimmBody(timm.create_model(name, pretrained=False, features_only=True))


def stem_and_rest(body: nn.Sequential | TimmBody) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Return an encoder's parameters in two groups: those of its first feature map, and all others."""
    if isinstance(body, TimmBody):
        named = list(body.net.named_parameters())
        stem = [parameter for name, parameter in named if name in body.stem]
        return stem, [parameter for name, parameter in named if name not in body.stem]
    return list(body[:XRESNET_STEM].parameters()), list(body[XRESNET_STEM:].parameters())
