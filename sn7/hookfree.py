"""fastai's DynamicUnet, the same modules under the same names, with a forward pass that needs no hooks.

fastai's U-Net hands feature maps to its decoder through forward hooks, and the image through an attribute of each
tensor. Neither can be compiled or exported, and a copy of such a model reads the maps of the first one.

What is channels last stays so, and what is half precision, too: each convolution would else convert its input.
"""

import torch
from fastai.layers import MergeLayer, PixelShuffle_ICNR, ToTensorBase
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
        for upsampling in [module for module in self.modules() if isinstance(module, PixelShuffle_ICNR)]:
            _, shuffle, *blur = upsampling
            upsampling[1] = _Shuffle(shuffle.upscale_factor)
            if blur:
                upsampling[2] = _Pad(blur[0].padding)

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
                x = torch.cat([x, image.to(x.dtype)], dim=1)
            elif not isinstance(layer, ToTensorBase):  # which is for tensors of fastai's own classes
                x = layer(x)
        return x


class _Shuffle(nn.PixelShuffle):
    """torch's, which away from a processor returns rows of pixels whatever it is given."""

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type == "cpu":
            return super().forward(x)
        (count, _, height, width), scale = x.shape, self.upscale_factor
        parts = x.permute(0, 2, 3, 1).unflatten(3, (-1, scale, scale)).permute(0, 1, 4, 2, 5, 3)
        return parts.reshape(count, height * scale, width * scale, -1).permute(0, 3, 1, 2)


class _Pad(nn.ReplicationPad2d):
    """torch's for the blur, one pixel above and to the left: in the order and precision of its input.

    On a GPU the gradient of torch's own adds up in any order, so that two trainings would differ.
    """

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([x[..., :1], x], dim=-1)
        return torch.cat([x[..., :1, :], x], dim=-2)


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
