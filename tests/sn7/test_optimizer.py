import torch
from fastai.optimizer import Adam
from torch import Tensor, nn

from sn7.optimizer import FusedAdam


def _walk(optimizer_class: type) -> list[Tensor]:
    """Return the weights after five steps at changing rates and momenta; biases are not decayed."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 2, 3))
    groups = [list(layer.parameters()) for layer in model]
    optimizer = optimizer_class(groups, lr=1e-2, wd=0.1)
    for weight in model.parameters():
        optimizer.state[weight] = {"do_wd": weight.ndim > 1}
    for step in range(5):
        optimizer.set_hyper("lr", [1e-3 * (step + 1), 1e-2])
        optimizer.set_hyper("mom", [0.95 - 0.02 * step] * 2)
        model(torch.randn(2, 3, 8, 8)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return [weight.detach() for weight in model.parameters()]


def test_it_walks_as_fastais_adam() -> None:
    """Five steps end at the same weights, with groups of their own rates, a schedule, and what is not decayed."""
    ours, theirs = _walk(FusedAdam), _walk(Adam)
    assert all(torch.allclose(a, b, rtol=0, atol=1e-6) for a, b in zip(ours, theirs, strict=True))


def test_a_weight_without_a_gradient_stays() -> None:
    """As in frozen epochs: it is not even decayed, and gets no state."""
    layers = [nn.Linear(2, 2), nn.Linear(2, 2)]
    optimizer = FusedAdam([list(layer.parameters()) for layer in layers], lr=0.1)
    before = layers[0].weight.clone()
    layers[1](torch.ones(1, 2)).sum().backward()
    optimizer.step()
    assert torch.equal(layers[0].weight, before) and "step" not in optimizer.state[layers[0].weight]
    optimizer.zero_grad()
    assert layers[1].weight.grad is None
