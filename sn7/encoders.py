"""Encoder names → bodies: the first half of a U-Net, as a sequence of modules that fastai's DynamicUnet can hook.

Encoders are fastai's xresnets and every timm model whose layers before the pooling run one after the other.
"""

import difflib

import timm
from fastai.vision.models import xresnet
from torch import nn

from sn7.errors import EncoderUnknown

__all__ = ["build_body", "require_encoder"]

XRESNETS = ("xresnet18", "xresnet34", "xresnet50", "xresnet101")
XRESNET_HEAD = 4
"""Modules of an xresnet behind its last feature map: pooling, flatten, dropout, linear."""

TIMM_STAGES = ("blocks", "stages")
"""Children of a timm model that hold one module a resolution."""
TIMM_HEAD = ("conv_head", "norm_pre", "global_pool", "fc", "head", "classifier", "flatten", "head_drop")
"""Children of a timm model that no feature map passes through; the body ends before the first of them."""


def require_encoder(name: str) -> None:
    """Raise EncoderUnknown, naming near ones, if there is no encoder `name`; builds nothing."""
    if name in XRESNETS or name in timm.list_models():
        return
    near = difflib.get_close_matches(name, [*XRESNETS, *timm.list_models()], n=3)
    raise EncoderUnknown(
        f"encoder {name!r} is neither one of {', '.join(XRESNETS)} nor a timm model"
        + (f"; near names are {', '.join(near)}." if near else ".")
    )


def build_body(name: str) -> nn.Sequential:
    """Return an encoder with random weights: float (N, 3, H, W) → its last feature map.

    Raises EncoderUnknown where the name is unknown or the model is not a sequence of modules.
    """
    require_encoder(name)
    if name in XRESNETS:
        return nn.Sequential(*list(getattr(xresnet, name)(pretrained=False).children())[:-XRESNET_HEAD])
    modules: list[nn.Module] = []
    for child_name, child in timm.create_model(name, pretrained=False).named_children():
        if child_name in TIMM_HEAD:
            break
        modules.extend(child.children() if child_name in TIMM_STAGES else [child])
    return nn.Sequential(*modules)
