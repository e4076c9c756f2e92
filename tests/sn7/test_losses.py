import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from sn7.config import TrainConfig
from sn7.losses import IGNORE, Focal, Loss, Lovasz, WeightedCrossEntropy, background, build_loss, building

LOSSES = ["cross_entropy", "dice", "focal", "cross_entropy_dice", "lovasz"]
each_loss = pytest.mark.parametrize(("name", "separation"), list(itertools.product(LOSSES, [0.0, 0.5])))


def make(name: str, separation: float = 0.0) -> Loss:
    """Return a loss by its name, building weighs 0.75 and gamma is 2."""
    return build_loss(TrainConfig(loss=name, building_weight=0.75, focal_gamma=2.0, separation_weight=separation))


def logits_of(*probs: list[float]) -> Tensor:
    """Return logits (1, 1 + len(probs), 1, pixels) that give these probs: of building, boundary and contact."""
    outputs = torch.logit(torch.tensor(probs, dtype=torch.float32))
    return torch.cat([torch.zeros_like(outputs[:1]), outputs])[None, :, None]


def random_batch(
    separation: float = 0.0, size: int = 6, dtype: torch.dtype = torch.float32, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Return logits and target of 3 tiles, some pixels of which are invalid."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, 4 if separation else 2, size, size, generator=generator, dtype=dtype)
    target = torch.randint(0, 8 if separation else 2, (3, size, size), generator=generator)
    target[torch.rand(target.shape, generator=generator) < 0.3] = IGNORE
    return logits, target


def gradient(loss: Loss, logits: Tensor, target: Tensor) -> tuple[float, Tensor]:
    """Return the loss of a batch and its gradient in the logits."""
    logits = logits.clone().requires_grad_()
    value = loss(logits, target)
    (found,) = torch.autograd.grad(value, logits)
    return value.item(), found


def test_targets_are_read_bit_by_bit() -> None:
    """Contact lies on buildings and between them; what is invalid is neither building nor background."""
    target = torch.tensor([0, 1, 2, 3, 4, 5, 7, IGNORE])
    assert building(target).tolist() == [False, True, False, True, False, True, True, False]
    assert background(target).tolist() == [True, False, True, False, True, False, False, False]


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        # 0.75 (-ln 0.9 - ln 0.4) + 0.25 (-ln 0.8 - ln 0.3) = 1.123018, by weights of 2 × 0.75 + 2 × 0.25
        ("cross_entropy", 0.561509),
        # 1 - 2 (0.9 + 0.4) / (0.9 + 0.4 + 0.2 + 0.7 + 2)
        ("dice", 0.380952),
        # 0.75 (0.1² × 0.105361 + 0.6² × 0.916291) + 0.25 (0.2² × 0.223144 + 0.7² × 1.203973) = 0.397907, by 2
        ("focal", 0.198953),
        ("cross_entropy_dice", 0.942461),
        # Worst first: background 0.7, building 0.6, background 0.2, building 0.1. IoU goes down to 2/3, 1/3, 1/4, 0:
        # 0.7 × 1/3 + 0.6 × 1/3 + 0.2 × 1/12 + 0.1 × 1/4
        ("lovasz", 0.475),
    ],
)
def test_each_loss_by_hand(name: str, wanted: float) -> None:
    """Two building pixels at 0.9 and 0.4, two background pixels at 0.2 and 0.7, and one that is invalid."""
    logits = logits_of([0.9, 0.4, 0.2, 0.7, 0.99])
    assert make(name)(logits, torch.tensor([[[1, 1, 0, 0, IGNORE]]])).item() == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_the_separation_term_by_hand(name: str) -> None:
    """One building and boundary pixel, one background and contact pixel, and one that is invalid."""
    logits = logits_of([0.9, 0.2, 0.99], [0.8, 0.25, 0.99], [0.4, 0.5, 0.99])
    separation = -(math.log(0.8) + math.log(0.75) + math.log(0.6) + math.log(0.5)) / 4
    alone = make(name)(logits[:, :2], torch.tensor([[[1, 0, IGNORE]]])).item()
    both = make(name, 0.5)(logits, torch.tensor([[[1 | 2, 4, IGNORE]]])).item()
    assert both == pytest.approx(alone + 0.5 * separation, rel=1e-6)


