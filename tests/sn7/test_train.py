import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fastai.callback.core import Callback
from fastai.callback.progress import ProgressCallback
from fastai.callback.schedule import Learner
from fastai.data.core import DataLoaders
from fastai.optimizer import SGD
from torch import Tensor, nn

from sn7.config import TrainConfig
from sn7.device import out_of_memory
from sn7.errors import ConfigError, EncoderUnknown, FolderUnwritable, OutOfMemory, TrainingDiverged
from sn7.folds import Split
from sn7.loader import TileLoader
from sn7.losses import IGNORE, Lovasz, WeightedCrossEntropy
from sn7.modeldir import load_model
from sn7.optimizer import FusedAdam
from sn7.precision import autocast
from sn7.prepared import Prepared
from sn7.steps import Steps
from sn7.tiles import training_tiles
from sn7.train import EpochMetrics, read_history, read_result, train
from sn7.trainloop import TrainLoss, _tile_counts, native_probs

PLAIN = {"dihedral": 0, "rotate": 0, "brightness": 0, "contrast": 0, "saturation": 0}
SMALL = TrainConfig(encoder="xresnet18", tile_size=32, batch_size=4, epochs=6, lr_max=1e-3, encoder_lr_factor=1.0)


def test_a_folder_that_cannot_be_written_to(
    make_prepared: Callable[..., Prepared], split: Split, tmp_path: Path
) -> None:
    """It is named before anything is trained."""
    (tmp_path / "file").touch()
    with pytest.raises(FolderUnwritable, match="file cannot be written to"):
        train(SMALL, make_prepared(), split, tmp_path / "file", lambda metrics: pytest.fail("it has trained"))


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
    assert (tmp_path / "out" / "tiles.png").exists()
    assert read_history(tmp_path / "out") == seen
    assert all(metrics.memory_mib > 100 and metrics.micro_batch == 4 for metrics in seen)


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
    """The sentence has epoch, batch and the batch's learning rate: the first one's, a 25th; no result is left."""
    monkeypatch.setattr("sn7.losses.WeightedCrossEntropy.forward", lambda self, x, y: x.float().sum() * float("nan"))
    said = r"^the loss became nan in epoch 1, batch 1 of 2, at a learning rate of 4e-05; wanted a finite loss: lower"
    with pytest.raises(TrainingDiverged, match=said):
        train(SMALL, make_prepared(), split, tmp_path / "out")
    assert read_result(tmp_path / "out") is None


