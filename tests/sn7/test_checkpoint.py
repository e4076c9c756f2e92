import random
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from sn7.checkpoint import (
    Checkpoint,
    checkpoint_history,
    load_checkpoint,
    random_states,
    restore_random_states,
    save_checkpoint,
)
from sn7.config import TrainConfig
from sn7.errors import ModelInvalid, ResultsConflict
from sn7.folds import Split
from sn7.loader import loaders
from sn7.metrics import Counts
from sn7.midway import Midway
from sn7.modeldir import read_model
from sn7.prepared import Prepared
from sn7.train import EpochMetrics, read_history, read_result, train

LEFT = ["curves.png", "history.csv", "model", "result.json", "tiles.png"]
"""What an ended training leaves."""
SMALL = TrainConfig(encoder="xresnet18", tile_size=32, batch_size=4, epochs=4, lr_max=1e-3)


class Stop(Exception):
    """Ends a training from its report, as a scheduler does."""


def stop_at(epoch: int) -> Callable[[EpochMetrics], None]:
    """Return a report that raises after an epoch."""

    def report(metrics: EpochMetrics) -> None:
        if metrics.epoch == epoch:
            raise Stop

    return report


def losses(history: list[EpochMetrics]) -> list[tuple[float, float, float, float]]:
    """Return what must not depend on an interruption."""
    return [(metrics.train_loss, metrics.valid_loss, metrics.dice, metrics.lr) for metrics in history]


KILLED = """
import os, signal
from pathlib import Path
from sn7 import training
from sn7.config import TrainConfig
from sn7.folds import Split
from sn7.loader import loaders
from sn7.prepared import load_prepared
from sn7.train import train

def report(metrics):
    if metrics.epoch == 3:
        os.kill(os.getpid(), signal.SIGKILL)

training.PAUSE = 1e9
urgent = iter([False, True, False])
prepared = load_prepared(Path({prepared!r}))
train({config!r}, prepared, {split!r}, Path({out!r}), report, urgent=lambda: next(urgent))
"""


@pytest.mark.slow
def test_a_killed_training_continues_as_if_it_had_not_stopped(
    make_prepared: Callable[..., Prepared], split: Split, tmp_path: Path
) -> None:
    """SIGKILL in epoch 3, checkpoint of epoch 2: losses, Dice and rates equal those of 4 epochs, digit by digit."""
    prepared, out = make_prepared(), tmp_path / "killed"
    whole: list[EpochMetrics] = []
    result = train(SMALL, prepared, split, tmp_path / "whole", whole.append)
    code = KILLED.format(prepared=str(prepared.folder), config=SMALL, split=split, out=str(out))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert len((out / "history.csv").read_text().splitlines()) == 4  # the header and three epochs
    assert losses(read_history(out)) == losses(whole[:2])
    rest: list[EpochMetrics] = []
    continued = train(SMALL, prepared, split, out, rest.append, resume=True)
    assert losses(rest) == losses(whole[2:])
    assert losses(read_history(out)) == losses(whole)
    assert (continued.continued_after, result.continued_after) == (2, 0)
    assert continued.seconds > sum(metrics.seconds for metrics in rest)
    ours, theirs = (load_file(folder / "model" / "weights.safetensors") for folder in (out, tmp_path / "whole"))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert (out / "tiles.png").read_bytes() == (tmp_path / "whole" / "tiles.png").read_bytes()
    assert sorted(path.name for path in out.iterdir()) == LEFT


