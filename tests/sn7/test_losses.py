import math

import pytest
import torch

from sn7.losses import IGNORE, WeightedCrossEntropy


def test_the_loss_by_hand() -> None:
    """One building pixel at prob 0.9 (weight 0.75), one background pixel at 0.2 (weight 0.25), one invalid."""
    logits = torch.tensor([[[[0.0, 0.0, 5.0]], [[math.log(9.0), math.log(0.25), -5.0]]]])
    target = torch.tensor([[[1, 0, IGNORE]]])
    wanted = (0.75 * -math.log(0.9) + 0.25 * -math.log(0.8)) / (0.75 + 0.25)
    assert WeightedCrossEntropy(0.75)(logits, target).item() == pytest.approx(wanted, rel=1e-6)


def test_sums_of_batches_add_up_to_the_loss_of_all() -> None:
    """Batches with unequal numbers of valid pixels are averaged over pixels, not over batches."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 2, 8, 8, generator=generator)
    target = torch.randint(0, 2, (4, 8, 8), generator=generator)
    target[0, :6] = IGNORE
    loss = WeightedCrossEntropy(0.6)
    parts = [loss.sums(logits[i : i + 1], target[i : i + 1]) for i in range(4)]
    total = sum(part[0].item() for part in parts) / sum(part[1].item() for part in parts)
    assert loss(logits, target).item() == pytest.approx(total, rel=1e-5)


def test_invalid_pixels_have_no_gradient() -> None:
    """What is invalid does not train the network."""
    logits = torch.zeros(1, 2, 1, 2, requires_grad=True)
    WeightedCrossEntropy(0.5)(logits, torch.tensor([[[1, IGNORE]]])).backward()
    assert logits.grad is not None
    assert logits.grad[0, :, 0, 0].abs().sum() > 0
    assert logits.grad[0, :, 0, 1].abs().sum() == 0


def test_a_batch_without_valid_pixels_is_no_loss() -> None:
    """0 / 0 would end the training as diverged."""
    logits = torch.ones(1, 2, 2, 2, requires_grad=True)
    loss = WeightedCrossEntropy(0.5)(logits, torch.full((1, 2, 2), IGNORE))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None and torch.isfinite(logits.grad).all()