def test_cross_entropy_stays_what_it_was() -> None:
    """To the last bit: a seeded training gives the losses that it gave before there were other losses."""
    logits, target = random_batch(size=50)
    total = functional.cross_entropy(
        logits, target, weight=torch.tensor([0.25, 0.75]), ignore_index=IGNORE, reduction="sum"
    )
    weight = (target == 0).sum() * torch.tensor(0.25) + (target == 1).sum() * torch.tensor(0.75)
    assert WeightedCrossEntropy(0.75)(logits, target).equal(total / weight)


def test_focal_loss_without_focus_is_cross_entropy() -> None:
    """gamma = 0 weighs all pixels alike."""
    batch = random_batch()
    assert Focal(0.75, 0.0)(*batch).item() == pytest.approx(WeightedCrossEntropy(0.75)(*batch).item(), rel=1e-6)


@pytest.mark.parametrize("seed", range(20))
def test_lovasz_is_the_extension_of_the_jaccard_loss(seed: int) -> None:
    """Its definition as an integral: the mean over thresholds of 1 - IoU where errors above them are mistakes."""
    logits, target = random_batch(size=3, dtype=torch.float64, seed=seed)
    probs, truth = logits.softmax(1)[:, 1][target != IGNORE], building(target)[target != IGNORE]
    errors = (truth.double() - probs).abs()
    wanted, below = 0.0, 0.0
    for threshold in errors.sort().values.tolist():
        mistakes = errors >= threshold
        wanted += (threshold - below) * (mistakes.sum() / (truth | mistakes).sum()).item()
        below = threshold
    assert Lovasz()(logits, target).item() == pytest.approx(wanted, abs=1e-6)


@each_loss
def test_invalid_pixels_count_for_nothing(name: str, separation: float) -> None:
    """Neither the loss nor its gradient depends on huge logits there, and they have no gradient themselves."""
    loss, (logits, target) = make(name, separation), random_batch(separation)
    value, found = gradient(loss, logits, target)
    invalid = (target == IGNORE)[:, None].expand_as(logits)
    huge = torch.where(invalid, 1e30 * logits.sign(), logits)
    assert found[invalid].eq(0).all() and found[~invalid].ne(0).any()
    value_of_huge, found_of_huge = gradient(loss, huge, target)
    assert value_of_huge == value and found_of_huge.equal(found)


@each_loss
def test_a_batch_without_valid_pixels_is_no_loss(name: str, separation: float) -> None:
    """0 / 0 would end the training as diverged."""
    loss, (logits, target) = make(name, separation), random_batch(separation)
    target.fill_(IGNORE)
    value, found = gradient(loss, logits, target)
    assert value == 0 and found.eq(0).all()
    assert torch.stack(loss.sums(logits, target)).tolist() == [0, 0]


@pytest.mark.parametrize("name", ["dice", "lovasz"])
def test_a_batch_without_buildings_has_no_overlap_to_learn(name: str) -> None:
    """Only its tiles count in validation."""
    loss, (logits, target) = make(name), random_batch()
    target[target == 1] = 0
    value, found = gradient(loss, logits, target)
    assert value == 0 and found.eq(0).all()
    assert torch.stack(loss.sums(logits, target)).tolist() == [0, 3]


