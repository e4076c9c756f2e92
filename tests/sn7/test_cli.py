import csv
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from fastai.learner import Learner
from torch import OutOfMemoryError

from sn7.cli import main
from sn7.config import TrainConfig
from sn7.configfile import parse_config
from sn7.errors import ConfigError, OutOfMemory
from sn7.findlr import find_lr
from sn7.folds import Split
from sn7.history import EpochMetrics
from sn7.modeldir import read_model
from sn7.prepared import Prepared
from sn7.train import read_history


def _said(capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    captured = capsys.readouterr()
    return captured.out, captured.err


def test_help_is_quick_to_load() -> None:
    """`sn7 --help` imports neither torch nor rasterio."""
    code = (
        "import sys; import sn7.cli; print([m for m in ('torch', 'fastai', 'rasterio', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_terminal_without_our_letters(tmp_path: Path) -> None:
    """What it cannot show is spelled out; it is no reason to fail."""
    command = [sys.executable, "-m", "sn7.cli", "sample", str(tmp_path / "Städte"), "--scenes", "1", "--months", "1"]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([*command, "--size", "64"], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert "St\\xe4dte" in done.stdout


def test_train_help_lists_every_field(capsys: pytest.CaptureFixture[str]) -> None:
    """Each with its default."""
    with pytest.raises(SystemExit) as caught:
        main(["train", "--help"])
    assert caught.value.code == 0
    out, _ = _said(capsys)
    for name, value in TrainConfig().to_dict().items():
        assert name in out and str(value) in out


def test_a_usage_error_is_2(capsys: pytest.CaptureFixture[str]) -> None:
    """argparse's own status."""
    with pytest.raises(SystemExit) as caught:
        main(["predict"])
    assert caught.value.code == 2


def test_sample_and_prepare(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From nothing to prepared arrays; a second prepare reuses all; a second sample is refused."""
    data, out = tmp_path / "data", tmp_path / "prepared"
    assert main(["sample", str(data), "--scenes", "2", "--months", "1", "--size", "64"]) == 0
    assert "2 scenes to train on, 1 to predict; 3 images" in _said(capsys)[0]
    assert main(["prepare", str(data), str(out)]) == 0
    assert "2 images of 2 scenes, 2 prepared, 0 reused, 0 unlabelled" in _said(capsys)[0]
    assert main(["prepare", str(data), str(out)]) == 0
    assert "0 prepared, 2 reused" in _said(capsys)[0]
    assert main(["sample", str(data)]) == 1
    assert str(data) in _said(capsys)[1]


@pytest.mark.parametrize("command", [["prepare", "{}/none", "{}/out"], ["train", "{}/none", "{}/out"]])
def test_missing_input_is_one_sentence(command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 1, one line on stderr that names the folder, nothing written."""
    assert main([part.format(tmp_path) for part in command]) == 1
    out, err = _said(capsys)
    assert out == ""
    assert err.startswith("error: ") and err.count("\n") == 1 and str(tmp_path / "none") in err
    assert not (tmp_path / "out").exists()


def test_a_model_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`sn7 predict` says what it wanted, once it has seen that there is something to predict."""
    command = ["predict", str(tmp_path), str(tmp_path / "a.tif"), "--out", str(tmp_path / "out")]
    assert main(command) == 1
    assert "a.tif does not exist" in _said(capsys)[1]
    (tmp_path / "a.tif").touch()
    assert main(command) == 1
    assert "is no model folder" in _said(capsys)[1]


@pytest.mark.parametrize(
    ("options", "status", "said"),
    [
        (["--pool-months", "3"], 1, "add --pool mean or --pool median"),
        (["--pool", "mean", "--pool-months", "4"], 2, "wanted 0 or an odd number"),
        (["--device", "tpu"], 1, "there is no device 'tpu' here; wanted auto or one of cpu"),
        (["--pool", "mean", "--pool-months", "x"], 2, "x cannot be used; wanted 0 or an odd number"),
        (["--batch-size", "0"], 2, "wanted 1 or more windows"),
        (["--batch-size", "x"], 2, "x cannot be used; wanted 1 or more windows, or auto"),
        (["--format", "shp"], 2, "invalid choice: 'shp'"),
    ],
)
def test_options_of_predict(
    options: list[str], status: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What cannot be used is answered before a model is read."""
    arguments = ["predict", str(tmp_path), str(tmp_path), "--out", str(tmp_path / "out"), *options]
    try:
        assert main(arguments) == status
    except SystemExit as ended:
        assert ended.code == status
    assert said in _said(capsys)[1]


def test_train_and_predict(
    make_prepared: Callable[..., Prepared],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A model trained by the command predicts a data set, in a folder or at a URL, by the command."""
    monkeypatch.setenv("SN7_CACHE", str(tmp_path / "cache"))
    prepared = make_prepared(scenes=2)
    settings = ["encoder=xresnet18", "tile_size=32", "batch_size=4", "epochs=1"]
    sets = [part for setting in settings for part in ("--set", setting)]
    assert main(["train", str(prepared.folder), str(tmp_path / "out"), *sets, "--folds", "2"]) == 1
    assert "--folds 2 was given without --fold; say on which" in _said(capsys)[1]
    assert main(["train", str(prepared.folder), str(tmp_path / "out"), *sets, "--fold", "0", "--folds", "2"]) == 0
    assert "on split fold0 at epoch 1 of 1; 4 training tiles" in _said(capsys)[0]
    data = tmp_path / "data"
    assert main(["sample", str(data), "--scenes", "1", "--months", "1", "--size", "64"]) == 0
    for place, maps in ((str(data), tmp_path / "maps"), (f"file://{data}", tmp_path / "maps of a URL")):
        assert main(["predict", str(tmp_path / "out" / "model"), place, "--out", str(maps)]) == 0
        assert "1 of 1 images predicted" in _said(capsys)[0]
        assert sorted(path.suffix for path in maps.rglob("*.*")) == [".geojson", ".png", ".tif"]
    more = ["--tta", "--pool", "median", "--format", "gpkg", "--batch-size", "2", "--set", "threshold=0.3"]
    model, maps = str(tmp_path / "out" / "model"), tmp_path / "pooled"
    assert main(["predict", model, str(data), "--out", str(maps), *more]) == 0
    assert "1 of 1 images predicted (" in _said(capsys)[0]
    assert sorted(path.suffix for path in maps.rglob("*.*")) == [".gpkg", ".png", ".tif"]


SETTINGS = ("encoder=test_efficientnet", "tile_size=32", "batch_size=4", "epochs=2")
SETS = [part for setting in SETTINGS for part in ("--set", setting)]


@pytest.mark.slow
def test_train_resumes(
    make_prepared: Callable[..., Prepared],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An interrupted training continues with --resume, and says so; another configuration is refused."""
    command = ["train", str(make_prepared().folder), str(tmp_path / "out"), "--resume"]
    command += SETS
    with monkeypatch.context() as patch:
        patch.setattr("sn7.training.write_rows", _interrupt_at(2))
        assert main(command) == 130
    assert main([*command, "--set", "lr_max=0.5"]) == 1
    assert "config.lr_max is 0.0003 there and 0.5 here" in _said(capsys)[1]
    assert main(command) == 0
    assert "s; continued after epoch 1\ntoo few scenes for an interval; at the best" in _said(capsys)[0]
    assert main(command) == 0
    assert "s; continued after epoch 2\n" in _said(capsys)[0]


def test_ctrl_c_ends_a_training_in_order(
    make_prepared: Callable[..., Prepared],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """SIGTERM at the end of the first epoch: its checkpoint goes on; in the last one nothing is lost."""
    out = tmp_path / "out"
    command = ["train", str(make_prepared().folder), str(out), "--resume", *SETS]
    with monkeypatch.context() as patch:
        patch.setattr("sn7.training.write_rows", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
        assert main(command) == 130
    assert "stopped after epoch 1 of 2; go on with --resume." in _said(capsys)[1]
    assert [metrics.epoch for metrics in read_history(out)] == [1]
    with monkeypatch.context() as patch:
        patch.setattr("sn7.training.save_model", lambda *_: os.kill(os.getpid(), signal.SIGINT))
        patch.setattr("sn7.training.Training._has_model", lambda *_: True)
        patch.setattr("sn7.train._draw", lambda *_: None)
        assert main(command) == 0
    assert "continued after epoch 1" in _said(capsys)[0]
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_ctrl_c_does_not_wait_for_the_end_of_an_epoch(
    make_prepared: Callable[..., Prepared],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """SIGINT before the first batch: it ends after it, with a checkpoint that the next start goes on from."""
    out = tmp_path / "out"
    command = ["train", str(make_prepared().folder), str(out), "--resume", *SETS]
    with monkeypatch.context() as patch:
        patch.setattr("fastai.learner.Learner._do_epoch_train", _signalled(Learner._do_epoch_train))
        assert main(command) == 130
    assert "stopped within an epoch; go on with --resume." in _said(capsys)[1]
    assert (out / "checkpoint.pt").exists() and read_history(out) == []
    assert main(command) == 0
    assert [metrics.epoch for metrics in read_history(out)] == [1, 2]


def _signalled(train: Callable[[Learner], None]) -> Callable[[Learner], None]:
    """Return what sends this process SIGINT, and trains an epoch then."""

    def run(learner: Learner) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        train(learner)

    return run


def test_find_lr(make_prepared: Callable[..., Prepared], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It suggests a rate inside its range, and leaves a picture and a table; too few steps are refused."""
    prepared, out = str(make_prepared().folder), tmp_path / "found"
    assert main(["find-lr", prepared, "--out", str(out), "--steps", "5", *SETS]) == 1
    assert "5 steps are too few" in _said(capsys)[1]
    assert main(["find-lr", prepared, "--out", str(out), "--steps", "40", *SETS]) == 0
    suggested = float(_said(capsys)[0].split("suggested lr_max = ")[1].split(",")[0])
    with (out / "lr_find.csv").open() as file:
        lrs = [float(row["lr"]) for row in csv.DictReader(file)]
    assert lrs == sorted(lrs) and lrs[0] < suggested < lrs[-1]
    assert sorted(path.name for path in out.iterdir()) == ["lr_find.csv", "lr_find.png"]


def test_what_is_no_part_of_the_range_test(
    make_prepared: Callable[..., Prepared], split: Split, tmp_path: Path
) -> None:
    """A moving average and frozen epochs leave the curve as it is, over several passes."""
    prepared, config = make_prepared(), parse_config("notebook", list(SETTINGS))
    plain = find_lr(config, prepared, split, tmp_path, 20)
    assert find_lr(replace(config, ema_decay=0.9, frozen_epochs=1), prepared, split, tmp_path, 20) == plain


def test_what_the_range_test_cannot_do(
    make_prepared: Callable[..., Prepared], split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch size that is not known yet, as in a training; a batch that is too much for the memory."""
    prepared, config = make_prepared(), parse_config("notebook", list(SETTINGS))
    with pytest.raises(ConfigError, match="depends on the device"):
        find_lr(replace(config, batch_size="auto"), prepared, split, tmp_path, 20)

    def fail(*_: object) -> None:
        raise OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("sn7.losses.WeightedCrossEntropy.forward", fail)
    said = r"^a batch of 4 tiles of 32 px at upscale 1 does not fit into the memory of CPU .*; lower batch_size, "
    with pytest.raises(OutOfMemory, match=said):
        find_lr(config, prepared, split, tmp_path, 20)


def test_the_batch_size_that_fits(
    make_prepared: Callable[..., Prepared],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Auto is found, said and written down; --resume keeps what was found before."""
    out = tmp_path / "out"
    command = ["train", str(make_prepared().folder), str(out), "--resume", *SETS, "--set", "batch_size=auto"]
    with monkeypatch.context() as patch:
        patch.setattr("sn7.autobatch.free_mib", lambda _: 30.0)
        assert main(command) == 0
    said = _said(capsys)[1]
    found = read_model(out / "model").config.batch_size
    assert f"batch_size = auto: {found}, the most that fit, on CPU" in said and 1 <= found < 8
    assert main(command) == 0
    out_text, err = _said(capsys)
    assert "continued after epoch 2" in out_text
    assert f"batch_size = auto: {found}, that of the training in {out}" in err


def test_the_batch_size_of_another_training_is_not_taken_over(
    make_prepared: Callable[..., Prepared],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is that of a checkpoint, or of a result; a model that lies there alone is no training to go on with."""
    out = tmp_path / "out"
    command = ["train", str(make_prepared().folder), str(out), *SETS]
    monkeypatch.setattr("sn7.autobatch.largest_batch", lambda *_: 3)
    with monkeypatch.context() as patch:
        patch.setattr("sn7.training.write_rows", _interrupt_at(1))
        assert main([*command, "--set", "batch_size=8"]) == 130
    assert (out / "model").exists() and not (out / "checkpoint.pt").exists()
    auto = [*command, "--resume", "--set", "batch_size=auto"]
    with monkeypatch.context() as patch:
        patch.setattr("sn7.training.write_rows", _interrupt_at(2))
        assert main(auto) == 130
    assert "batch_size = auto: 3, the most that fit" in _said(capsys)[1]
    monkeypatch.setattr("sn7.autobatch.largest_batch", lambda *_: 4)
    assert main(auto) == 0
    assert f"batch_size = auto: 3, that of the training in {out}" in _said(capsys)[1]


def _interrupt_at(epoch: int) -> Callable[..., None]:
    """Return what presses Ctrl-C at the end of an epoch."""

    def press(_: Path, history: list[EpochMetrics]) -> None:
        if len(history) == epoch:
            raise KeyboardInterrupt

    return press


def test_configurations_from_names_files_and_assignments(tmp_path: Path) -> None:
    """A recipe, a flat file, a study file's [train]; --set on top, in the field's own type."""
    assert parse_config("notebook", []) == TrainConfig()
    assert parse_config("notebook", ["epochs=3", "undersample=false"]) == TrainConfig(epochs=3, undersample=False)
    (tmp_path / "flat.toml").write_text("lr_max = 0.001")
    (tmp_path / "study.toml").write_text("[train]\nlr_max = 0.001")
    for name in ("flat.toml", "study.toml"):
        assert parse_config(str(tmp_path / name), []) == TrainConfig(lr_max=0.001)
    (tmp_path / "flat.toml").write_text("train = 3")
    with pytest.raises(ConfigError, match=r"flat\.toml: train = 3 is no table; wanted \[train\] with fields below it"):
        parse_config(str(tmp_path / "flat.toml"), [])


@pytest.mark.parametrize(
    ("name", "assignment", "said"),
    [
        ("notebook", "epochs", "is no assignment; wanted FIELD=VALUE"),
        ("notebook", "epochs=many", "'many' is of type str; wanted a whole number"),
        ("notebook", "undersample=perhaps", "wanted true or false"),
        ("notebook", "epoch=3", "did you mean epochs"),
        ("none.toml", "epochs=3", "cannot be read as TOML"),
    ],
)
def test_bad_configurations(name: str, assignment: str, said: str) -> None:
    """Each says what it wanted."""
    with pytest.raises(ConfigError, match=said):
        parse_config(name, [assignment])
