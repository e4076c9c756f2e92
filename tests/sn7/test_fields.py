"""Every field of a configuration, switched on in a short real training."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fastai.torch_core import set_seed

from sn7.config import TrainConfig, field_specs
from sn7.ensemble import load_predictor
from sn7.errors import ConfigError, PreparedInvalid
from sn7.folds import Split
from sn7.modeldir import load_model
from sn7.prepared import Prepared
from sn7.steps import MovingAverage
from sn7.train import EpochMetrics, read_result, train
from sn7.unet import build_unet

BASE = TrainConfig(encoder="test_efficientnet", tile_size=32, batch_size=4, epochs=1, lr_max=1e-3, precision="fp32")
CHANGES: dict[str, dict[str, Any]] = {
    "encoder": {"encoder": "test_resnet"},
    "aspp": {"aspp": True},
    "self_attention": {"self_attention": True},
    "activation": {"activation": "mish"},
    "blur": {"blur": True},
    "separation_weight": {"separation_weight": 0.5},
    "tile_size": {"tile_size": 48},
    "tile_overlap": {"tile_overlap": 16},
    "tile_placement": {"tile_placement": "buildings"},
    "upscale": {"upscale": 2},
    "images_per_scene": {"images_per_scene": 2},
    "image_selection": {"image_selection": "all"},
    "validation_images": {"validation_images": 2},
    "undersample": {"undersample": False},
    "batch_size": {"batch_size": 3},
    "epochs": {"epochs": 2},
    "loss": {"loss": "lovasz"},
    "building_weight": {"building_weight": 0.5},
    "focal_gamma": {"focal_gamma": 1.0},
    "lr_max": {"lr_max": 2e-3},
    "encoder_lr_factor": {"encoder_lr_factor": 1.0},
    "frozen_epochs": {"frozen_epochs": 1},
    "weight_decay": {"weight_decay": 0.5},
    "clip_norm": {"clip_norm": 0.1},
    "ema_decay": {"ema_decay": 0.9},
    "dihedral": {"dihedral": 0.0},
    "rotate": {"rotate": 0.0},
    "scale_jitter": {"scale_jitter": 0.5},
    "brightness": {"brightness": 0.0},
    "contrast": {"contrast": 0.0},
    "saturation": {"saturation": 0.0},
    "cutmix": {"cutmix": 1.0},
    "precision": {"precision": "bf16"},
    "seed": {"seed": 1},
}
BASES = {"focal_gamma": replace(BASE, loss="focal"), "frozen_epochs": replace(BASE, epochs=2)}
"""What a field is compared with that makes no difference to BASE."""
ELSEWHERE = {"pretrained"}
"""test_pretrained.py has files to start from."""


def run(make_prepared: Callable[..., Prepared], split: Split, out: Path, config: TrainConfig) -> list[EpochMetrics]:
    """Return the epochs of a training on small images that have what any field asks for."""
    prepared = make_prepared(months=2, separation=True, upscales=(2,))
    emptied = np.load(prepared.folder / prepared.images[0].array, mmap_mode="r+")
    emptied[3:4, :32, :32] = 0  # a tile without a building
    emptied.flush()
    history: list[EpochMetrics] = []
    train(config, prepared, split, out, history.append)
    return history


@pytest.fixture(scope="module")
def plain() -> dict[TrainConfig, list[EpochMetrics]]:
    """Return a place for the trainings that the others are compared with."""
    return {}


def test_every_field_has_its_training() -> None:
    """A new field is switched on here, or where it says."""
    assert set(CHANGES) | ELSEWHERE == set(field_specs())


@pytest.mark.slow
@pytest.mark.parametrize("field", CHANGES)
def test_a_field_makes_a_difference(
    field: str,
    plain: dict[TrainConfig, list[EpochMetrics]],
    make_prepared: Callable[..., Prepared],
    split: Split,
    tmp_path: Path,
) -> None:
    """It ends with finite losses that are not those without it; the model loads and predicts natively."""
    base = BASES.get(field, BASE)
    if base not in plain:
        plain[base] = run(make_prepared, split, tmp_path / "plain", base)
    config = replace(base, **CHANGES[field])
    history = run(make_prepared, split, tmp_path / "out", config)
    result = read_result(tmp_path / "out")
    assert result is not None and result.epochs == config.epochs == len(history)
    assert all(0 < epoch.train_loss < 10 and 0 <= epoch.dice <= 1 for epoch in history)
    ours, theirs = history[-1], plain[base][-1]
    assert (ours.train_loss, ours.valid_loss) != (theirs.train_loss, theirs.valid_loss)
    predictor = load_predictor(tmp_path / "out" / "model")
    assert predictor.probs(torch.zeros(1, 3, 64, 64, dtype=torch.uint8)).shape == (1, 64, 64)


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["dice", "focal", "cross_entropy_dice", "lovasz"])
def test_every_loss_falls(loss: str, make_prepared: Callable[..., Prepared], split: Split, tmp_path: Path) -> None:
    """Four epochs on bright squares: the training loss ends below its beginning."""
    config = replace(BASE, loss=loss, epochs=4, lr_max=2e-3, encoder_lr_factor=1.0)
    history = run(make_prepared, split, tmp_path, config)
    assert history[-1].train_loss < history[0].train_loss


def test_frozen_epochs_hold_the_encoder(make_prepared: Callable[..., Prepared], split: Split, tmp_path: Path) -> None:
    """After a frozen epoch the encoder's convolutions are those of the seed, its normalisation and the decoder not."""
    config = replace(BASE, frozen_epochs=1, epochs=2)

    def stop(_: EpochMetrics) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, make_prepared(), split, tmp_path, stop)
    trained = load_model(tmp_path / "model")[0].state_dict()
    set_seed(config.seed, reproducible=True)
    start = build_unet(config).state_dict()
    kernels = [name for name in start if name.startswith("layers.0.") and start[name].ndim == 4]
    normalisation = [name for name in start if name.startswith("layers.0.") and name.endswith("bn1.weight")]
    decoder = [name for name in start if not name.startswith("layers.0.") and start[name].ndim == 4]
    assert kernels and all(torch.equal(trained[name], start[name]) for name in kernels)
    for names in (normalisation, decoder):
        assert names and not all(torch.equal(trained[name], start[name]) for name in names)


