"""Memory and speed of a batch, on the CPU; the GPU's own calls need one."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from sn7 import device as memory
from sn7 import measure
from sn7.config import TrainConfig
from sn7.device import device_name
from sn7.errors import EncoderUnknown
from sn7.measure import BatchCost, Rehearsal, measure_batch

CPU = torch.device("cpu")
SMALL = TrainConfig(encoder="xresnet18", tile_size=64, batch_size=4)


class Tiny(nn.Module):
    """Stands in for the U-Net: takes up to `most` tiles, and notes what it is given."""

    def __init__(self, most: int, error: str = "DefaultCPUAllocator: can't allocate memory: you tried 9 bytes") -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 2, 1)
        self.most, self.error = most, error
        self.seen: list[tuple[int, ...]] = []

    def forward(self, rgb: torch.Tensor) -> torch.Tensor:
        """Return logits, or raise like torch where there are too many tiles."""
        self.seen.append((*rgb.shape, self.training, torch.is_grad_enabled()))
        if len(rgb) > self.most:
            raise RuntimeError(self.error)
        return self.layer(rgb)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Tiny:
    """Put a Tiny that takes 5 tiles in the place of every U-Net."""
    model = Tiny(most=5)
    monkeypatch.setattr(measure, "build_unet", lambda config: model)
    monkeypatch.setattr(measure, "parameter_groups", lambda model: [list(model.parameters())])
    return model


def test_a_batch_that_fits_is_measured() -> None:
    """The real U-Net, loss and optimizer: memory between torch's libraries and the machine's, and both rates."""
    cost = measure_batch(SMALL, CPU, batches=1)
    assert (cost.encoder, cost.tile_size, cost.batch_size, cost.largest_batch) == ("xresnet18", 64, 4, 4)
    assert cost.fits and cost.reason == "" and not cost.gpu
    assert cost.device == device_name(CPU)
    assert 100 < cost.peak_mib < cost.total_mib
    assert cost.tiles_per_s > 0 and cost.validation_tiles_per_s > 0


def test_too_large_a_batch_is_halved_until_it_fits(tiny: Tiny) -> None:
    """12 and 6 tiles are too many for memory that holds 5; 3 are measured."""
    cost = measure_batch(TrainConfig(tile_size=64, batch_size=12), CPU, batches=2)
    assert (cost.fits, cost.reason, cost.batch_size, cost.largest_batch) == (False, "out of memory", 12, 3)
    assert cost.tiles_per_s > 0 and cost.peak_mib > 0
    assert [shape[0] for shape in tiny.seen] == [12, 6, *[3] * 6]


def test_not_even_a_tile_fits(tiny: Tiny) -> None:
    """Then nothing is known of it."""
    tiny.most = 0
    cost = measure_batch(TrainConfig(tile_size=64, batch_size=2), CPU)
    assert (cost.fits, cost.largest_batch, cost.peak_mib, cost.tiles_per_s) == (False, 0, 0.0, 0.0)


def test_tiles_have_the_size_of_a_training(tiny: Tiny) -> None:
    """Training tiles as configured, validation tiles rounded up to 32 and without gradients; each with a warm-up."""
    measure_batch(TrainConfig(tile_size=65, batch_size=2), CPU, batches=2)
    assert tiny.seen == [(2, 3, 65, 65, True, True)] * 3 + [(2, 3, 96, 96, False, False)] * 3


def test_a_moving_average_takes_its_memory(tiny: Tiny) -> None:
    """It holds the weights once more, and moves with each step."""
    assert Rehearsal(SMALL, 2, CPU).average is None
    rehearsal = Rehearsal(replace(SMALL, ema_decay=0.9), 2, CPU)
    rehearsal.train_step()
    assert rehearsal.average is not None and rehearsal.average.updates == 1
    assert sum(one.nbytes for one in rehearsal.average.average) == sum(one.nbytes for one in tiny.parameters())


def test_it_begins_as_a_training_does(tiny: Tiny) -> None:
    """Seeded, and with the algorithms of cuDNN that give the same each time; the faster ones take other memory."""
    torch.backends.cudnn.deterministic = False
    tiles = [Rehearsal(SMALL, 2, CPU).training.rgb for _ in range(2)]
    assert torch.equal(*tiles) and torch.backends.cudnn.deterministic


def test_another_error_is_not_taken_for_memory(tiny: Tiny) -> None:
    """A batch that is broken is not halved."""
    tiny.most, tiny.error = 0, "mat1 and mat2 shapes cannot be multiplied"
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        measure_batch(SMALL, CPU)
    assert len(tiny.seen) == 1


def test_an_unknown_encoder_is_refused() -> None:
    """Before anything is measured."""
    with pytest.raises(EncoderUnknown):
        measure_batch(TrainConfig(encoder="xresnet19"), CPU)


def test_a_control_group_limits_the_memory(tmp_path: Path) -> None:
    """Version 2: the group's own and its parent's limit count, "max" is none; version 1: of the memory line only."""
    groups, root = tmp_path / "cgroup", tmp_path / "fs"
    (root / "job" / "step").mkdir(parents=True)
    (root / "job" / "memory.max").write_text("4096\n")
    (root / "job" / "step" / "memory.max").write_text("max\n")
    groups.write_text("0::/job/step\n")
    assert memory._group_limits(groups, root) == [4096]
    (root / "memory").mkdir()
    (root / "memory" / "memory.limit_in_bytes").write_text("2048\n")
    groups.write_text("9:name=systemd:/\n4:memory:/docker/abc\n3:cpuset:/\n")
    assert memory._group_limits(groups, root) == [2048]
    assert memory._group_limits(tmp_path / "missing", root) == []


def test_a_gpu_counts_what_it_holds_besides_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 24 GiB 19 are free, 4 reserved now and 4.5 at the peak: 1 GiB is the context's, so the peak is 5.5."""
    gib = 2**30
    fake = SimpleNamespace(
        mem_get_info=lambda device: (19 * gib, 24 * gib),
        memory_reserved=lambda device: 4 * gib,
        max_memory_reserved=lambda device: int(4.5 * gib),
    )
    monkeypatch.setattr(memory.torch, "cuda", fake)
    device = torch.device("cuda")
    assert memory.held_mib(device) == 5.5 * 1024
    assert memory.total_mib(device) == 24 * 1024


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_on_a_gpu() -> None:
    """More tiles hold more memory, and a batch that no GPU holds is halved."""
    few, many = (measure_batch(TrainConfig(encoder="xresnet18", tile_size=128, batch_size=n)) for n in (2, 32))
    assert few.gpu and few.fits and many.fits
    assert few.peak_mib < many.peak_mib < many.total_mib
    huge = measure_batch(TrainConfig(encoder="xresnet18", tile_size=1024, batch_size=1024), batches=1)
    assert not huge.fits and 1 <= huge.largest_batch < 1024
    assert isinstance(huge, BatchCost)
