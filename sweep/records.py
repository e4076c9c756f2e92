"""MLflow: one parent run a study, one child run a trial, one grandchild a fold. Only the driver writes."""

import logging
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
from mlflow.entities import Metric, Param, RunTag
from mlflow.models import ModelSignature
from mlflow.tracking import MlflowClient
from mlflow.types.schema import Schema, TensorSpec

import sn7

__all__ = ["Records", "default_tracking_uri"]

logging.getLogger("mlflow").setLevel(logging.WARNING)  # it tells of every table that it creates

ENDINGS = {"COMPLETE": "FINISHED", "PRUNED": "KILLED", "FAILED": "FAILED", "INTERRUPTED": "KILLED"}
"""MLflow's run states for our words; the word itself is the tag `state`."""


def default_tracking_uri(results: Path) -> str:
    """Return the embedded store that all studies under a results folder share."""
    return f"sqlite:///{results.resolve() / 'mlflow.db'}"


class Records:
    """The runs of one study.

    Runs are found by tag, so that a resumed study goes on in its own. `identity` tells studies of the same name
    apart.
    """

    def __init__(self, tracking_uri: str, results: Path, study: str, identity: str) -> None:
        mlflow.set_tracking_uri(tracking_uri)
        self.client = MlflowClient(tracking_uri)
        self.study = study
        self.identity = identity
        found = self.client.get_experiment_by_name(study)
        # Without a location of its own, the embedded store would put artefacts below the current directory.
        location = (results.resolve() / "mlartifacts" / study).as_uri() if tracking_uri.startswith("sqlite:") else None
        self.experiment = found.experiment_id if found else self.client.create_experiment(study, location)
        self.parent = self._run({"sn7.kind": "study"}, study)
        self.client.update_run(self.parent, status="RUNNING")
        self.runs: dict[int, str] = {}

    def _run(self, tags: dict[str, str], name: str, parent: str | None = None) -> str:
        """Return the run that has these tags, or a new one."""
        tags = {**tags, "sn7.identity": self.identity, **({"mlflow.parentRunId": parent} if parent else {})}
        query = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
        found = self.client.search_runs([self.experiment], query, max_results=1)
        if found:
            return str(found[0].info.run_id)
        return str(self.client.create_run(self.experiment, tags=tags, run_name=name).info.run_id)

    def describe(self, tags: Mapping[str, str]) -> None:
        """Write tags of the study: unlike params, they may change when it is resumed."""
        self._batch(self.parent, tags=tags)

    def _trial(self, trial: int) -> str:
        """Return the run of a trial."""
        if trial not in self.runs:
            tags = {"sn7.kind": "trial", "sn7.trial": str(trial)}
            self.runs[trial] = self._run(tags, f"trial {trial}", self.parent)
        return self.runs[trial]

    def start(self, trial: int, config: Mapping[str, Any], notebook: bool) -> None:
        """Open the run of a trial with its configuration as params."""
        run = self._trial(trial)
        self.client.update_run(run, status="RUNNING")
        tags = {"state": "RUNNING", **({"recipe": "notebook"} if notebook else {})}
        self._batch(run, params=config, tags=tags)

    def epoch(self, trial: int, step: int, metrics: Mapping[str, float]) -> None:
        """Write one epoch of a trial: a single request."""
        self._batch(self.runs[trial], metrics=metrics, step=step)

    def end(
        self, trial: int, state: str, summary: Mapping[str, float], error: str = "", files: Sequence[Path] = ()
    ) -> None:
        """Close the run of a trial with the metrics of its best epoch, its histories, the error of a failed one."""
        run = self.runs[trial]
        self._batch(run, metrics={f"best_{name}": value for name, value in summary.items()}, tags={"state": state})
        if error:
            self.client.log_text(run, error, "error.txt")
        for file in files:
            self.client.log_artifact(run, str(file), file.parent.name)
        self.client.set_terminated(run, ENDINGS[state])

    def interrupt(self, trial: int) -> None:
        """Close the run of a trial that was cut off; its configuration starts again as another trial."""
        self._batch(self._trial(trial), tags={"state": "INTERRUPTED"})
        self.client.set_terminated(self._trial(trial), ENDINGS["INTERRUPTED"])

    def fold(self, trial: int, fold: int, state: str, metrics: Mapping[str, float], files: Sequence[Path]) -> None:
        """Write one fold of the cross-validation, below its trial's run."""
        tags = {"sn7.kind": "fold", "sn7.trial": str(trial), "sn7.fold": str(fold)}
        run = self._run(tags, f"trial {trial} fold {fold}", self._trial(trial))
        self._batch(run, metrics=metrics, tags={"state": state})
        for file in files:
            self.client.log_artifact(run, str(file))
        self.client.set_terminated(run, ENDINGS[state])

    def files(self, paths: Sequence[Path], folder: str | None = None) -> None:
        """Copy files to the study's artefacts."""
        for path in paths:
            self.client.log_artifact(self.parent, str(path), folder)

    def register(self, ensemble: Path, description: str) -> str:
        """Log the ensemble as a pyfunc model, register it under the study's name with the alias `champion`.

        Its input is RGB uint8 (n, height, width, 3), its output probs float32 (n, height, width). Returns the
        registered version.
        """
        signature = ModelSignature(
            Schema([TensorSpec(np.dtype(np.uint8), (-1, -1, -1, 3))]),
            Schema([TensorSpec(np.dtype(np.float32), (-1, -1, -1))]),
        )
        with mlflow.start_run(run_id=self.parent), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it would rather have the signature as type hints of its own kind
            logged = mlflow.pyfunc.log_model(
                name="ensemble",
                python_model=str(Path(__file__).with_name("served.py")),  # code as a file: nothing is pickled
                artifacts={"ensemble": str(ensemble)},
                code_paths=[str(Path(sn7.__file__).parent)],
                signature=signature,
                pip_requirements=["fastai", "numpy", "safetensors", "timm", "torch", "tqdm"],
            )
        if not self.client.search_registered_models(f"name = '{self.study}'"):
            self.client.create_registered_model(self.study)
        version = self.client.create_model_version(
            self.study, logged.model_uri, self.parent, description=description, model_id=logged.model_id
        )
        self.client.set_registered_model_alias(self.study, "champion", version.version)
        return str(version.version)

    def measure(self, metrics: Mapping[str, float]) -> None:
        """Write metrics of the study."""
        self._batch(self.parent, metrics=metrics)

    def close(self, state: str) -> None:
        """End the study's run."""
        self._batch(self.parent, tags={"state": state})
        self.client.set_terminated(self.parent, ENDINGS[state])

    def _batch(
        self,
        run: str,
        params: Mapping[str, Any] | None = None,
        metrics: Mapping[str, float] | None = None,
        tags: Mapping[str, str] | None = None,
        step: int = 0,
    ) -> None:
        now = int(time.time() * 1000)
        self.client.log_batch(
            run,
            metrics=[Metric(key, float(value), now, step) for key, value in (metrics or {}).items()],
            params=[Param(key, str(value)) for key, value in (params or {}).items()],
            tags=[RunTag(key, value) for key, value in (tags or {}).items()],
        )
