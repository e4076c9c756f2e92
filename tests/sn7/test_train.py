import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sn7.config import TrainConfig
from sn7.errors import TrainingDiverged
from sn7.folds import Split
from sn7.modeldir import load_model
from sn7.prepared import Prepared
from sn7.train import EpochMetrics, read_result, train
from sn7.trainloop import ValidationMetrics, autocast

SMALL = TrainConfig(encoder="xresnet18", tile_size=32, batch_size=4, epochs=6, lr_max=1e-3, encoder_lr_factor=1.0)


def test_training_learns_and_leaves_its_files(
    make_prepared: Callable[..., Prepared], split: Split, tmp_path: Path
) -> None:
    """Bright squares are found after six epochs; model, history and result agree on the best epoch."""
    seen: list[EpochMetrics] = []
    result = train(SMALL, make_prepared(), split, tmp_path / "out", seen.append)
    assert [metrics.epoch for metrics in seen] == [1, 2, 3, 4, 5, 6]
    assert result.best == max(seen, key=lambda metrics: metrics.dice)
    assert result.best.dice > 0.6  # "everything is a building" scores 0.25
    assert seen[-1].train_loss < seen[0].train_loss
    assert (result.training_tiles, result.validation_tiles, result.epochs) == (8, 4, 6)
    assert read_result(tmp_path / "out") == result
    with (tmp_path / "out" / "history.csv").open() as file:
        assert [float(row["dice"]) for row in csv.DictReader(file)] == [metrics.dice for metrics in seen]
    _, described = load_model(tmp_path / "out" / "model")
    assert described.config == SMALL
    assert described.training["epoch"]["epoch"] == result.best.epoch
    assert described.training["split"]["validation"] == ["scene2"]


def test_the_same_seed_gives_the_same_losses(
    make_prepared: Callable[..., Prepared], split: Split, tmp_path: Path
) -> None:
    """Two runs agree in every digit, a third of another seed does not."""
    prepared = make_prepared()
    config = replace(SMALL, epochs=1)
    losses = [
        train(replace(config, seed=seed), prepared, split, tmp_path / str(i)).best.train_loss
        for i, seed in enumerate((1, 1, 2))
    ]
    assert losses[0] == losses[1] != losses[2]


def test_a_loss_that_is_not_finite_raises(
    make_prepared: Callable[..., Prepared], split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sentence has epoch, batch and learning rate; no result is left."""
    monkeypatch.setattr("sn7.losses.WeightedCrossEntropy.forward", lambda self, x, y: x.sum() * float("nan"))
    with pytest.raises(TrainingDiverged, match=r"nan in epoch 1, batch 1 of 2, at a learning rate of"):
        train(SMALL, make_prepared(), split, tmp_path / "out")
    assert read_result(tmp_path / "out") is None


def test_an_exception_of_the_report_ends_the_training(
    make_prepared: Callable[..., Prepared], split: Split, tmp_path: Path
) -> None:
    """That is how a scheduler stops a trial; the model of the best epoch so far stays."""

    def stop(_: EpochMetrics) -> None:
        raise SystemExit

    with pytest.raises(SystemExit):
        train(SMALL, make_prepared(), split, tmp_path / "out", stop)
    assert read_result(tmp_path / "out") is None
    assert json.loads((tmp_path / "out" / "model" / "model.json").read_text())["training"]["epoch"]["epoch"] == 1


def test_validation_counts_by_hand() -> None:
    """Logits that say building on two pixels: one right, one wrong; one missed; an invalid one does not count."""
    from sn7.losses import IGNORE, WeightedCrossEntropy

    callback = ValidationMetrics(lambda metrics: None)
    callback.learn = type("Learn", (), {"loss_func": WeightedCrossEntropy(0.5)})()
    logits = torch.tensor([[[[0.0, 0.0, 1.0, 0.0]], [[1.0, 1.0, 0.0, 1.0]]]])
    target = torch.tensor([[[1, 0, 1, IGNORE]]])
    assert callback._sums(logits, target)[:3].tolist() == [1, 1, 1]


def test_bf16_computes_in_bf16_and_fp32_does_not() -> None:
    """The context changes the arithmetic of a convolution."""
    layer, batch = torch.nn.Conv2d(3, 4, 3), torch.zeros(1, 3, 8, 8)
    for precision, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        with autocast(precision, torch.device("cpu")):
            assert layer(batch).dtype == dtype
