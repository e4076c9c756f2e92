from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sn7.config import TrainConfig
from sn7.errors import NodeUnfit, StorageUnavailable
from sn7.folds import Split
from sn7.train import EpochMetrics
from sweep.notice import Notice
from sweep.stopping import StopFile, Stopped
from sweep.trial import Job, Objective, Urgent, past_epochs, remove_damaged, run_trial, split_folder
from sweep.usage import Usage


def _epoch(epoch: int, dice: float) -> EpochMetrics:
    return EpochMetrics(epoch, 1.0, 1.0, dice, dice / 2, dice, dice, 1e-3, 1.0, 2.0, 100.0, 4)


def test_the_objective_is_the_best_epoch_averaged_over_the_folds() -> None:
    """Fold 0 peaks at 0.6 and falls; fold 1 reaches 0.4: 0.5 at the end, and never the last epoch's value."""
    objective = Objective()
    assert objective.result() == {"step": 0}
    reports = []
    for index, metrics in ((0, _epoch(1, 0.6)), (0, _epoch(2, 0.3)), (1, _epoch(1, 0.2)), (1, _epoch(2, 0.4))):
        objective.add(index, metrics)
        reports.append(objective.result())
    assert [report["objective"] for report in reports] == pytest.approx([0.6, 0.6, 0.4, 0.5])
    assert [report["step"] for report in reports] == [1, 2, 3, 4]
    assert reports[-1]["dice_std"] == pytest.approx(0.1)
    assert reports[-1]["iou"] == pytest.approx(0.25)
    assert (reports[-1]["epochs_trained"], reports[-1]["seconds"]) == (4, 8.0)


def test_a_training_has_a_folder_of_its_own() -> None:
    """Trial number and split; a colon is no part of a folder's name everywhere."""
    assert split_folder(Path("r"), 7, "random:0") == Path("r/trials/0007/random-0")


def test_a_damaged_checkpoint_is_no_past(tmp_path: Path) -> None:
    """The training begins anew, and the study does not stop at it."""
    (tmp_path / "checkpoint.pt").write_bytes(b"torn")
    assert past_epochs(tmp_path) == []
    assert not (tmp_path / "checkpoint.pt").exists()


def test_a_checkpoint_with_a_flipped_bit(tmp_path: Path) -> None:
    """Of which torch would read a wrong weight: it is no past, either; one that is whole stays."""
    path = tmp_path / "checkpoint.pt"
    remove_damaged(tmp_path)
    torch.save({"w": torch.zeros(1000)}, path)
    remove_damaged(tmp_path)
    content = bytearray(path.read_bytes())
    content[content.index(bytes(1000)) + 500] ^= 1
    path.write_bytes(content)
    remove_damaged(tmp_path)
    assert not path.exists()


def test_an_epoch_is_kept_if_that_was_asked_for(tmp_path: Path) -> None:
    """What the training was told when it could write a checkpoint, not what has become true since."""
    stop = StopFile(tmp_path)
    urgent = Urgent(stop)
    assert not urgent() and not urgent.kept
    stop.request()
    assert not urgent.kept
    assert urgent() and urgent.kept


def test_a_gpu_that_cannot_be_asked_fails_no_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    """NVML does not tell how busy a MIG GPU is: that metric is left out, the others are there."""

    def refuse() -> int:
        raise ModuleNotFoundError("nvidia-ml-py does not seem to be installed")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "utilization", refuse)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (3e9, 4e9))
    sample = Usage().sample()
    assert "system/gpu_0_utilization_percentage" not in sample
    assert sample["system/gpu_0_memory_usage_megabytes"] == 1000 and sample["system/system_memory_usage_megabytes"] > 0


def test_a_machine_that_cannot_reach_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It cannot take part; the trial has not failed, and has its attempt's folder."""

    def load(place: str, leave: object) -> None:
        raise StorageUnavailable("s3://bucket/prepared cannot be reached.")

    for name in ("keep_to_share", "place", "tune.report"):
        monkeypatch.setattr(f"sweep.trial.{name}", lambda *given: None)
    monkeypatch.setattr("sweep.trial.own_notice", lambda: Notice("none"))
    monkeypatch.setattr("sweep.terms.load_prepared", load)
    monkeypatch.setattr("sweep.terms.FETCH_S", -1.0)
    job = Job(tmp_path, "s3://bucket/prepared", TrainConfig(), (Split("fold0", ("a",), ("b",)),))
    with pytest.raises(NodeUnfit, match="cannot be reached"):
        run_trial({"trial": 7, "attempt": 2}, job)
    assert job.folder(7, 0).name == "fold0.attempt-2"


def test_a_trial_leaves_while_its_data_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A first copy of a real set takes minutes, in which the study may be asked to stop."""

    def fetch(place: str, leave: Callable[[], Exception | None]) -> None:
        assert leave() is None
        StopFile(tmp_path).request()
        if reason := leave():
            raise reason

    for name in ("keep_to_share", "place", "tune.report"):
        monkeypatch.setattr(f"sweep.trial.{name}", lambda *given: None)
    monkeypatch.setattr("sweep.trial.own_notice", lambda: Notice("none"))
    monkeypatch.setattr("sweep.terms.load_prepared", fetch)
    job = Job(tmp_path, "s3://bucket/prepared", TrainConfig(), (Split("fold0", ("a",), ("b",)),))
    with pytest.raises(Stopped):
        run_trial({"trial": 7, "attempt": 1}, job)


def test_a_trial_leaves_within_an_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is asked between batches ends it where the study was asked to stop."""
    answers: list[Exception | None] = []

    def train(*more: Any, leave: Callable[[], Exception | None], **named: Any) -> None:
        answers.append(leave())
        StopFile(tmp_path).request()
        answers.append(leave())

    for name in ("keep_to_share", "place", "tune.report", "fetch_prepared"):
        monkeypatch.setattr(f"sweep.trial.{name}", lambda *given: None)
    monkeypatch.setattr("sweep.trial.own_notice", lambda: Notice("none"))
    job = Job(tmp_path, "prepared", TrainConfig(), (Split("fold0", ("a",), ("b",)),), train=train)
    run_trial({"trial": 7, "attempt": 1}, job)
    assert answers[0] is None and isinstance(answers[1], Stopped)
