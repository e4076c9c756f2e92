"""train(): one configuration on one split, by fastai's one-cycle schedule, the best epoch kept.

OUT/model/          the model folder of the best epoch, or of the last
OUT/history.csv     a row an epoch
OUT/tiles.png       validation tiles that this model does best, middling and worst on
OUT/curves.png      loss and Dice over the epochs, Dice over the threshold
OUT/checkpoint.pt   where an interrupted training goes on; gone when it has ended
OUT/result.json     written last: a folder that has it is complete
"""

import dataclasses
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from sn7.checkpoint import checkpoint_config, checkpoint_history, require_same
from sn7.config import TrainConfig
from sn7.curves import draw_curves
from sn7.errors import ModelInvalid
from sn7.evaluation import Evaluation, evaluate, scene_curves
from sn7.files import read_json, require_writable, write_json
from sn7.folds import Split, clusters
from sn7.history import EpochMetrics, read_rows
from sn7.loader import TileLoader
from sn7.metrics import Counts, ThresholdCurve
from sn7.modeldir import read_model
from sn7.prepared import Prepared
from sn7.signals import LeaveQuestion
from sn7.tiles import Sampling, sampling
from sn7.tilesheet import draw_tiles
from sn7.training import CHECKPOINT, Keep, Report, Trained, Training

__all__ = ["SHOWN", "EpochMetrics", "Report", "TrainResult", "begun_config", "read_history", "read_result", "train"]

SHOWN = ("history.csv", "tiles.png", "curves.png", "result.json")
"""What a training leaves for people to look at."""


@dataclass(frozen=True)
class TrainResult:
    """A finished training: the best epoch's metrics and what it took."""

    best: EpochMetrics
    epochs: int
    training_tiles: int
    validation_tiles: int
    sampling: Sampling
    evaluation: Evaluation
    """Of the epoch whose model is kept."""
    parameters: int
    seconds: float
    """In all starts, without the time between them and what was lost by an interruption."""
    continued_after: int = 0
    """Epoch after which the last start continued; 0 where it began with the first."""


def train(
    config: TrainConfig,
    prepared: Prepared,
    split: Split,
    out: Path,
    report: Report | None = None,
    keep: Keep = "best",
    resume: bool = False,
    urgent: Callable[[], bool] | None = None,
    leave: LeaveQuestion | None = None,
) -> TrainResult:
    """Train one U-Net and write `out/model`, `out/history.csv`, two pictures and `out/result.json`.

    The best epoch is that of the highest validation Dice at probs >= 0.5. A model that is then judged on the same
    validation scenes must be of the last epoch instead (`keep`), since the choice has seen them. Seeds torch, numpy
    and random from `config.seed`.

    A checkpoint is written, before the report, after the first epoch of a start, then as often as it costs little,
    and whenever `urgent()` is true after an epoch. `leave()` is asked between batches; the exception that it returns is
    raised once a checkpoint within the epoch is written. With `resume` the training continues from it as if it had not
    stopped; it begins where there is none, and where it has ended already its result is returned. Where memory does
    not suffice, it continues with half as many tiles in memory at once, and still `batch_size` in an optimizer step;
    each epoch is reported once.

    Raises ConfigError where batch_size is still "auto" (see sn7.autobatch), EncoderUnknown, PretrainedUnusable,
    SplitInvalid, PreparedInvalid, FolderUnwritable, OutOfMemory where one tile is too much, or TrainingDiverged when a
    loss is not finite; with `resume` also ResultsConflict where `out` holds another training, and ModelInvalid where
    its checkpoint is damaged. What was written until then stays.
    """
    config.require_batch_size()
    require_writable(out)
    training = Training(config, prepared, split, out, report, keep, urgent, leave)
    ended = _ended(out, training.identity) if resume else None
    if not resume or ended:
        (out / CHECKPOINT).unlink(missing_ok=True)
    if ended:
        return ended
    _clear(out)
    trained = training.run()
    curves = scene_curves(trained.counts, trained.validation.scenes)
    _draw(trained, config, out)
    draw_curves(trained.history, sum(curves.values(), start=ThresholdCurve.empty()), out / "curves.png")
    result = TrainResult(
        best=max(trained.history, key=lambda metrics: metrics.dice),
        epochs=len(trained.history),
        training_tiles=len(trained.training.tiles),
        validation_tiles=len(trained.validation.tiles),
        sampling=sampling(prepared, split.training, config, len(trained.training.tiles)),
        evaluation=evaluate(curves, _ceiling(trained.validation), clusters(prepared.centres()), config.seed),
        parameters=sum(parameter.numel() for parameter in trained.model.parameters()),
        seconds=training.seconds,
        continued_after=training.continued_after or 0,
    )
    write_json(out / "result.json", asdict(result))
    (out / CHECKPOINT).unlink(missing_ok=True)
    return result


def _ended(out: Path, identity: dict[str, Any]) -> TrainResult | None:
    """Return the result of this very training where it has ended in an earlier start."""
    result = read_result(out)
    if result is None:
        return None
    described = read_model(out / "model")
    about = {name: value for name, value in described.training.items() if name in identity}
    require_same(out, {"config": described.config.to_dict(), **about}, identity)
    return dataclasses.replace(result, continued_after=result.epochs)


def _clear(out: Path) -> None:
    """Remove what says that a training has ended here, and what a killed one left half written."""
    for name in ("result.json", "tiles.png", "curves.png"):
        (out / name).unlink(missing_ok=True)
    for path in out.glob(".tmp-*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _draw(trained: Trained, config: TrainConfig, out: Path) -> None:
    weights = load_file(out / "model" / "weights.safetensors")
    trained.model.load_state_dict(weights)
    draw_tiles(trained.model, trained.validation, trained.counts.tiles, out / "tiles.png")


def _ceiling(validation: TileLoader) -> Counts:
    images = {tile.image.array: tile.image for tile in validation.tiles}
    return sum((Counts(*image.ceiling) for image in images.values()), start=Counts())


def begun_config(out: Path) -> TrainConfig | None:
    """Return the configuration of the training in `out` that `resume` goes on with, or None where it would begin.

    Raises ModelInvalid where what it left is damaged.
    """
    if (out / "result.json").exists():
        return read_model(out / "model").config
    path = out / CHECKPOINT
    return TrainConfig.from_dict(checkpoint_config(path)) if path.exists() else None


def read_history(out: Path) -> list[EpochMetrics]:
    """Return the epochs of the training in `out`: all where it has ended, else those a checkpoint has, if any.

    Raises ModelInvalid where the file is damaged.
    """
    if (out / "result.json").exists():
        return read_rows(out / "history.csv")
    return checkpoint_history(out / CHECKPOINT)


def read_result(out: Path) -> TrainResult | None:
    """Return the result that a training left in `out`, or None where it did not finish.

    Raises ModelInvalid where result.json is damaged.
    """
    path = out / "result.json"
    if not path.exists():
        return None
    try:
        content: dict[str, Any] = read_json(path)
        best, sampled = EpochMetrics(**content["best"]), Sampling(**content["sampling"])
        evaluation = Evaluation(**content["evaluation"])
        return TrainResult(**{**content, "best": best, "sampling": sampled, "evaluation": evaluation})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ModelInvalid(f"{path} cannot be read ({error}); remove {out} and train again.") from error
