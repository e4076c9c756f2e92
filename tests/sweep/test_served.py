"""The ensemble as others get it: an MLflow model, served over HTTP, loaded where nothing else is installed."""

import ast
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import venv
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import numpy.typing as npt
import pytest
import torch

import sn7
from sn7.config import TrainConfig
from sn7.ensemble import load_predictor, save_ensemble
from sn7.modeldir import save_model
from sn7.unet import build_unet
from sn7.windows import predict_array
from sweep.records import default_tracking_uri, open_records
from sweep.registry import REQUIREMENTS, save_pyfunc

IMAGE = np.random.default_rng(0).integers(0, 256, (1, 40, 64, 3), np.uint8)


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an ensemble of two small models with weights."""
    folder = tmp_path_factory.mktemp("ensemble")
    config = TrainConfig(encoder="xresnet18", tile_size=32)
    for seed in (0, 1):
        torch.manual_seed(seed)
        save_model(folder / str(seed), build_unet(config), config, {})
    save_ensemble(folder / "ensemble", [folder / "0", folder / "1"], 0.25, {}, weights=[1.0, 3.0])
    return folder / "ensemble"


@pytest.fixture(scope="module")
def model(ensemble: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the ensemble as an MLflow model."""
    path = tmp_path_factory.mktemp("model") / "model"
    save_pyfunc(path, ensemble, {"study": "test", "threshold": "0.25"})
    return path


def _probs(ensemble: Path) -> npt.NDArray[np.float32]:
    return predict_array(IMAGE[0].transpose(2, 0, 1), load_predictor(ensemble, torch.device("cpu")))


def test_what_lies_in_the_model(model: Path) -> None:
    """Signature, example, pinned requirements, code, metadata; weights and code as they are, and no pickle."""
    about = mlflow.models.get_model_info(str(model))
    (taken,), (given,) = about.signature.inputs.inputs, about.signature.outputs.inputs
    assert (taken.type, taken.shape, given.type, given.shape) == (np.uint8, (-1, -1, -1, 3), np.float32, (-1, -1, -1))
    assert about.metadata == {"study": "test", "threshold": "0.25"}
    example = np.asarray(json.loads((model / "serving_input_example.json").read_text())["inputs"])
    assert example.shape == (1, 32, 32, 3) and (example.min(), example.max()) == (0, 255)
    required = (model / "requirements.txt").read_text().split()
    assert [line.partition("==")[0] for line in required] == list(REQUIREMENTS)
    assert all(line.partition("==")[2] and "+" not in line for line in required)
    kinds = {path.suffix for path in model.rglob("*") if path.is_file()}
    assert kinds == {"", ".json", ".py", ".safetensors", ".txt", ".yaml"}, "MLmodel has no suffix"
    assert (model / "code" / "sn7" / "ensemble.py").is_file()


def test_the_requirements_are_what_the_code_imports() -> None:
    """Read from the source: whatever the served code imports, at once or through other modules, is required."""
    todo, seen, packages = [Path(sn7.__file__).parents[1] / "sweep" / "served.py"], set(), set()
    while todo:
        path = todo.pop()
        seen.add(path)
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            for name in names:
                own = Path(sn7.__file__).parents[1].joinpath(*name.split(".")).with_suffix(".py")
                if own.exists() and own not in seen:
                    todo.append(own)
                packages.add(name.split(".")[0])
    third_party = packages - sys.stdlib_module_names - {"sn7"}
    assert {"torch", "mlflow"} <= third_party
    # MLflow's pyfunc needs pandas, which its small package does not bring along.
    assert third_party | {"pandas"} == {name.removesuffix("-skinny") for name in REQUIREMENTS}


@contextmanager
def _serving(command: list[str], folder: Path, environment: dict[str, str]) -> Iterator[str]:
    """Run a model server on a free port of 127.0.0.1 until the end of the block; yield its address."""
    with closing(socket.socket()) as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port), "--env-manager", "local"],
            cwd=folder, stdout=log, stderr=log, env={**os.environ, **environment}, start_new_session=True,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 240
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=5).close()
                break
            except OSError:
                running = process.poll() is None and time.monotonic() < deadline
                assert running, (folder / "server.log").read_text()[-3000:]
                time.sleep(0.3)
        yield f"http://127.0.0.1:{port}"
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)  # the server and its worker are a session of their own
            process.wait(timeout=30)


def _ask(url: str, content: Any) -> Any:
    request = urllib.request.Request(
        f"{url}/invocations", json.dumps(content).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.load(answer)


@pytest.mark.slow
def test_the_champion_answers_over_http(ensemble: Path, tmp_path: Path) -> None:
    """`mlflow models serve` of models:/NAME@champion: a tile in, the probs of the ensemble out."""
    records = open_records(default_tracking_uri(tmp_path), tmp_path, tmp_path / "served", "served", "0123", False)
    records.register(ensemble, "made by a test", {"study": "served"})
    assert records.close("COMPLETE", wait_s=60) == 0
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", "models:/served@champion"]
    programs = os.pathsep.join(
        [str(Path(sys.executable).parent), os.environ["PATH"]]
    )  # MLflow starts uvicorn by its name
    environment = {"MLFLOW_TRACKING_URI": default_tracking_uri(tmp_path), "MLFLOW_DISABLE_TELEMETRY": "true"}
    environment["PATH"] = programs
    with _serving(command, tmp_path, environment) as url:
        probs = np.array(_ask(url, {"inputs": IMAGE.tolist()})["predictions"], np.float32)
        with pytest.raises(urllib.error.HTTPError, match="400"):
            _ask(url, {"inputs": IMAGE[..., :1].tolist()})
    np.testing.assert_allclose(probs, _probs(ensemble)[None], atol=1e-6)


LOAD = """
import sys
import mlflow
import numpy as np
model = mlflow.pyfunc.load_model(sys.argv[1])
np.save(sys.argv[3], model.predict(np.load(sys.argv[2])))
import sn7
assert sn7.__file__.startswith(sys.argv[1]), sn7.__file__
assert not {"ray", "optuna", "rasterio", "geopandas", "sweep"} & set(sys.modules)
"""


@pytest.mark.slow
@pytest.mark.alone
def test_a_clean_environment_loads_it(model: Path, ensemble: Path, tmp_path: Path) -> None:
    """A new environment with the model's requirements and nothing else; the code comes out of the model.

    Installing torch takes minutes, and some 6 GB.
    """
    venv.create(tmp_path / "clean", with_pip=True)
    python = str(tmp_path / "clean" / "bin" / "python")
    plain = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MLFLOW_TRACKING_URI")}
    requirements = model / "requirements.txt"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "-r", str(requirements)], check=True, env=plain)
    np.save(tmp_path / "image.npy", IMAGE)
    command = [python, "-c", LOAD, str(model), str(tmp_path / "image.npy"), str(tmp_path / "probs.npy")]
    subprocess.run(command, check=True, env=plain, cwd=tmp_path)
    np.testing.assert_allclose(np.load(tmp_path / "probs.npy"), _probs(ensemble)[None], atol=1e-6)
