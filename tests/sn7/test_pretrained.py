import pickle
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from sn7.config import TrainConfig
from sn7.encoders import build_body
from sn7.errors import PretrainedUnusable
from sn7.modeldir import save_model
from sn7.pretrained import Matched, load_pretrained, require_pretrained
from sn7.unet import build_unet


def _published(name: str) -> nn.Module:
    """A timm model as a stranger could have trained it: random weights, random statistics of its batch norms."""
    model = timm.create_model(name).eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                for tensor in (module.weight, module.running_var):
                    tensor.uniform_(0.5, 1.5)
                for tensor in (module.bias, module.running_mean):
                    tensor.normal_(std=0.1)
    return model


def _file(folder: Path, state: Any, suffix: str = ".safetensors") -> str:
    path = folder / f"weights{suffix}"
    if suffix == ".safetensors":
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)
    else:
        torch.save(state, path)
    return str(path)


def _load(encoder: str, pretrained: str) -> tuple[nn.Module, Matched | None]:
    """An encoder with weights, as the first module of what would be a U-Net."""
    unet = nn.Sequential(build_body(encoder))
    matched = load_pretrained(unet, TrainConfig(encoder=encoder, pretrained=pretrained))
    return unet[0].eval(), matched


def _agree(body: nn.Module, model: Any) -> bool:
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours, theirs = body(image), model.forward_features(image)
    return torch.allclose(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("depth", [18, 34, 50])
def test_an_xresnet_computes_what_its_twin_does(depth: int, suffix: str, tmp_path: Path) -> None:
    """Feature maps of the two encoders agree once the file of timm's is loaded: all tensors have found their place."""
    twin = _published(f"resnet{depth}d")
    body, matched = _load(f"xresnet{depth}", _file(tmp_path, twin.state_dict(), suffix))
    assert _agree(body, twin)
    assert matched is not None
    assert matched.tensors == matched.wanted == sum("num_batches" not in name for name in body.state_dict())


@pytest.mark.parametrize("name", ["resnet18d", "convnext_atto", "mobilenetv3_small_050", "regnety_002"])
def test_a_timm_encoder_takes_its_own(name: str, tmp_path: Path) -> None:
    """Names that timm flattens for feature maps, and layers without batch norm, included."""
    model = _published(name)
    body, matched = _load(name, _file(tmp_path, model.state_dict()))
    assert matched is not None and matched.tensors == matched.wanted
    own, theirs = list(body.state_dict().values()), list(model.state_dict().values())
    assert all(torch.equal(one, other) for one, other in zip(own, theirs, strict=False) if one.ndim == other.ndim == 4)


@pytest.mark.parametrize("key", ["state_dict", "model"])
def test_states_that_training_scripts_save(key: str, tmp_path: Path) -> None:
    """Below a key, beside numbers of the training, with the prefix of parallel training, without batch counts."""
    twin = _published("resnet18d")
    state = {f"module.{name}": tensor for name, tensor in twin.state_dict().items() if tensor.ndim}
    body, _ = _load("xresnet18", _file(tmp_path, {key: state, "epoch": 7}, ".pth"))
    assert _agree(body, twin)


@pytest.mark.parametrize(("first", "second"), [("xresnet18", "xresnet18"), ("resnet18d", "xresnet18")])
def test_a_model_folder_gives_its_encoder(first: str, second: str, tmp_path: Path) -> None:
    """Of the same name or of the twin's; its decoder is left behind."""
    config = TrainConfig(encoder=first, tile_size=64)
    model = build_unet(config).eval()
    save_model(tmp_path / "model", model, config, {})
    body, _ = _load(second, str(tmp_path / "model"))
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.allclose(body(image), model[0](image), rtol=1e-5, atol=1e-5)


def test_an_xresnet_without_twin_takes_a_file_of_its_own(tmp_path: Path) -> None:
    """ImageNet's weights are not for it, but an earlier training's are."""
    earlier = build_body("xse_resnet18")
    body, _ = _load("xse_resnet18", _file(tmp_path, earlier.state_dict()))
    assert all(torch.equal(one, other) for one, other in zip(body.parameters(), earlier.parameters(), strict=True))


def test_the_unet_is_changed_in_its_encoder_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The decoder keeps its weights, torch's generator its place, and a line says how many tensors matched."""
    path = _file(tmp_path, _published("resnet18d").state_dict())
    config = TrainConfig(encoder="xresnet18", tile_size=64, pretrained=path)
    model = build_unet(config)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random = torch.get_rng_state()
    matched = load_pretrained(model, config)
    assert torch.equal(random, torch.get_rng_state())
    changed = {
        name.split(".")[1] for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])
    }
    assert changed == {"0"}
    assert matched is not None
    assert f"{matched.tensors} of the {matched.wanted} tensors of xresnet18" in capsys.readouterr().err


