"""The ensemble as an MLflow pyfunc model; MLflow keeps this file and runs it where the model is loaded."""

from pathlib import Path
from typing import Any

import mlflow
import numpy as np

from sn7.ensemble import load_predictor
from sn7.windows import predict_array


class ServedEnsemble(mlflow.pyfunc.PythonModel):
    """RGB uint8 (n, height, width, 3) → probs float32 (n, height, width)."""

    def load_context(self, context: Any) -> None:
        """Load the ensemble folder that travels with the model."""
        self.predictor = load_predictor(Path(context.artifacts["ensemble"]))

    # MLflow takes type hints of `predict` for a schema of its own kind, and without any it asks for them.
    _skip_type_hint_validation = True

    def predict(self, context, model_input, params=None):
        """Return the probs of each image; images of any size, in overlapping windows."""
        images = np.asarray(model_input, dtype=np.uint8).transpose(0, 3, 1, 2)
        return np.stack([predict_array(image, self.predictor) for image in images])


mlflow.models.set_model(ServedEnsemble())
