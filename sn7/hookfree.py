"""fastai's DynamicUnet, the same modules under the same names, with a forward pass that needs no hooks.

fastai's U-Net hands feature maps to its decoder through forward hooks, and the image through an attribute of each
tensor. Neither can be compiled or exported, and a copy of such a model reads the maps of the first one.
"""

import torch
from fastai.layers import MergeLayer, ToTensorBase
from fastai.vision.models.unet import DynamicUnet, ResizeToOrig, UnetBlock
from torch import Tensor, nn
from torch.nn.functional import interpolate

from sn7.encoders import TimmBody

__all__ = ["HookFreeUnet"]


class HookFreeUnet(DynamicUnet):
    """Float (N, 3, H, W) → logits (N, n_out, H, W); built as DynamicUnet is, computes what it computes."""

    def __init__(self, encoder: nn.Sequential | TimmBody, *arguments: object, **options: object) -> None:
        super().__init__(encoder, *arguments, **options)
        self.skips = [place for place, layer in enumerate(encoder) if layer._forward_hooks]
        """Places of the feature maps that the decoder is connected to, the largest first."""
        self.sfs.remove()

    def forward(self, image: Tensor) -> Tensor:
        """Return the logits, at the image's size, whatever it is."""
        body, *rest = self.layers
        maps = _feature_maps(body, image)
        x, skips = maps[-1], [maps[place] for place in self.skips]
        for layer in rest:
            if isinstance(layer, UnetBlock):
                x = _decode(layer, x, skips.pop())
            elif isinstance(layer, ResizeToOrig):
                x = _resized(x, image)
            elif isinstance(layer, MergeLayer):
                x = torch.cat([x, image], dim=1)
            elif not isinstance(layer, ToTensorBase):  # which is for tensors of fastai's own classes
                x = layer(x)
        return x


def _feature_maps(body: nn.Sequential | TimmBody, image: Tensor) -> list[Tensor]:
    """Return what each member of an encoder hands on."""
    if isinstance(body, TimmBody):
        return list(body.net(image))
    maps = [image]
    for layer in body:
        maps.append(layer(maps[-1]))
    return maps[1:]


def _decode(block: UnetBlock, deeper: Tensor, skip: Tensor) -> Tensor:
    """Return one resolution of the decoder, from the one below it and the encoder's map of its own."""
    joined = torch.cat([_resized(block.shuf(deeper), skip), block.bn(skip)], dim=1)
    return block.conv2(block.conv1(block.relu(joined)))


def _resized(x: Tensor, like: Tensor) -> Tensor:
    """Return x at the height and width of another tensor.

    A graph that is exported must not even ask whether they differ: the answer for its example would become part of it.
    """
    if not _exporting() and x.shape[-2:] == like.shape[-2:]:
        return x
    return interpolate(x, like.shape[-2:], mode="nearest")


def _exporting() -> bool:
    return torch.jit.is_tracing() or torch.compiler.is_exporting()
