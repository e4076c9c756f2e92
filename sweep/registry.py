"""The ensemble as a registered model with the alias `champion`.

What MLflow keeps of it runs anywhere: the model folders, the code that predicts with them (`served` and the package
`sn7`), and the pinned requirements of that code. Nothing in it is pickled.
"""

import tempfile
import warnings
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import mlflow
import numpy as np
import numpy.typing as npt
from mlflow.entities import LoggedModel, LoggedModelOutput
from mlflow.models import Model, ModelSignature
from mlflow.types.schema import Schema, TensorSpec

import sn7
from sweep.journal import Run
from sweep.server import Server

__all__ = ["REQUIREMENTS", "register", "save_pyfunc"]

REQUIREMENTS = (
    "fastai",
    "fsspec",
    "mlflow-skinny",
    "numpy",
    "pandas",
    "psutil",
    "safetensors",
    "timm",
    "torch",
    "tqdm",
)
"""What the code that travels with a model imports, and what MLflow loads and serves it with: no Ray, no geospatial
library, and not all of MLflow."""
EXAMPLE = 32
"""Side of the input example in pixels."""


def register(server: Server, time: int, record: str, ensemble: Path, description: str, tags: Mapping[str, str]) -> None:
    """Register the ensemble as a version of the study's model with the alias `champion`.

    It is a pyfunc: RGB uint8 (n, height, width, 3) → probs float32 (n, height, width). `record` marks the version,
    so that it is made once. `tags` say what it was made from: they end the version's notes, and are metadata of the
    model, too.
    """
    if not ensemble.is_dir():
        raise FileNotFoundError(f"{ensemble} is gone")
    query = f"name = '{server.study}' and tags.`sn7.record` = '{record}'"
    found = server.client.search_model_versions(query)
    if not found:
        model = _logged_model(server, server.run(Run("study"), time), record, ensemble, tags)
        # A store in this process looks a models:/ address up at MLflow's global address, which is not set here.
        served = server.client.tracking_uri.startswith("http")
        if not server.client.search_registered_models(f"name = '{server.study}'"):
            server.client.create_registered_model(server.study)
        found = [
            server.client.create_model_version(
                server.study,
                f"models:/{model.model_id}" if served else model.artifact_location,
                server.run(Run("study"), time),
                {**tags, "sn7.record": record},
                description="\n".join([description, "", *(f"{name}: {value}" for name, value in tags.items())]),
                model_id=model.model_id,
            )
        ]
    server.client.set_registered_model_alias(server.study, "champion", found[0].version)


def _logged_model(server: Server, run_id: str, record: str, ensemble: Path, tags: Mapping[str, str]) -> LoggedModel:
    """Return the logged model of a record, made and uploaded where it is not complete."""
    found = server.client.search_logged_models([server.experiment], f"tags.`sn7.record` = '{record}'")
    model = (
        found[0]
        if found
        else server.client.create_logged_model(
            server.experiment, "ensemble", run_id, {"sn7.record": record}, model_type="python_function"
        )
    )
    if str(model.status) != "READY":
        with tempfile.TemporaryDirectory(prefix="sn7-") as folder:
            local = Path(folder) / "model"
            about = Model(run_id=run_id, model_uuid=model.model_id, model_id=model.model_id)
            save_pyfunc(local, ensemble, tags, about)
            server.client.log_model_artifacts(model.model_id, str(local))
        server.client.finalize_logged_model(model.model_id, "READY")
    outputs = server.client.get_run(run_id).outputs
    if model.model_id not in [output.model_id for output in (outputs.model_outputs if outputs else [])]:
        server.client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
    return model


def save_pyfunc(path: Path, ensemble: Path, metadata: Mapping[str, str], model: Model | None = None) -> None:
    """Write an ensemble folder, or a model folder, as an MLflow model: see `register`.

    `metadata` is what `mlflow.models.get_model_info` shows of it; `model` is what MLflow knows of it already.
    """
    signature = ModelSignature(
        Schema([TensorSpec(np.dtype(np.uint8), (-1, -1, -1, 3))]),
        Schema([TensorSpec(np.dtype(np.float32), (-1, -1, -1))]),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it would rather have the signature as type hints of its own kind
        mlflow.pyfunc.save_model(
            path=str(path),
            python_model=str(Path(__file__).with_name("served.py")),  # code as a file: nothing is pickled
            artifacts={"ensemble": str(ensemble)},
            code_paths=[str(Path(sn7.__file__).parent)],
            signature=signature,
            input_example=_example(),
            pip_requirements=[_pinned(name) for name in REQUIREMENTS],
            metadata=dict(metadata),
            mlflow_model=model,
        )


def _pinned(package: str) -> str:
    """Return a requirement for the installed version, of any build: a machine that serves may need another (+cu130)."""
    return f"{package}=={version(package).partition('+')[0]}"


def _example() -> npt.NDArray[np.uint8]:
    """Return one small image, uint8 (1, h, w, 3), that grows brighter from corner to corner."""
    ramp = np.add.outer(np.arange(EXAMPLE), np.arange(EXAMPLE)) * (255 / (2 * EXAMPLE - 2))
    return np.repeat(ramp.astype(np.uint8)[None, :, :, None], 3, axis=3)