def _damaged(state: dict[str, Tensor], what: str) -> dict[str, Tensor]:
    if what == "a stage is missing":
        return {name: tensor for name, tensor in state.items() if not name.startswith("layer4")}
    return {name: tensor[None] if name.startswith("layer4") else tensor for name, tensor in state.items()}


@pytest.mark.parametrize("encoder", ["xresnet18", "resnet18d"])
@pytest.mark.parametrize("what", ["a stage is missing", "a stage is of other shapes"])
def test_less_than_95_percent_is_an_error(encoder: str, what: str, tmp_path: Path) -> None:
    """An encoder that is random in a stage would pass for a pretrained one."""
    path = _file(tmp_path, _damaged(_published("resnet18d").state_dict(), what))
    with pytest.raises(PretrainedUnusable, match=rf"has \d+ of the \d+ tensors of encoder '{encoder}'; wanted 95%"):
        _load(encoder, path)


@pytest.mark.parametrize(("deeper", "encoder"), [("resnet34d", "xresnet18"), ("resnet34d", "resnet18d")])
def test_weights_of_a_deeper_model_are_refused(deeper: str, encoder: str, tmp_path: Path) -> None:
    """They fill every tensor of the encoder; the rest of theirs gives them away."""
    path = _file(tmp_path, _published(deeper).state_dict())
    with pytest.raises(
        PretrainedUnusable, match=rf"another model than encoder '{encoder}'.*give the weights of resnet18d"
    ):
        _load(encoder, path)


class _Code:
    """Unpickling it would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("write", [torch.save, lambda content, path: Path(path).write_bytes(pickle.dumps(content))])
def test_a_file_that_needs_code_is_refused(write: Any, tmp_path: Path) -> None:
    """And the code is not run."""
    path, trace = tmp_path / "weights.pth", tmp_path / "was-here"
    write({"state_dict": _Code(trace)}, path)
    with pytest.raises(PretrainedUnusable, match="holds more than tensors, and was not loaded, as that could run code"):
        _load("xresnet18", str(path))
    assert not trace.exists()


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pth", "model/weights.safetensors"])
def test_damaged_files_are_named(name: str, tmp_path: Path) -> None:
    """Half a file is not loaded, whatever it is."""
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"PK\x03\x04 half a file")
    pretrained = path.parent if path.parent != tmp_path else path
    with pytest.raises(PretrainedUnusable, match=str(pretrained)):
        _load("xresnet18", str(pretrained))


def test_a_file_that_is_not_there() -> None:
    """A slip of the pen in `imagenet` ends here, too."""
    with pytest.raises(PretrainedUnusable, match="'imagnet' does not exist; wanted none, imagenet, a file"):
        _load("xresnet18", "imagnet")


def test_imagenet_weights_come_from_timms_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For an xresnet, its twin's; here the hub has them on this disk."""
    twin = _published("resnet18d")
    path = _file(tmp_path, twin.state_dict())
    monkeypatch.setattr("timm.models._hub.hf_hub_download", lambda **_: path)
    body, matched = _load("xresnet18", "imagenet")
    assert matched is not None and matched.source == "ImageNet weights of resnet18d"
    assert _agree(body, twin)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No hub answers."""

    def fail(**_: Any) -> None:
        raise ConnectionError("Network is unreachable")

    monkeypatch.setattr("timm.models._hub.hf_hub_download", fail)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(("encoder", "hub"), [("xresnet18", "resnet18d"), ("mobilenetv3_small_050", None)])
def test_without_a_network_it_says_how_to_go_on(encoder: str, hub: str | None) -> None:
    """Which file of whose, and what to do with it."""
    name = hub or encoder
    with pytest.raises(
        PretrainedUnusable,
        match=rf"weights of {name} could not be fetched .*unreachable.*"
        rf"model.safetensors of timm/{name}\.\w+ on .* hub on a machine with a network.*pretrained = PATH",
    ):
        _load(encoder, "imagenet")


@pytest.mark.usefixtures("offline")
def test_building_a_unet_asks_no_network() -> None:
    """A finished model is rebuilt on machines that have none, and has its own weights."""
    build_unet(TrainConfig(encoder="xresnet18", pretrained="imagenet", tile_size=64))


@pytest.mark.parametrize("encoder", ["xse_resnet18", "densenet264d"])
def test_encoders_without_imagenet_weights(encoder: str) -> None:
    """Known before anything is built or fetched, with the xresnets that have a twin."""
    twins = "xresnet18, xresnet34, xresnet50, xresnet101, xresnet152 have a twin"
    with pytest.raises(PretrainedUnusable, match=f"no ImageNet weights for encoder '{encoder}'; take .*{twins}"):
        require_pretrained(TrainConfig(encoder=encoder, pretrained="imagenet"))


def test_none_changes_nothing() -> None:
    """The notebook's encoder starts at random."""
    assert load_pretrained(nn.Sequential(build_body("xresnet18")), TrainConfig()) is None