@pytest.mark.slow
def test_a_checkpoint_is_as_old_as_it_is_cheap(
    make_prepared: Callable[..., Prepared], split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the first epoch always, then when it is urgent or costs little, never after the last; before the report."""
    prepared, path = make_prepared(), tmp_path / "out" / "checkpoint.pt"
    seen: list[list[int]] = []

    def report(_: EpochMetrics) -> None:
        seen.append([metrics.epoch for metrics in checkpoint_history(path)])

    urgent = iter([False, False, True])
    monkeypatch.setattr("sn7.training.PAUSE", 1e9)
    train(SMALL, prepared, split, tmp_path / "out", report, urgent=lambda: next(urgent))
    assert [len(epochs) for epochs in seen] == [1, 1, 3, 3]
    seen.clear()
    monkeypatch.setattr("sn7.training.PAUSE", 0)
    train(replace(SMALL, epochs=3), prepared, split, tmp_path / "out", report)
    assert [len(epochs) for epochs in seen] == [1, 2, 2]
    assert not path.exists()


@pytest.mark.slow
def test_the_model_of_an_epoch_after_the_checkpoint_does_not_survive(
    make_prepared: Callable[..., Prepared], split: Split, tmp_path: Path
) -> None:
    """Where epochs come out worse the second time, the model folder is of the checkpoint's best epoch again."""
    prepared, out = make_prepared(), tmp_path / "out"
    dice = iter([0.4, 0.3, 0.9, 0.2, 0.2, 0.4])  # epochs 1, 2, 3, and 3, 4 again; the scene at the end

    def fixed(self: Counts) -> dict[str, float]:
        return {"dice": next(dice), "iou": 0.0, "precision": 0.0, "recall": 0.0}

    urgent, first = iter([True, True, False]), {}

    def report(metrics: EpochMetrics) -> None:
        if metrics.epoch == 1:
            first.update(load_file(out / "model" / "weights.safetensors"))
        stop_at(3)(metrics)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sn7.training.PAUSE", 1e9)
        patch.setattr("sn7.metrics.Counts.metrics", fixed)
        with pytest.raises(Stop):
            train(SMALL, prepared, split, out, report, urgent=lambda: next(urgent))
        assert read_model(out / "model").training["epoch"]["epoch"] == 3
        result = train(SMALL, prepared, split, out, resume=True)
    assert (result.best.epoch, result.best.dice) == (1, 0.4)
    assert read_model(out / "model").training["epoch"]["epoch"] == 1
    again = load_file(out / "model" / "weights.safetensors")
    assert all(torch.equal(first[name], again[name]) for name in first)


@pytest.mark.slow
def test_the_last_model_is_of_the_last_epoch_after_an_interruption(
    make_prepared: Callable[..., Prepared], split: Split, tmp_path: Path
) -> None:
    """With keep="last" an interrupted training has no model, and the continued one that of an uninterrupted."""
    prepared, out = make_prepared(), tmp_path / "out"
    config = replace(SMALL, epochs=2)
    with pytest.raises(Stop):
        train(config, prepared, split, out, stop_at(1), keep="last")
    assert not (out / "model").exists()
    train(config, prepared, split, out, keep="last", resume=True)
    train(config, prepared, split, tmp_path / "whole", keep="last")
    ours, theirs = (load_file(folder / "model" / "weights.safetensors") for folder in (out, tmp_path / "whole"))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert (out / "tiles.png").read_bytes() == (tmp_path / "whole" / "tiles.png").read_bytes()


def test_another_training_is_not_continued(
    make_prepared: Callable[..., Prepared], split: Split, tmp_path: Path
) -> None:
    """The sentence names each field that differs, there and here; without resume the training starts anew."""
    prepared, out = make_prepared(), tmp_path / "out"
    config = replace(SMALL, epochs=2)
    with pytest.raises(Stop):
        train(config, prepared, split, out, stop_at(1))
    other = replace(config, lr_max=0.1)
    with pytest.raises(
        ResultsConflict, match=r"checkpoint.pt is of another .*config.lr_max is 0.001 there and 0.1 here"
    ):
        train(other, prepared, split, out, resume=True)
    moved = Split("test", ("scene0", "scene3"), ("scene2",))
    with pytest.raises(ResultsConflict, match=r"split.training is with scene1 there and with scene3 here"):
        train(config, prepared, moved, out, resume=True)
    with pytest.raises(ResultsConflict, match=r"keep is 'best' there and 'last' here"):
        train(config, prepared, split, out, keep="last", resume=True)
    assert train(other, prepared, split, out).continued_after == 0


def test_what_has_ended_is_not_trained_again(
    make_prepared: Callable[..., Prepared], split: Split, tmp_path: Path
) -> None:
    """With resume its result is returned and nothing reported; another training's is refused; nothing lies about."""
    prepared, out = make_prepared(), tmp_path / "out"
    config = replace(SMALL, epochs=1)
    (out / ".tmp-model-killed").mkdir(parents=True)
    (out / ".tmp-killed-checkpoint.pt").touch()
    result = train(config, prepared, split, out)
    assert sorted(path.name for path in out.iterdir()) == LEFT
    assert train(config, prepared, split, out, stop_at(1), resume=True) == replace(result, continued_after=1)
    with pytest.raises(ResultsConflict, match=r"config.seed is 0 there and 1 here"):
        train(replace(config, seed=1), prepared, split, out, resume=True)
    assert read_result(out) == result


@pytest.mark.parametrize("damage", ["cut", "bit", "text"])
def test_a_damaged_checkpoint_is_refused(damage: str, tmp_path: Path) -> None:
    """One that was cut off, one with a flipped bit in a weight, and one that is something else."""
    path = tmp_path / "checkpoint.pt"
    order = np.random.default_rng(0)
    states = random_states(order)
    checkpoint = Checkpoint({}, {"w": torch.zeros(1000)}, [], states, [], None, None, None, None, 4, 1.0, Midway())
    save_checkpoint(path, checkpoint)
    assert load_checkpoint(path, {}) is not None
    content = bytearray(path.read_bytes())
    content[content.index(bytes(1000)) + 500] ^= 1
    path.write_bytes({"cut": content[:-100], "bit": content, "text": b"nothing of the kind"}[damage])
    with pytest.raises(ModelInvalid, match=r"checkpoint.pt cannot be read .*; remove it"):
        load_checkpoint(path, {})


def test_a_training_that_was_not_interrupted_has_no_history(tmp_path: Path) -> None:
    """Neither a folder that is not there, nor one that holds only a history of unknown standing."""
    assert read_history(tmp_path / "none") == []
    (tmp_path / "history.csv").write_text("epoch\n1\n")
    assert read_history(tmp_path) == []
    (tmp_path / "result.json").write_text("{}")
    with pytest.raises(ModelInvalid, match=r"history.csv cannot be read"):
        read_history(tmp_path)


def test_random_states_come_back() -> None:
    """torch, numpy, random and the order of the tiles draw the same numbers again."""
    order = np.random.default_rng(3)

    def draw() -> tuple[float, ...]:
        old = np.random.normal()  # noqa: NPY002 - the global state is what is tested
        return torch.rand(()).item(), old, random.random(), order.random()

    draw()
    states = random_states(order)
    first = draw()
    assert draw() != first
    restore_random_states(states, order)
    assert draw() == first


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_average_scale_and_frozen_epochs_are_continued(
    precision: str, make_prepared: Callable[..., Prepared], split: Split, tmp_path: Path
) -> None:
    """Stopped after the first of three epochs, it ends at the averaged weights of a training that was not."""
    values = {"encoder": "test_efficientnet", "ema_decay": 0.9, "clip_norm": 1.0, "frozen_epochs": 1}
    config, prepared = replace(SMALL, epochs=3, precision=precision, **values), make_prepared()
    whole: list[EpochMetrics] = []
    train(config, prepared, split, tmp_path / "whole", whole.append)
    with pytest.raises(Stop):
        train(config, prepared, split, tmp_path / "out", stop_at(1))
    rest: list[EpochMetrics] = []
    train(config, prepared, split, tmp_path / "out", rest.append, resume=True)
    assert losses(rest) == losses(whole[1:])
    ours, theirs = (load_file(tmp_path / name / "model" / "weights.safetensors") for name in ("out", "whole"))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize(
    "values", [{"ema_decay": 0.9, "tile_placement": "buildings", "cutmix": 0.5}, {"batch_size": 3}]
)
def test_a_training_that_leaves_within_an_epoch_goes_on_from_there(
    values: dict[str, Any],
    make_prepared: Callable[..., Prepared],
    split: Split,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Left in the first epoch, twice in the second, behind the last batch: the losses are those of one that stayed."""
    monkeypatch.setattr("sn7.midway.EVERY_S", 0)
    config = replace(SMALL, **{"encoder": "test_efficientnet", "batch_size": 2, "epochs": 3, **values})
    prepared, out, whole, rest = make_prepared(), tmp_path / "out", [], []
    train(config, prepared, split, tmp_path / "whole", whole.append)
    batches = 8 // config.batch_size
    for before, now in pairwise((0, 1, batches + 1, batches + 2, 3 * batches)):  # batches, of all three epochs
        answers = iter([None] * (now - before - 1) + [Stop()])
        with pytest.raises(Stop):
            train(config, prepared, split, out, rest.append, resume=True, leave=lambda: next(answers))  # noqa: B023
    asked: list[None] = []
    train(config, prepared, split, out, rest.append, resume=True, leave=lambda: asked.append(None))
    assert len(rest) == len(whole) == 3 and asked == []
    for ours, theirs in zip(losses(rest), losses(whole), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-6)
    left, stayed = (load_file(folder / "model" / "weights.safetensors") for folder in (out, tmp_path / "whole"))
    assert all(torch.allclose(left[name], stayed[name], atol=1e-6) for name in stayed)


def test_a_batch_in_pieces_is_not_left(
    make_prepared: Callable[..., Prepared], split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between its pieces, whose gradients add up, nobody is asked; between questions a second passes."""
    prepared, config = make_prepared(), replace(SMALL, encoder="test_efficientnet", epochs=1)
    monkeypatch.setattr("sn7.training.loaders", lambda *given: loaders(*given[:4], micro_batch=2))
    asked: list[None] = []
    for every, wanted in ((0.0, 2), (1e9, 1)):
        monkeypatch.setattr("sn7.midway.EVERY_S", every)
        train(config, prepared, split, tmp_path / "out", leave=lambda: asked.append(None))
        assert len(asked) == wanted
        asked.clear()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_training_on_a_gpu_is_continued(
    precision: str,
    make_prepared: Callable[..., Prepared],
    split: Split,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Left within an epoch and after one; its sums may come in another order, its draws may not."""
    monkeypatch.setattr("sn7.midway.EVERY_S", 0)
    config, prepared = replace(SMALL, epochs=3, precision=precision, ema_decay=0.9), make_prepared()
    whole: list[EpochMetrics] = []
    train(config, prepared, split, tmp_path / "whole", whole.append)
    rest: list[EpochMetrics] = []
    with pytest.raises(Stop):
        train(config, prepared, split, tmp_path / "out", rest.append, leave=Stop)
    with pytest.raises(Stop):
        train(config, prepared, split, tmp_path / "out", stop_at(1), resume=True)
    rest += read_history(tmp_path / "out")
    train(config, prepared, split, tmp_path / "out", rest.append, resume=True)
    assert [epoch.train_loss for epoch in rest] == pytest.approx([epoch.train_loss for epoch in whole], rel=1e-2)
    assert all(epoch.memory_mib > 1 for epoch in rest)
