"""Whole-batch augmentation on the device: one resampling, one map of colours, no synchronisation.

Kinds, strengths and probabilities are those of fastai's Dihedral, Rotate, Brightness, Contrast and Saturation, which
the notebook used. fastai asks the device for numbers in between; here all of a batch's draws stay there.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, interpolate

from sn7.config import TrainConfig
from sn7.constants import constant

__all__ = ["Augmentation", "augmentation", "enlarge"]

LIGHTING = 0.75
"""Probability of each change of colours, fastai's."""
LUMA = (0.2989, 0.587, 0.114)
"""Shares of red, green and blue in a grey that looks as bright (ITU-R BT.601)."""
EPS = 1e-7
"""Distance from 0 and 1 at which the logit of a colour is cut off, fastai's."""
SYMMETRIES = (
    *((1, 0, 0, 1), (-1, 0, 0, 1), (1, 0, 0, -1), (-1, 0, 0, -1)),
    *((0, 1, 1, 0), (0, -1, 1, 0), (0, 1, -1, 0), (0, -1, -1, 0)),
)
"""The 8 flips and quarter turns as 2 × 2 matrices, row by row; the first changes nothing."""


def augmentation(config: TrainConfig) -> "Augmentation | None":
    """Return the augmentation of a configuration, or None where all of it is switched off."""
    c = config
    drawn = Augmentation(c.dihedral, c.rotate, c.scale_jitter, c.brightness, c.contrast, c.saturation, c.cutmix)
    return drawn if drawn.moves or drawn.colours or drawn.cutmix > 0 else None


def enlarge(rgb: Tensor, factor: int) -> Tensor:
    """Return float (N, 3, H, W) bilinearly enlarged `factor` times; itself for 1."""
    return rgb if factor == 1 else interpolate(rgb, scale_factor=factor, mode="bilinear", align_corners=False)


@dataclass(frozen=True)
class Augmentation:
    """Takes RGB float (N, 3, h, w) in [0, 1] and its target, int64 (N, H, W), and returns both at H × W.

    H is a whole multiple of h: where images are enlarged, that happens in the same resampling. It is bilinear for
    images and nearest for targets, with mirrors at the border. Draws come from torch's generator of the device.
    """

    dihedral: float
    rotate: float
    scale_jitter: float
    brightness: float
    contrast: float
    saturation: float
    cutmix: float

    @property
    def moves(self) -> bool:
        """Whether pixels change their places."""
        return self.dihedral > 0 or self.rotate > 0 or self.scale_jitter > 0

    @property
    def colours(self) -> bool:
        """Whether pixels change their colours."""
        return self.brightness > 0 or self.contrast > 0 or self.saturation > 0

    def __call__(self, rgb: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return image and target, drawn anew for each tile."""
        if self.colours:  # before an enlargement: fewer pixels
            rgb = self._recolour(rgb)
        if self.moves:
            rgb, target = _resample(rgb, target, self._matrices(rgb))
        else:
            rgb = enlarge(rgb, target.shape[-1] // rgb.shape[-1])
        return self._cut_and_mix(rgb, target) if self.cutmix > 0 else (rgb, target)

    def _matrices(self, rgb: Tensor) -> Tensor:
        """Draw where each tile takes its pixels from: float (N, 2, 3), as affine_grid() takes them."""
        count, device = len(rgb), rgb.device
        kind = torch.randint(0, len(SYMMETRIES), (count,), device=device) * _happens(count, self.dihedral, device)
        symmetry = constant(SYMMETRIES, device, rgb.dtype)[kind].view(-1, 2, 2)
        angle = _uniform(count, -math.pi, math.pi, device) * _happens(count, self.rotate, device)
        widest = math.log1p(self.scale_jitter)
        scale = _uniform(count, -widest, widest, device).exp()
        cos, sin = angle.cos() * scale, angle.sin() * scale
        turn = torch.stack([cos, sin, -sin, cos], dim=1).view(-1, 2, 2)
        return torch.cat([symmetry @ turn, symmetry.new_zeros(count, 2, 1)], dim=2)

    def _recolour(self, rgb: Tensor) -> Tensor:
        """Draw brightness b, contrast c and saturation s, and apply them to the logits x of the colours.

        y = c (x + b), then s y + (1 - s) grey(y): together one 3 × 3 matrix and one offset a tile.
        """
        count, device = len(rgb), rgb.device
        half = _uniform(count, 0.5 - self.brightness / 2, 0.5 + self.brightness / 2, device)
        brightness = half.logit() * _happens(count, LIGHTING, device)
        contrast = _factor(count, self.contrast, device)
        saturation = _factor(count, self.saturation, device)
        identity, grey = torch.eye(3, device=device), constant(LUMA, device).expand(3, 3)
        share = saturation.view(-1, 1, 1)
        matrix = contrast.view(-1, 1, 1) * (share * identity + (1 - share) * grey)
        offset = (matrix.sum(2) * brightness.view(-1, 1)).unsqueeze(2)
        logits = torch.baddbmm(offset, matrix, rgb.logit(EPS).flatten(2))
        return logits.sigmoid().view_as(rgb)

    def _cut_and_mix(self, rgb: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Replace a rectangle of some tiles by that of the tile before them (Yun et al. 2019, CutMix)."""
        count, device, (height, width) = len(rgb), rgb.device, target.shape[1:]
        side = torch.rand(count, device=device).sqrt() * _happens(count, self.cutmix, device)
        rows = _inside(torch.rand(count, device=device), side, height)
        cols = _inside(torch.rand(count, device=device), side, width)
        box = rows.unsqueeze(2) & cols.unsqueeze(1)
        return torch.where(box.unsqueeze(1), rgb.roll(1, 0), rgb), torch.where(box, target.roll(1, 0), target)


def _inside(centre: Tensor, side: Tensor, length: int) -> Tensor:
    """Return which of `length` pixels lie within side / 2 of a centre, both shares of the length: bool (N, length)."""
    place = (torch.arange(length, device=centre.device) + 0.5) / length
    return (place - centre.unsqueeze(1)).abs() < side.unsqueeze(1) / 2


def _resample(rgb: Tensor, target: Tensor, matrices: Tensor) -> tuple[Tensor, Tensor]:
    grid = affine_grid(matrices, [len(rgb), 1, *target.shape[1:]], align_corners=False)
    moved = grid_sample(rgb, grid, "bilinear", "reflection", align_corners=False)
    labels = grid_sample(target.unsqueeze(1).float(), grid, "nearest", "reflection", align_corners=False)
    return moved, labels.squeeze(1).long()


def _happens(count: int, probability: float, device: torch.device) -> Tensor:
    """Return True with a probability, for each tile: bool (N,)."""
    return torch.rand(count, device=device) < probability


def _uniform(count: int, low: float, high: float, device: torch.device) -> Tensor:
    return torch.empty(count, device=device).uniform_(low, high)


def _factor(count: int, strength: float, device: torch.device) -> Tensor:
    """Return a factor from 1 - strength to 1 / (1 - strength) for each tile, or 1."""
    widest = -math.log1p(-strength)
    return (_uniform(count, -widest, widest, device) * _happens(count, LIGHTING, device)).exp()
