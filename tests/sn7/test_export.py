"""Models as ONNX files: what they compute, what they say of themselves, and when none is written."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from sn7.cli import main
from sn7.config import TrainConfig
from sn7.encoders import XRESNETS
from sn7.ensemble import Predictor, load_predictor, save_ensemble
from sn7.errors import ExportFailed
from sn7.export import export_onnx
from sn7.modeldir import save_model
from sn7.unet import build_unet

FP32 = TrainConfig(tile_size=32, precision="fp32")


def _pixelwise(building: float) -> nn.Module:
    """Return a network whose logits are 0 and `building` in every pixel, but for nothing of what it sees."""
    net = nn.Conv2d(3, 2, 1)
    nn.init.zeros_(net.weight)
    assert net.bias is not None
    net.bias.data = torch.tensor([0.0, building])
    return net


def _session(path: Path) -> Any:
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def test_the_weighted_mean_by_hand(tmp_path: Path) -> None:
    """Members of probs 0.75 and 0.25, one of which enlarges, with weights 3 and 1: 0.625 in each pixel of any batch."""
    logit = float(np.log(3))
    members = [(_pixelwise(logit), FP32), (_pixelwise(-logit), TrainConfig(tile_size=32, upscale=2))]
    predictor = Predictor("two", members, 0.375, 64, [3.0, 1.0])
    report = export_onnx(predictor, tmp_path / "two.onnx")
    session = _session(tmp_path / "two.onnx")
    assert [(one.name, one.type, one.shape) for one in session.get_inputs()] == [
        ("rgb", "tensor(uint8)", ["N", 3, "height", "width"])
    ]
    for shape in ((1, 3, 32, 64), (5, 3, 96, 32)):
        probs = session.run(None, {"rgb": np.zeros(shape, np.uint8)})[0]
        assert probs.dtype == np.float32 and probs.shape == (shape[0], *shape[2:])
        np.testing.assert_allclose(probs, 0.625, atol=1e-6)
    metadata = session.get_modelmeta().custom_metadata_map
    assert (metadata["threshold"], metadata["members"], metadata["name"]) == ("0.375", "2", "two")
    assert (report.members, report.parameters, report.batches) == (2, 16, 3)
    assert [path.name for path in tmp_path.iterdir()] == ["two.onnx"]


@pytest.mark.slow
def test_colours_are_normalised_inside(tmp_path: Path) -> None:
    """The logit is the normalised red: of red 124 it is (124 / 255 - 0.485) / 0.229, of 255 (1 - 0.485) / 0.229."""
    net = _pixelwise(0.0)
    net.weight.data[1, 0] = 1.0  # type: ignore[index, union-attr, operator]
    export_onnx(Predictor("red", [(net, FP32)], 0.5, 64), tmp_path / "red.onnx")
    batch = np.zeros((1, 3, 32, 32), np.uint8)
    batch[0, 0], batch[0, 0, 16:] = 124, 255
    probs = _session(tmp_path / "red.onnx").run(None, {"rgb": batch})[0]
    logits = (np.array([124, 255]) / 255 - 0.485) / 0.229
    np.testing.assert_allclose(probs[0, [0, 31], 0], 1 / (1 + np.exp(-logits)), atol=1e-6)


@pytest.mark.slow
def test_weights_beyond_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They lie beside the graph, under the name that it looks for, also when both were moved elsewhere."""
    monkeypatch.setattr("sn7.export.FILE_LIMIT", 0)
    net = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1), nn.Conv2d(64, 2, 3, padding=1))
    report = export_onnx(Predictor("large", [(net, FP32)], 0.5, 64), tmp_path / "large.onnx")
    assert [path.name for path in report.files] == ["large.onnx", "large.onnx.data"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["large.onnx", "large.onnx.data"]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for path in report.files:
        path.rename(elsewhere / path.name)
    assert _session(elsewhere / "large.onnx").run(None, {"rgb": np.zeros((1, 3, 32, 32), np.uint8)})[0].shape[0] == 1


def _write_half(_: object, path: Path, *__: object) -> None:
    """Write a graph of the right shapes whose probs are 0.5 everywhere."""
    helper, kinds = onnx.helper, onnx.TensorProto
    nodes = [
        helper.make_node("Cast", ["rgb"], ["float"], to=kinds.FLOAT),
        helper.make_node("ReduceMax", ["float"], ["most"], axes=[1], keepdims=0),
        helper.make_node("Mul", ["most", "zero"], ["zeros"]),
        helper.make_node("Sigmoid", ["zeros"], ["probs"]),
    ]
    rgb = helper.make_tensor_value_info("rgb", kinds.UINT8, ["N", 3, "h", "w"])
    probs = helper.make_tensor_value_info("probs", kinds.FLOAT, ["N", "h", "w"])
    zero = helper.make_tensor("zero", kinds.FLOAT, [1], [0.0])
    graph = helper.make_graph(nodes, "half", [rgb], [probs], [zero])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, path)


