"""MLflow's runs, in a real embedded store."""

import warnings
from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch
from mlflow.tracking import MlflowClient

from sn7.config import TrainConfig
from sn7.ensemble import load_predictor, save_ensemble
from sn7.modeldir import save_model
from sn7.unet import build_unet
from sn7.windows import predict_array
from sweep.records import Records, default_tracking_uri


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the address of a store that the tests of this module share; making one takes seconds."""
    return default_tracking_uri(tmp_path_factory.mktemp("results"))


def _runs(uri: str, study: str) -> list[tuple[str, str, str]]:
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(study)
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    return sorted((r.info.run_name, r.info.status, r.data.tags.get("state", "")) for r in runs)


def test_parent_trial_and_fold(uri: str, tmp_path: Path) -> None:
    """Study → trial → fold by parent tags, with params, a metric an epoch, and our words for the endings."""
    records = Records(uri, tmp_path, "nested", "identity")
    records.describe({"commit": "abc"})
    records.start(0, {"lr_max": 0.001}, notebook=True)
    records.epoch(0, 1, {"dice": 0.25})
    records.epoch(0, 2, {"dice": 0.5})
    records.end(0, "COMPLETE", {"dice": 0.5})
    history = tmp_path / "history.csv"
    history.write_text("epoch,dice\n1,0.4\n")
    records.fold(0, 1, "COMPLETE", {"dice": 0.4}, [history])
    records.measure({"out_of_fold_dice": 0.45})
    records.close("COMPLETE")
    assert _runs(uri, "nested") == [
        ("nested", "FINISHED", "COMPLETE"),
        ("trial 0", "FINISHED", "COMPLETE"),
        ("trial 0 fold 1", "FINISHED", "COMPLETE"),
    ]
    client = MlflowClient(uri)
    runs = {run.info.run_name: run for run in client.search_runs([records.experiment])}
    trial, fold = runs["trial 0"], runs["trial 0 fold 1"]
    assert trial.data.tags["mlflow.parentRunId"] == records.parent
    assert fold.data.tags["mlflow.parentRunId"] == trial.info.run_id
    assert trial.data.params == {"lr_max": "0.001"}
    assert trial.data.tags["recipe"] == "notebook"
    assert [(m.step, m.value) for m in client.get_metric_history(trial.info.run_id, "dice")] == [(1, 0.25), (2, 0.5)]
    assert trial.data.metrics["best_dice"] == 0.5
    assert [file.path for file in client.list_artifacts(fold.info.run_id)] == ["history.csv"]
    assert runs["nested"].data.tags["commit"] == "abc"
    assert runs["nested"].data.metrics == {"out_of_fold_dice": 0.45}


def test_pruned_and_failed_are_told_apart(uri: str, tmp_path: Path) -> None:
    """A failed trial keeps its traceback."""
    records = Records(uri, tmp_path, "endings", "identity")
    for trial, state in ((0, "PRUNED"), (1, "FAILED")):
        records.start(trial, {}, notebook=False)
        records.end(trial, state, {}, error="Traceback: no memory" if state == "FAILED" else "")
    assert _runs(uri, "endings")[1:] == [("trial 0", "KILLED", "PRUNED"), ("trial 1", "FAILED", "FAILED")]
    client = MlflowClient(uri)
    files = client.list_artifacts(records.runs[1])
    assert [file.path for file in files] == ["error.txt"]


def test_a_second_start_finds_its_runs(uri: str, tmp_path: Path) -> None:
    """Nothing is doubled; another study of the same name has runs of its own."""
    for identity, wanted in (("one", 2), ("one", 2), ("other", 4)):
        records = Records(uri, tmp_path, "again", identity)
        records.start(0, {"lr_max": 0.001}, notebook=False)
        records.end(0, "COMPLETE", {})
        assert len(_runs(uri, "again")) == wanted
    later = Records(uri, tmp_path, "again", "one")
    later.fold(0, 0, "COMPLETE", {"dice": 0.4}, [])
    assert ("trial 0", "FINISHED", "COMPLETE") in _runs(uri, "again"), "a later fold leaves its trial ended"


def test_the_ensemble_is_a_registered_model(uri: str, tmp_path: Path) -> None:
    """It loads by its alias and predicts what the folder predicts; a second one becomes the champion."""
    config = TrainConfig(encoder="xresnet18", tile_size=32)
    torch.manual_seed(0)
    save_model(tmp_path / "model", build_unet(config), config, {})
    save_ensemble(tmp_path / "ensemble", [tmp_path / "model"], 0.25, {})
    records = Records(uri, tmp_path, "served", "identity")
    with warnings.catch_warnings(record=True) as caught:
        versions = [records.register(tmp_path / "ensemble", "made by a test") for _ in range(2)]
    assert not [str(warning.message) for warning in caught if "hint" in str(warning.message)]
    assert versions == ["1", "2"]
    assert str(records.client.get_model_version_by_alias("served", "champion").version) == "2"
    served = mlflow.pyfunc.load_model("models:/served@champion")
    images = np.random.default_rng(0).integers(0, 256, (2, 40, 64, 3), np.uint8)
    alone = predict_array(images[1].transpose(2, 0, 1), load_predictor(tmp_path / "ensemble"))
    probs = served.predict(images)
    assert probs.shape == (2, 40, 64) and probs.dtype == np.float32
    np.testing.assert_allclose(probs[1], alone, atol=1e-6)