@each_loss
def test_a_perfect_prediction_costs_nothing(name: str, separation: float) -> None:
    """And the opposite one costs much, with a gradient that is finite even so."""
    loss, (logits, target) = make(name, separation), random_batch(separation)
    classes = [background(target), *((target >> bit & 1 == 1) for bit in range(logits.shape[1] - 1))]
    perfect = torch.stack(classes, dim=1) * 200.0 - 100
    assert loss(perfect, target).item() == pytest.approx(0, abs=1e-6)
    value, found = gradient(loss, -perfect, target)
    assert value > 0.9 and found.isfinite().all()


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_loss_has_a_finite_gradient_where_all_is_right(gamma: float) -> None:
    """1 - prob is 0 there, and a power of it less than 1 infinitely steep."""
    found = gradient(Focal(0.5, gamma), torch.tensor([[[[-200.0]], [[200.0]]]]), torch.tensor([[[1]]]))[1]
    assert found.eq(0).all()


@each_loss
def test_gradients_are_those_of_the_loss(name: str, separation: float) -> None:
    """Against finite differences in float64; Lovász is smooth where no two errors are equal."""
    loss = make(name, separation).double()
    logits, target = random_batch(separation, size=3, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: loss(x, target), logits.requires_grad_())


@pytest.mark.parametrize("name", ["cross_entropy", "focal"])
def test_sums_over_pixels_add_up_to_the_loss_of_all(name: str) -> None:
    """Batches with unequal numbers of valid pixels are averaged over pixels, not over batches."""
    loss, (logits, target) = make(name), random_batch()
    target[0, :5] = IGNORE
    total, weight = torch.stack(
        [torch.stack(loss.sums(logits[i : i + 1], target[i : i + 1])) for i in range(len(target))]
    ).sum(0)
    assert (total / weight).item() == pytest.approx(loss(logits, target).item(), rel=1e-5)


@pytest.mark.parametrize(
    ("name", "separation"), [("dice", 0.0), ("cross_entropy_dice", 0.0), ("lovasz", 0.0), ("cross_entropy", 0.5)]
)
def test_sums_of_other_losses_count_tiles(name: str, separation: float) -> None:
    """A batch counts with the number of its tiles that have a valid pixel, here 2 of 3."""
    loss, (logits, target) = make(name, separation), random_batch(separation)
    target[0] = IGNORE
    total, weight = loss.sums(logits, target)
    assert weight.item() == 2
    assert total.item() == pytest.approx(2 * loss(logits, target).item(), rel=1e-6)


@pytest.mark.parametrize("autocast", [False, True])
@each_loss
def test_half_precision_logits_are_computed_in_float32(name: str, separation: float, autocast: bool) -> None:
    """As a forward pass under autocast leaves them, channels last."""
    loss, (logits, target) = make(name, separation), random_batch(separation)
    half = logits.bfloat16().contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        value, (total, weight) = loss(half, target), loss.sums(half, target)
    assert value.dtype == total.dtype == weight.dtype == torch.float32
    assert value.item() == pytest.approx(loss(half.float().contiguous(), target).item(), rel=1e-6)


@each_loss
def test_nothing_waits_for_the_device(name: str, separation: float) -> None:
    """Tensors without values, as torch's meta device has them, refuse all that reads one on the way."""
    loss, (logits, target) = make(name, separation).to("meta"), random_batch(separation)
    logits, target = logits.to("meta").requires_grad_(), target.to("meta")
    loss(logits, target).backward()
    assert all(part.shape == () for part in loss.sums(logits, target))
    with pytest.raises(RuntimeError, match="meta"):
        logits.sum().item()


class Reductions(TorchDispatchMode):
    """Notes how each cross-entropy of pixels is reduced: 0 is not at all, 2 is summed."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.nll_loss2d_forward.default:
            self.seen.append(args[3])
        return func(*args, **(kwargs or {}))


def test_a_gpu_adds_up_in_one_order() -> None:
    """Away from the processor torch's own sum would add up as threads arrive; what is summed after it is the same."""
    logits, target = random_batch(size=50)
    loss = WeightedCrossEntropy(0.75)
    with Reductions() as reductions:
        loss(logits, target)
        loss.to("meta")(logits.to("meta"), target.to("meta"))
    assert reductions.seen == [2, 0]
