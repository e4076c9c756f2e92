"""A batch waits for no GPU: what asks it for a number stops the processor until all work before is done."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from fastai.callback.schedule import Learner
from torch import Tensor, nn

from sn7.augment import LUMA, SYMMETRIES
from sn7.config import TrainConfig
from sn7.constants import constant
from sn7.device import default_device
from sn7.folds import Split
from sn7.learner import open_learner
from sn7.loader import loaders
from sn7.prepared import Prepared
from sn7.trainloop import TrainLoss, ValidationMetrics
from sn7.unet import IMAGENET_MEAN, IMAGENET_STD, build_unet

EVERYTHING = {"scale_jitter": 0.2, "cutmix": 0.5, "clip_norm": 1.0, "ema_decay": 0.9, "tile_placement": "buildings"}


def epoch(prepared: Prepared, split: Split, config: TrainConfig) -> None:
    """Train an epoch with all that happens around a batch."""
    device = default_device()
    training, validation = loaders(config, prepared, split, device)
    model: nn.Module = build_unet(config).to(memory_format=torch.channels_last).to(device)
    with open_learner(config, model, training, validation, device) as learner:
        learner.add_cbs([TrainLoss(), ValidationMetrics(lambda *_: None, config.batch_size)])
        learner.fit(1)


@contextmanager
def around_batches(patch: pytest.MonkeyPatch, enter: Callable[[], None], leave: Callable[[], None]) -> Iterator[None]:
    """Call `enter` before the batches of a training's and a validation's pass, `leave` after them."""
    batches = Learner.all_batches

    def watched(learner: Learner) -> None:
        enter()
        try:
            batches(learner)
        finally:
            leave()

    with patch.context() as inner:
        inner.setattr(Learner, "all_batches", watched)
        yield


@pytest.mark.parametrize("options", [{}, {**EVERYTHING, "upscale": 2, "loss": "lovasz"}], ids=str)
def test_no_number_is_asked_for(
    options: dict[str, Any], make_prepared: Callable[..., Prepared], split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the second batch on nothing is copied to or from the device but the tiles; the first makes the constants."""
    inside, calls = [False], []

    def count(owner: Any, name: str, waits: Callable[..., bool] = lambda **_: True) -> None:
        original = getattr(owner, name)

        def counted(*given: Any, **options: Any) -> Any:
            if inside[0] and waits(**options):
                calls.append(name)
            return original(*given, **options)

        monkeypatch.setattr(owner, name, counted)

    for name in ("cpu", "item", "tolist", "numpy", "nonzero", "__bool__", "__float__", "__int__"):
        count(Tensor, name)
    count(torch, "tensor", waits=lambda device=None, **_: device is not None)
    config = TrainConfig(encoder="test_efficientnet", tile_size=32, batch_size=2, precision="bf16", **options)
    for values in (IMAGENET_MEAN, IMAGENET_STD, LUMA, SYMMETRIES):
        constant(values, default_device())
    with around_batches(monkeypatch, lambda: inside.__setitem__(0, True), lambda: inside.__setitem__(0, False)):
        epoch(make_prepared(upscales=(2,)), split, config)
    assert calls == []


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("options", [{}, {**EVERYTHING, "loss": "lovasz"}], ids=str)
def test_a_gpu_is_not_waited_for(
    options: dict[str, Any], make_prepared: Callable[..., Prepared], split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CUDA itself raises where a call of the batch loop would wait."""
    config = TrainConfig(encoder="test_efficientnet", tile_size=32, batch_size=2, precision="bf16", **options)
    prepared = make_prepared()
    epoch(prepared, split, config)  # makes the constants
    mode = torch.cuda.set_sync_debug_mode
    with around_batches(monkeypatch, lambda: mode("error"), lambda: mode("default")):
        epoch(prepared, split, config)


def test_a_constant_is_made_once() -> None:
    """For each device and dtype; also one that was first asked for without gradients serves a training."""
    with torch.inference_mode():
        first = constant((1.0, 2.0, 4.0), torch.device("cpu"))
    assert constant((1.0, 2.0, 4.0), torch.device("cpu")) is first
    assert constant((1.0, 2.0, 4.0), torch.device("cpu"), torch.float64).dtype == torch.float64
    weight = torch.ones(3, requires_grad=True)
    (weight * first).sum().backward()
    assert weight.grad is not None and weight.grad.tolist() == [1, 2, 4]
