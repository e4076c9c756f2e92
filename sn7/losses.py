"""Losses over valid pixels only.

A target is int64 (N, H, W): bit 0 building, bit 1 boundary, bit 2 contact (see sn7.separation), and IGNORE where a
pixel is invalid; without separation outputs that is 0 background, 1 building and IGNORE. Logits are float (N, 2, H, W),
background and building, of which a softmax makes probs; with separation outputs (N, 4, H, W), the other two boundary
and contact, each on its own through a sigmoid.

Losses are computed in float32 (in float64, if that is what comes), under autocast too. On a GPU nothing here waits for
it. Neither value nor gradient depends on the logits of invalid pixels.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional

from sn7.config import TrainConfig

__all__ = [
    "IGNORE",
    "Dice",
    "Focal",
    "Loss",
    "Lovasz",
    "Separation",
    "WeightedCrossEntropy",
    "WeightedSum",
    "background",
    "build_loss",
    "building",
]

IGNORE = 255
"""Target value of invalid pixels."""


def building(target: Tensor) -> Tensor:
    """Return where a target is valid and building, bool of its shape."""
    return (target & 1 == 1) & (target != IGNORE)


def background(target: Tensor) -> Tensor:
    """Return where a target is valid and not building, bool of its shape; IGNORE has bit 0 as well."""
    return target & 1 == 0


class Loss(nn.Module, ABC):
    """A loss of a batch: `forward` for training, `sums` for validation.

    A batch that comes in pieces (sn7.steps.Steps) is trained with the mean of their losses, each weighted by its
    share of the tiles. Cross-entropy, a mean over pixels, hardly depends on how the batch is cut. Dice and Lovász do:
    each piece has an overlap of its own, over fewer buildings, and a piece without any adds 0 to the mean. Compare
    such losses at the same size of piece.
    """

    @abstractmethod
    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of the batch, float scalar; 0 (with zero gradient) where no pixel is valid."""

    def sums(self, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return two float scalars that add up over batches; their ratio is the validation loss.

        Here, for losses that are no sum over pixels: the batch's loss times its tiles with a valid pixel, and their
        number. So the validation loss is a mean over batches, and depends on which tiles share one.
        """
        loss = self(logits, target)
        tiles = (target != IGNORE).flatten(1).any(1).sum().to(loss.dtype)
        return loss * tiles, tiles


class WeightedCrossEntropy(Loss):
    """Class-weighted cross-entropy, averaged with the weights over valid pixels.

    `building_weight` in (0, 1) weighs building pixels, background pixels get 1 - building_weight.
    """

    def __init__(self, building_weight: float) -> None:
        super().__init__()
        self.weight: Tensor
        self.register_buffer("weight", torch.tensor([1.0 - building_weight, building_weight]))

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the mean loss, float scalar; 0 (with zero gradient) where no pixel is valid."""
        total, weight = self.sums(logits, target)
        return total / weight.clamp(min=torch.finfo(weight.dtype).tiny)

    def sums(self, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return the summed loss and the summed weights of the valid pixels, float scalars: exact over batches."""
        weight = background(target).sum() * self.weight[0] + building(target).sum() * self.weight[1]
        return self.total(logits, target), weight

    def total(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the weighted loss summed over valid pixels, float scalar."""
        classes = torch.where(target == IGNORE, target, target & 1)
        # torch's own sum adds up in any order on a GPU; on a processor it saves a pass over the pixels.
        reduction = "sum" if logits.device.type == "cpu" else "none"
        loss = functional.cross_entropy(
            _full_precision(logits[:, :2]), classes, weight=self.weight, ignore_index=IGNORE, reduction=reduction
        )
        return loss.sum()


class Focal(WeightedCrossEntropy):
    """Focal loss: the cross-entropy of a pixel times (1 - prob of its class) ** gamma.

    T.-Y. Lin et al., Focal Loss for Dense Object Detection, ICCV 2017, the α-balanced form with α = `building_weight`.
    They divide by the number of objects; here the class weights are divided by, so that gamma = 0 is cross-entropy.
    """

    def __init__(self, building_weight: float, gamma: float) -> None:
        super().__init__(building_weight)
        self.gamma = gamma

    def total(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the weighted loss summed over valid pixels, float scalar."""
        margin = _margin(logits, target)
        # exp(gamma × log) instead of a power, whose gradient at 0 is infinite for gamma < 1.
        easing = torch.exp(self.gamma * functional.logsigmoid(-margin))
        weight = background(target) * self.weight[0] + building(target) * self.weight[1]
        return -(weight * easing * functional.logsigmoid(margin)).sum()


class Dice(Loss):
    """1 - 2Σpt / (Σp + Σt), p the probs and t the truth of building, summed over all valid pixels of the batch.

    F. Milletari et al., V-Net, 3DV 2016, without their squares. A batch without buildings has loss 0: the formula would
    give 1 for whatever probs, with zero gradient, and with 1 added to numerator and denominator, as is usual, the
    gradient would be 1 / (1 + Σp)²: nothing where much is wrong, and out of all proportion where little is.
    """

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of the batch, float scalar; 0 (with zero gradient) where no valid pixel is building."""
        truth = building(target)
        wrong = _errors(logits, target)
        probs = torch.where(truth, 1 - wrong, wrong)
        buildings = truth.sum()
        overlap = 2 * (probs * truth).sum() / (probs.sum() + buildings).clamp(min=1)
        return buildings.clamp(max=1) - overlap


class Lovasz(Loss):
    """Lovász-softmax of the building class over all valid pixels of the batch.

    The convex extension of 1 - IoU to errors between 0 and 1: M. Berman et al., The Lovász-Softmax loss, CVPR 2018,
    Algorithm 1. Of the paper's two losses this one works on probs, which are what is averaged and thresholded later;
    the hinge is for logits. A batch without buildings has loss 0, as in the authors' code (classes "present"): the
    extension would be the greatest prob of building, and teach one pixel of all.
    """

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of the batch, float scalar; 0 (with zero gradient) where no valid pixel is building."""
        errors, order = _errors(logits, target).flatten().sort(descending=True)
        truth = building(target).flatten()[order]
        # What is left of the intersection, and what becomes of the union, if the k worst pixels are wrong. Invalid
        # pixels are among the last: they have no error.
        intersection = truth.sum() - truth.cumsum(0)
        union = truth.sum() + (~truth).cumsum(0)
        # By how much the k-th of them raises 1 - IoU, in closed form: of the difference, float32 would leave little.
        rise = torch.where(truth, 1, intersection / (union - 1).clamp(min=1)) / union
        return (errors * rise).sum()


class Separation(Loss):
    """Binary cross-entropy of boundary and contact, averaged over both and over valid pixels."""

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the mean loss, float scalar; 0 (with zero gradient) where no pixel is valid."""
        valid = (target != IGNORE)[:, None]
        outputs = _full_precision(logits[:, 2:])
        truth = torch.stack([target >> 1 & 1, target >> 2 & 1], dim=1).to(outputs.dtype)
        total = functional.binary_cross_entropy_with_logits(outputs, truth, weight=valid, reduction="sum")
        return total / (2 * valid.sum()).clamp(min=1)


class WeightedSum(Loss):
    """Several losses, each times its weight, added up."""

    def __init__(self, *terms: tuple[float, Loss]) -> None:
        super().__init__()
        self.weights = [weight for weight, _ in terms]
        self.losses = nn.ModuleList(loss for _, loss in terms)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of the batch, float scalar; 0 (with zero gradient) where no pixel is valid."""
        parts = [weight * loss(logits, target) for weight, loss in zip(self.weights, self.losses, strict=True)]
        return torch.stack(parts).sum()


def build_loss(config: TrainConfig) -> Loss:
    """Return the loss that `loss`, `building_weight`, `focal_gamma` and `separation_weight` of `config` describe.

    With a separation weight it wants logits with separation outputs.
    """
    cross_entropy = WeightedCrossEntropy(config.building_weight)
    losses: dict[str, Loss] = {
        "cross_entropy": cross_entropy,
        "dice": Dice(),
        "focal": Focal(config.building_weight, config.focal_gamma),
        "cross_entropy_dice": WeightedSum((1.0, cross_entropy), (1.0, Dice())),
        "lovasz": Lovasz(),
    }
    loss = losses[config.loss]
    if config.separation_weight > 0:
        return WeightedSum((1.0, loss), (config.separation_weight, Separation()))
    return loss


def _full_precision(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _margin(logits: Tensor, target: Tensor) -> Tensor:
    """Return by how much each pixel's logit of its class exceeds the other, float (N, H, W); 0 where invalid."""
    logits = _full_precision(logits[:, :2])
    margin = logits[:, 1] - logits[:, 0]
    return torch.where(building(target), margin, torch.where(background(target), -margin, 0))


def _errors(logits: Tensor, target: Tensor) -> Tensor:
    """Return the prob of each pixel's wrong class, float (N, H, W) in [0, 1]; 0 where invalid."""
    return torch.sigmoid(-_margin(logits, target)) * (target != IGNORE)