def test_a_training_that_begins_anew_forgets_the_earlier_one(
    make_prepared: Callable[..., Prepared], split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If it ends before its first epoch does, no model or history of another configuration stands in its folder."""
    prepared, out = make_prepared(), tmp_path / "out"
    train(replace(SMALL, epochs=1), prepared, split, out)
    with pytest.raises(EncoderUnknown):  # which is said before anything begins
        train(replace(SMALL, encoder="xresnet19"), prepared, split, out)
    assert (out / "model").exists() and (out / "history.csv").exists()
    monkeypatch.setattr("sn7.losses.WeightedCrossEntropy.forward", lambda self, x, y: x.float().sum() * float("nan"))
    with pytest.raises(TrainingDiverged):
        train(SMALL, prepared, split, out)
    assert list(out.iterdir()) == []


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
    logits = torch.tensor([[[[0.0, 0.0, 1.0, 0.0]], [[1.0, 1.0, 0.0, 1.0]]]])
    target = torch.tensor([[[1, 0, 1, IGNORE]]])
    nothing = torch.full_like(target, IGNORE)
    counts = _tile_counts(native_probs(torch.cat([logits, logits]), 1), torch.cat([target, nothing]))
    assert counts.tolist() == [[1, 1, 1], [0, 0, 0]]


def test_an_exception_without_words_passes_through(
    make_prepared: Callable[..., Prepared], split: Split, tmp_path: Path
) -> None:
    """fastai would look for the first word of it; one that speaks of memory is no reason to start again, either."""

    def stop(_: EpochMetrics) -> None:
        raise KeyError

    def remote(_: EpochMetrics) -> None:
        raise RuntimeError("the head node is out of memory")

    prepared = make_prepared()
    with pytest.raises(KeyError):
        train(SMALL, prepared, split, tmp_path / "out", stop)
    with pytest.raises(RuntimeError, match=r"^the head node is out of memory$"):
        train(SMALL, prepared, split, tmp_path / "out", remote)


class Memory:
    """Lets the loss run out of memory above `room` tiles, from call `begin` on, and counts optimizer steps."""

    def __init__(self, patch: pytest.MonkeyPatch, room: int, error: Exception, begin: int = 0) -> None:
        self.calls = self.steps = 0
        forward, step = WeightedCrossEntropy.forward, FusedAdam.step

        def limited(loss: WeightedCrossEntropy, logits: Tensor, target: Tensor) -> Tensor:
            self.calls += 1
            if self.calls > begin and len(target) > room:
                raise error
            return forward(loss, logits, target)

        def counted(optimizer: FusedAdam) -> None:
            self.steps += 1
            step(optimizer)

        patch.setattr(WeightedCrossEntropy, "forward", limited)
        patch.setattr(FusedAdam, "step", counted)


def test_out_of_memory_halves_the_tiles_in_memory(
    make_prepared: Callable[..., Prepared],
    split: Split,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """5 tiles a batch, room for 2: one optimizer step an epoch still, a warning, no bf16 left switched on."""
    memory = Memory(monkeypatch, 2, torch.OutOfMemoryError("CUDA out of memory"))
    config, seen = replace(SMALL, tile_size=64, batch_size=5, epochs=1, precision="bf16"), []
    train(config, make_prepared(shape=(128, 128)), split, tmp_path / "out", seen.append)
    assert memory.steps == 1  # of 8 training tiles one batch of 5 is taken
    assert [(metrics.epoch, metrics.micro_batch) for metrics in seen] == [(1, 2)]
    assert "out of memory with 5 tiles of 64 px at once; goes on with 2, and 5 in a" in capsys.readouterr().err
    assert not torch.is_autocast_enabled("cpu")


@pytest.mark.slow
def test_out_of_memory_later_continues_from_the_checkpoint(
    make_prepared: Callable[..., Prepared], split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Epoch 1 stays as it was, epoch 2 comes in pieces; the rates of the epochs are those of whole batches."""
    prepared, config, seen = make_prepared(), replace(SMALL, epochs=2), []
    whole: list[EpochMetrics] = []
    train(config, prepared, split, tmp_path / "whole", whole.append)
    # An epoch has two training batches; validation asks for sums, not for a loss.
    Memory(monkeypatch, 2, RuntimeError("DefaultCPUAllocator: can't allocate memory"), begin=3)
    result = train(config, prepared, split, tmp_path / "out", seen.append)
    assert [(metrics.epoch, metrics.micro_batch) for metrics in seen] == [(1, 4), (2, 2)]
    assert read_history(tmp_path / "out") == seen
    assert [metrics.lr for metrics in seen] == [metrics.lr for metrics in whole]
    assert seen[0].train_loss == whole[0].train_loss
    assert result.continued_after == 0


def test_one_tile_that_does_not_fit_ends_the_training(
    make_prepared: Callable[..., Prepared], split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is nothing left to halve, which one sentence says, with what to do."""
    Memory(monkeypatch, 0, torch.OutOfMemoryError("CUDA out of memory"))
    said = r"^one tile of 64 px at upscale 1 does not fit into the memory of CPU .*; lower tile_size or upscale, or"
    with pytest.raises(OutOfMemory, match=said):
        train(replace(SMALL, tile_size=64, batch_size=2), make_prepared(shape=(128, 128)), split, tmp_path / "out")
    assert read_result(tmp_path / "out") is None


def test_one_tile_that_cannot_be_normalised_ends_it_too(
    make_prepared: Callable[..., Prepared], split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 32 px the encoder leaves one pixel a channel, so two tiles are the fewest."""
    Memory(monkeypatch, 1, torch.OutOfMemoryError("CUDA out of memory"))
    with pytest.raises(OutOfMemory, match=r"^one tile of 32 px at upscale 1 does not fit"):
        train(replace(SMALL, batch_size=2), make_prepared(), split, tmp_path / "out")
    assert read_result(tmp_path / "out") is None


def test_a_single_tile_of_the_least_size(make_prepared: Callable[..., Prepared], tmp_path: Path) -> None:
    """All that the data set has: what is wrong, and what to do."""
    prepared = make_prepared(scenes=2, shape=(32, 32))
    split = Split("one", (prepared.scenes[0],), (prepared.scenes[1],))
    with pytest.raises(ConfigError, match=r"^one training tile of 32 px leaves .* or larger ones\.$"):
        train(SMALL, prepared, split, tmp_path / "out")


def test_the_validation_loss_is_computed_once(
    make_prepared: Callable[..., Prepared], split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two training batches and one of validation are three sorted lists of errors."""
    calls, forward = [], Lovasz.forward

    def counted(loss: Lovasz, logits: Tensor, target: Tensor) -> Tensor:
        calls.append(loss)
        return forward(loss, logits, target)

    monkeypatch.setattr(Lovasz, "forward", counted)
    train(replace(SMALL, epochs=1, loss="lovasz"), make_prepared(), split, tmp_path / "out")
    assert len(calls) == 3


def test_what_is_out_of_memory() -> None:
    """Both allocators say it in their own words; other errors do not."""
    assert out_of_memory(torch.OutOfMemoryError("x"))
    assert out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes"))
    assert out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"))
    assert not out_of_memory(RuntimeError("size mismatch"))
    assert not out_of_memory(ValueError("out of memory"))


class Validated(Callback):
    """Takes the targets off in validation, as ValidationMetrics does."""

    def before_batch(self) -> None:  # noqa: D102 - fastai's event
        if not self.training:
            self.learn.yb = ()


def _step(prepared: Prepared, batch_size: int, micro_batch: int) -> tuple[Tensor, float]:
    """Return the weights after one epoch of a plain convolution, and its training loss."""
    config, cpu = TrainConfig(tile_size=64, batch_size=batch_size, **PLAIN), torch.device("cpu")
    tiles = training_tiles(prepared, prepared.scenes, config)
    training = TileLoader(prepared, tiles, config, cpu, training=True, micro_batch=micro_batch)
    validation = TileLoader(prepared, tiles, config, cpu, training=False)
    torch.manual_seed(0)
    learner = Learner(
        DataLoaders(training, validation, device=cpu),
        nn.Conv2d(3, 2, 3, padding=1),
        loss_func=WeightedCrossEntropy(0.5),
        opt_func=SGD,
        cbs=[Steps(0.0, None), TrainLoss(), Validated()],
    )
    learner.remove_cb(ProgressCallback)
    learner.logger = lambda _: None
    learner.fit(1, lr=1.0)
    return learner.model.weight.detach(), learner.train_loss.mean


@pytest.mark.parametrize(("batch_size", "micro_batch"), [(7, 3), (7, 1), (20, 4)])
def test_gradients_add_up_over_pieces(
    make_prepared: Callable[..., Prepared], batch_size: int, micro_batch: int
) -> None:
    """Weights after a step are those of the whole batch, also of the only one, smaller than batch_size.

    All tiles have as many valid pixels and both classes one weight, so the mean of the pieces is that of the batch.
    1e-5 is what float32 leaves of sums over 28,000 pixels in another order, at gradients of up to 0.5.
    """
    prepared = make_prepared(scenes=7)
    whole, whole_loss = _step(prepared, batch_size, batch_size)
    pieces, loss = _step(prepared, batch_size, micro_batch)
    torch.manual_seed(0)
    start = nn.Conv2d(3, 2, 3, padding=1).weight.detach()
    assert (whole - start).abs().max() > 0.1
    assert torch.allclose(pieces, whole, rtol=0, atol=1e-5)
    assert loss == pytest.approx(whole_loss, abs=1e-6)


def test_bf16_computes_in_bf16_and_fp32_does_not() -> None:
    """The context changes the arithmetic of a convolution."""
    layer, batch = torch.nn.Conv2d(3, 4, 3), torch.zeros(1, 3, 8, 8)
    for precision, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        with autocast(precision, torch.device("cpu")):
            assert layer(batch).dtype == dtype
