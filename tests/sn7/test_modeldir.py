import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from sn7.config import TrainConfig
from sn7.errors import DiskFull, ModelInvalid
from sn7.modeldir import load_model, save_model
from sn7.unet import build_unet

CONFIG = TrainConfig(encoder="xresnet18", tile_size=32)


@pytest.fixture(scope="module")
def unet() -> nn.Module:
    """Return a small U-Net with weights that no seed would draw."""
    model = build_unet(CONFIG).to(memory_format=torch.channels_last)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.01
    return model.eval()


@pytest.fixture
def folder(unet: nn.Module, tmp_path: Path) -> Path:
    """Return a model folder."""
    save_model(tmp_path / "model", unet, CONFIG, {"note": "made by a test"})
    return tmp_path / "model"


def test_a_model_comes_back_the_same(unet: nn.Module, folder: Path) -> None:
    """Configuration, notes and output, bit by bit; the caller's random numbers are left alone."""
    state = torch.get_rng_state()
    model, described = load_model(folder)
    assert torch.equal(torch.get_rng_state(), state)
    assert (described.config, described.training) == (CONFIG, {"note": "made by a test"})
    batch = torch.rand(1, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        assert torch.equal(model.to(memory_format=torch.channels_last)(batch), unet(batch))


def test_an_older_model_is_replaced_whole(unet: nn.Module, folder: Path) -> None:
    """No file of the older one stays, and nothing temporary is left beside it."""
    (folder / "old").touch()
    save_model(folder, unet, CONFIG, {})
    assert sorted(path.name for path in folder.iterdir()) == ["model.json", "weights.safetensors"]
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


DAMAGES = {
    "missing": r"lacks 1 tensors, layers\.0\.0\.0\.weight among them",
    "left over": r"has 1 tensors that the network of model\.json has not, extra among them",
    "shape": r"has layers\.0\.0\.0\.weight in shape \(2, 2\); wanted \(32, 3, 3, 3\)",
    "truncated": r"is damaged \(",
    "archive": r"is a pickled model, which is refused: pickles execute code",
    "pickle": r"is a pickled model, which is refused: pickles execute code",
    "gone": r"is missing; copy",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_weights_are_refused(folder: Path, damage: str) -> None:
    """A tensor too few, too many or of another shape; half a file; pickles in its place; no file: a sentence each."""
    path = folder / "weights.safetensors"
    state = {name: tensor.clone() for name, tensor in load_file(path).items()}  # not maps of the file itself
    name = "layers.0.0.0.weight"
    if damage == "missing":
        del state[name]
    elif damage == "left over":
        state["extra"] = torch.zeros(1)
    elif damage == "shape":
        state[name] = torch.zeros(2, 2)
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:1000])
    elif damage == "archive":
        torch.save(state, path)
    elif damage == "pickle":
        path.write_bytes(pickle.dumps(Armed()))
    elif damage == "gone":
        path.unlink()
    else:
        save_file(state, path)
    with pytest.raises(ModelInvalid, match=rf"weights\.safetensors {DAMAGES[damage]}"):
        load_model(folder)


class Armed:
    """Fails the test as soon as it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return pytest.fail, ("the pickle was loaded",)


def test_what_is_no_model_folder(folder: Path, tmp_path: Path) -> None:
    """A pickled model, a folder with one, a file, the folder of a training, nothing: what it is, what to give."""
    (tmp_path / "export.pkl").write_bytes(pickle.dumps(Armed()))
    (tmp_path / "old").mkdir()
    torch.save({"weight": torch.zeros(1)}, tmp_path / "old" / "best.pth")
    sentences = {
        tmp_path
        / "export.pkl": "is a pickled model, which is refused: pickles execute code when they are loaded; wanted",
        tmp_path / "old": r"is no model folder, and best\.pth in it is a pickled model",
        folder / "weights.safetensors": "is a file; wanted a folder",
        folder.parent: "is no model folder, it holds one; give .*model",
        tmp_path / "nothing": r"is no model folder \(no model\.json\)",
    }
    for path, sentence in sentences.items():
        with pytest.raises(ModelInvalid, match=sentence):
            load_model(path)


def test_another_format_is_refused_with_both_numbers(folder: Path) -> None:
    """A folder of a later version says so."""
    path = folder / "model.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 7}))
    with pytest.raises(ModelInvalid, match="has format 7; wanted 2"):
        load_model(folder)


def test_broken_json_and_no_json(folder: Path) -> None:
    """Each is one sentence that names the file."""
    (folder / "model.json").write_text("{")
    with pytest.raises(ModelInvalid, match=r"model\.json cannot be read"):
        load_model(folder)
    (folder / "model.json").unlink()
    with pytest.raises(ModelInvalid, match="is no model folder"):
        load_model(folder)


def test_a_failed_write_leaves_the_older_model(unet: nn.Module, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk in the middle of a save loses nothing."""

    def full(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("sn7.modeldir.save_file", full)
    with pytest.raises(DiskFull, match="model cannot be written: the disk is full"):
        save_model(folder, unet, CONFIG, {"note": "never written"})
    assert load_model(folder)[1].training == {"note": "made by a test"}
    assert [path.name for path in folder.parent.iterdir()] == ["model"]