@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
def test_fp16_is_scaled(
    ema_decay: float,
    make_prepared: Callable[..., Prepared],
    split: Split,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A scale at which every gradient overflows leaves each step out: weights and their average stay as they were."""
    monkeypatch.setattr("sn7.learner.scaler", lambda *_: torch.amp.GradScaler("cpu", init_scale=2.0**120))
    updates: list[MovingAverage] = []
    monkeypatch.setattr(MovingAverage, "update", updates.append)
    config = replace(BASE, precision="fp16", ema_decay=ema_decay)
    train(config, make_prepared(), split, tmp_path)
    trained = load_model(tmp_path / "model")[0]
    set_seed(config.seed, reproducible=True)
    pairs = zip(trained.parameters(), build_unet(config).parameters(), strict=True)
    assert all(torch.equal(after, before) for after, before in pairs)
    assert updates == []


@pytest.mark.parametrize("field", ["upscale", "separation_weight"])
def test_what_the_prepared_set_lacks(
    field: str, make_prepared: Callable[..., Prepared], split: Split, tmp_path: Path
) -> None:
    """One sentence says which option of `sn7 prepare` is missing."""
    option = {"upscale": "--upscale 2", "separation_weight": "--separation"}[field]
    with pytest.raises(PreparedInvalid, match=option):
        train(replace(BASE, **CHANGES[field]), make_prepared(), split, tmp_path)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"upscale": 5}, "upscale = 5 cannot be used; wanted a whole number from 1 to 4"),
        ({"loss": "mse"}, "wanted one of cross_entropy, dice, focal, cross_entropy_dice, lovasz"),
        ({"activation": "gelu"}, "wanted one of relu, mish, silu"),
        ({"tile_placement": "random"}, "wanted one of grid, buildings"),
        ({"ema_decay": 1.0}, "wanted a number from 0 to 0.99999"),
        ({"cutmix": -0.1}, "wanted a number from 0 to 1"),
        ({"scale_jitter": 1.0}, "wanted a number from 0 to 0.9"),
        ({"separation_weight": 11.0}, "wanted a number from 0 to 10"),
        ({"clip_norm": -1.0}, "clip_norm = -1.0 cannot be used"),
        ({"focal_gamma": 11.0}, "wanted a number from 0 to 10"),
        ({"frozen_epochs": 2, "epochs": 2}, "leaves no epoch of epochs = 2 to train the encoder; wanted at most 1"),
        ({"batch_size": 1, "tile_size": 32}, "leaves batch norm one value a channel.*wanted batch_size = 2 or more"),
        ({"batch_size": "all"}, 'wanted a whole number from 1 to 4096, or "auto"'),
        ({"aspp": 1}, "wanted true or false"),
    ],
)
def test_out_of_range(values: dict[str, Any], said: str) -> None:
    """Each says what it wanted."""
    with pytest.raises(ConfigError, match=said):
        TrainConfig.from_dict(values)


def test_auto_is_refused_where_it_is_not_known(
    make_prepared: Callable[..., Prepared], split: Split, tmp_path: Path
) -> None:
    """A training's configuration decides its result; what depends on the device is settled before."""
    with pytest.raises(ConfigError, match="depends on the device"):
        train(replace(BASE, batch_size="auto"), make_prepared(), split, tmp_path)  # type: ignore[arg-type]