def test_a_file_that_differs_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """0.5 in place of 0.5025: refused with the difference, and what was there before stays as it was."""
    monkeypatch.setattr("sn7.export._write", _write_half)
    (tmp_path / "half.onnx").write_text("an older one")
    with pytest.raises(ExportFailed, match=r"half\.onnx is not written: .* by up to 0\.0025; wanted 0\.0001 at most"):
        export_onnx(Predictor("other", [(_pixelwise(0.01), FP32)], 0.5, 64), tmp_path / "half.onnx")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("half.onnx", "an older one")]
    export_onnx(Predictor("same", [(_pixelwise(0.0), FP32)], 0.5, 64), tmp_path / "half.onnx")


def test_a_graph_that_is_another_predictor_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is compared is what `sn7 predict` makes of the model, in fp32, not the copy that was exported."""
    monkeypatch.setattr("sn7.export.native_probs", lambda logits, _: logits.softmax(dim=1)[:, 0])
    with pytest.raises(ExportFailed, match=r"other\.onnx is not written: .* by up to 0\.005"):
        export_onnx(Predictor("other", [(_pixelwise(0.01), FP32)], 0.5, 64), tmp_path / "other.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_network_without_an_onnx_form(tmp_path: Path) -> None:
    """One sentence; nothing is left behind."""

    class Asks(nn.Module):
        def forward(self, rgb: torch.Tensor) -> torch.Tensor:
            return rgb[:, :2] if rgb.mean() > 0 else rgb[:, 1:]

    with pytest.raises(ExportFailed, match=r"asks\.onnx cannot be written: the network has no ONNX form \("):
        export_onnx(Predictor("asks", [(Asks(), FP32)], 0.5, 64), tmp_path / "asks.onnx")
    assert not list(tmp_path.iterdir())


def test_packages_that_are_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are an extra of the installation, which the sentence names."""
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ExportFailed, match=r"needs onnxruntime, .* run pip install 'sn7\[export\]'"):
        export_onnx(Predictor("one", [(_pixelwise(0.0), FP32)], 0.5, 64), tmp_path / "one.onnx")


def _settled(model: nn.Module) -> nn.Module:
    """Return a network with the batch statistics of one that was trained: neither 0 nor 1."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None and module.running_var is not None:
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    return model


NETWORKS: list[dict[str, Any]] = [
    {"encoder": "xresnet18", "aspp": True, "self_attention": True, "blur": True, "activation": "mish"},
    {"encoder": "xse_resnet18", "separation_weight": 0.5},
    {"encoder": "efficientnet_b0", "activation": "silu", "upscale": 2},
]


@pytest.mark.slow
@pytest.mark.parametrize("fields", NETWORKS, ids=str)
def test_networks_of_every_kind(fields: dict[str, Any], tmp_path: Path) -> None:
    """Every option of the decoder, both kinds of encoders, enlarged images: as torch for any batch and size."""
    config = TrainConfig(tile_size=64, precision="fp32", **fields)
    predictor = Predictor("net", [(_settled(build_unet(config)), config)], 0.5, 96)
    assert export_onnx(predictor, tmp_path / "net.onnx").difference < 1e-4
    session = _session(tmp_path / "net.onnx")
    for shape in ((1, 3, 96, 160), (3, 3, 64, 32), *([(1, 3, 65, 95)] if fields["encoder"] in XRESNETS else [])):
        batch = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
        wanted = predictor.probs(torch.from_numpy(batch)).numpy()
        np.testing.assert_allclose(session.run(None, {"rgb": batch})[0], wanted, atol=1e-4)


@pytest.mark.slow
def test_an_ensemble_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`sn7 export` of two models with their weights: the probs of `sn7 predict`, and a line with what was compared."""
    config = TrainConfig(encoder="xresnet18", tile_size=32, precision="fp32")
    for seed in (0, 1):
        torch.manual_seed(seed)
        save_model(tmp_path / str(seed), _settled(build_unet(config)), config, {})
    save_ensemble(tmp_path / "ensemble", [tmp_path / "0", tmp_path / "1"], 0.25, {}, weights=[1.0, 3.0])
    out = tmp_path / "maps" / "ensemble.onnx"
    assert main(["export", str(tmp_path / "ensemble"), str(out)]) == 0
    assert "ensemble.onnx: 2 models, " in (printed := capsys.readouterr().out) and "over 3 batches" in printed
    batch = np.random.default_rng(1).integers(0, 256, (2, 3, 64, 96), np.uint8)
    wanted = load_predictor(tmp_path / "ensemble", torch.device("cpu")).probs(torch.from_numpy(batch)).numpy()
    session = _session(out)
    np.testing.assert_allclose(session.run(None, {"rgb": batch})[0], wanted, atol=1e-4)
    metadata = session.get_modelmeta().custom_metadata_map
    assert metadata["threshold"] == "0.25" and len(metadata["model_sha256"]) == 64
