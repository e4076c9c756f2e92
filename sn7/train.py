"""train(): one configuration on one split, by fastai's one-cycle schedule, the best epoch kept.

OUT/model/         the model folder of the best epoch, or of the last
OUT/history.csv    a row an epoch
OUT/result.json    written last: a folder that has it is complete
"""

import csv
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from fastai.callback.progress import ProgressCallback
from fastai.callback.schedule import Learner  # schedule adds fit_one_cycle to Learner
from fastai.data.core import DataLoaders
from fastai.torch_core import set_seed
from torch import nn

from sn7.config import TrainConfig
from sn7.errors import ModelInvalid
from sn7.files import atomic_file, read_json, write_json
from sn7.folds import Split
from sn7.loader import TileLoader, loaders
from sn7.losses import WeightedCrossEntropy
from sn7.modeldir import save_model
from sn7.prepared import Prepared
from sn7.trainloop import BatchBar, EpochMetrics, Precision, TrainLoss, ValidationMetrics
from sn7.unet import build_unet, parameter_groups

__all__ = ["EpochMetrics", "Report", "TrainResult", "default_device", "read_result", "train"]

Report = Callable[[EpochMetrics], None]
"""Called after each epoch; an exception from it ends the training and passes through."""


@dataclass(frozen=True)
class TrainResult:
    """A finished training: the best epoch's metrics and what it took."""

    best: EpochMetrics
    epochs: int
    training_tiles: int
    validation_tiles: int
    parameters: int
    seconds: float


def default_device() -> torch.device:
    """Return the GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def train(
    config: TrainConfig,
    prepared: Prepared,
    split: Split,
    out: Path,
    report: Report | None = None,
    keep: Literal["best", "last"] = "best",
) -> TrainResult:
    """Train one U-Net and write `out/model`, `out/history.csv` and `out/result.json`.

    The best epoch is that of the highest validation Dice at probs >= 0.5. A model that is then judged on the same
    validation scenes must be of the last epoch instead (`keep`), since the choice has seen them. Seeds torch, numpy
    and random from `config.seed`.

    Raises EncoderUnknown, SplitInvalid, PreparedInvalid, or TrainingDiverged when a loss is not finite; what was
    written until then stays.
    """
    started = time.monotonic()
    (out / "result.json").unlink(missing_ok=True)  # of an earlier training: this folder is not complete any more
    set_seed(config.seed, reproducible=True)
    device = default_device()
    training, validation = loaders(config, prepared, split, device)
    model = build_unet(config).to(memory_format=torch.channels_last).to(device)
    learner = _learner(config, model, training, validation, device)

    history: list[EpochMetrics] = []
    about = {"split": asdict(split), "data_fingerprint": prepared.fingerprint}

    def after_epoch(metrics: EpochMetrics) -> None:
        improved = not history or metrics.dice > max(epoch.dice for epoch in history)
        if improved if keep == "best" else metrics.epoch == config.epochs:
            save_model(out / "model", model, config, {**about, "epoch": asdict(metrics)})
        history.append(metrics)
        _write_history(out / "history.csv", history)
        if report:
            report(metrics)

    learner.add_cb(ValidationMetrics(after_epoch))
    # fastai spreads a slice of rates geometrically over the parameter groups: stem, encoder, decoder.
    rates = slice(config.lr_max * config.encoder_lr_factor, config.lr_max)
    learner.fit_one_cycle(config.epochs, rates, wd=config.weight_decay)

    result = TrainResult(
        best=max(history, key=lambda metrics: metrics.dice),
        epochs=len(history),
        training_tiles=len(training.tiles),
        validation_tiles=len(validation.tiles),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        seconds=time.monotonic() - started,
    )
    write_json(out / "result.json", asdict(result))
    return result


def _learner(
    config: TrainConfig, model: nn.Module, training: TileLoader, validation: TileLoader, device: torch.device
) -> Learner:
    learner = Learner(
        DataLoaders(training, validation, device=device),
        model,
        loss_func=WeightedCrossEntropy(config.building_weight).to(device),
        splitter=parameter_groups,
        cbs=[Precision(config.precision, device), TrainLoss(), BatchBar()],
    )
    learner.remove_cb(ProgressCallback)
    learner.logger = lambda _: None
    return learner


def _write_history(path: Path, history: list[EpochMetrics]) -> None:
    with atomic_file(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(asdict(history[0])))
        writer.writeheader()
        writer.writerows(asdict(metrics) for metrics in history)


def read_result(out: Path) -> TrainResult | None:
    """Return the result that a training left in `out`, or None where it did not finish.

    Raises ModelInvalid where result.json is damaged.
    """
    path = out / "result.json"
    if not path.exists():
        return None
    try:
        content: dict[str, Any] = read_json(path)
        return TrainResult(**{**content, "best": EpochMetrics(**content["best"])})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ModelInvalid(f"{path} cannot be read ({error}); remove {out} and train again.") from error
