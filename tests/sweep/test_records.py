"""The records of a study: what they put into the journal, and what an embedded store has of it."""

import warnings
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import torch
from mlflow.tracking import MlflowClient

from sn7.config import TrainConfig
from sn7.ensemble import load_predictor, save_ensemble
from sn7.errors import ResultsConflict, TrackingUnavailable
from sn7.modeldir import save_model
from sn7.unet import build_unet
from sn7.windows import predict_array
from sweep.journal import Journal, read_lines
from sweep.records import Records, Synced, default_tracking_uri, open_records, sync


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the results folder whose embedded store the tests of this module share; making one takes seconds."""
    return tmp_path_factory.mktemp("results")


@pytest.fixture
def records(tmp_path: Path) -> Records:
    """Return records with a journal alone."""
    return Records(Journal(tmp_path / "tiny", "tiny", "0123"))


def _open(place: Path, study: str, identity: str = "0123", resumed: bool = False) -> Records:
    return open_records(default_tracking_uri(place), place, place / study, study, identity, resumed)


def _lines(records: Records, start: int = 1) -> list[dict[str, Any]]:
    """Return the journal's records from a line on, without their times."""
    lines = [line.record for line in read_lines(records.journal.path)][start:]
    return [{key: value for key, value in record.items() if key != "time"} for record in lines]


def _runs(place: Path, study: str) -> dict[str, Any]:
    client = MlflowClient(default_tracking_uri(place))
    experiment = client.get_experiment_by_name(study)
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id])
    runs = {run.info.run_name: run for run in found}
    assert len(runs) == len(found)
    return runs


def test_a_trial_in_the_journal(records: Records, tmp_path: Path) -> None:
    """Texts and numbers as JSON has them, paths from the study's folder; nothing waits for a server."""
    inside, outside = tmp_path / "tiny" / "trials" / "0" / "history.csv", tmp_path / "elsewhere" / "x.csv"
    records.start(0, {"lr_max": 0.001, "augment": True}, {"node": "a"})
    records.epoch(0, 1, {"dice": np.float32(0.25), "loss": float("nan"), "rate": float("-inf")})
    records.end(0, "FAILED", {"dice": 0.25}, error="Traceback", files=[inside, outside])
    trial = ["trial", 0, -1]
    assert _lines(records) == [
        {"op": "log", "run": trial, "params": {"lr_max": "0.001", "augment": "True"},
         "tags": {"node": "a", "state": "RUNNING"}},
        {"op": "status", "run": trial, "status": "RUNNING"},
        {"op": "log", "run": trial, "metrics": {"dice": 0.25, "loss": "nan", "rate": "-inf"}, "step": 1},
        {"op": "text", "run": trial, "name": "error.txt", "text": "Traceback"},
        {"op": "log", "run": trial, "metrics": {"best_dice": 0.25}, "tags": {"state": "FAILED"}},
        {"op": "file", "run": trial, "path": "trials/0/history.csv", "folder": "0"},
        {"op": "file", "run": trial, "path": str(outside), "folder": "elsewhere"},
        {"op": "status", "run": trial, "status": "FAILED"},
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("state", "status"),
    [("COMPLETE", "FINISHED"), ("PRUNED", "KILLED"), ("FAILED", "FAILED"), ("PREEMPTED", "KILLED")],
)
def test_endings(records: Records, state: str, status: str) -> None:
    """Our word is the tag, MLflow's the run's status, for trials, folds, repeats and the study alike."""
    records.end(0, state, {})
    records.fold(0, 1, state, {}, [])
    records.repeat(0, 7, state, {}, [])
    assert records.close(state) == records.journal.lines == 9
    tags = [record["tags"] for record in _lines(records) if record["op"] == "log"]
    assert tags == [{"state": state}] * 4
    assert [record["status"] for record in _lines(records) if record["op"] == "status"] == [status] * 4


def test_no_epoch_is_written_twice(records: Records, tmp_path: Path) -> None:
    """A trial that starts again at its first epoch repeats itself; so does one after the driver was killed."""
    for step in (1, 2):
        records.epoch(0, step, {"dice": step / 8})
        records.fold_epoch(0, 1, step, {"dice": step / 8})
    records.journal.close()
    again = Records(Journal(tmp_path / "tiny", "tiny", "0123"))
    for step in (1, 2, 3):
        again.epoch(0, step, {"dice": step / 8})
        again.epoch(0, step, {"objective": 0.5})
        again.fold_epoch(0, 1, step, {"dice": step / 8})
    written = [(tuple(r["run"]), r["step"], r["metrics"]) for r in _lines(again, 7)]
    trial, fold = ("trial", 0, -1), ("fold", 0, 1)
    assert written == [
        (trial, 1, {"objective": 0.5}),
        (trial, 2, {"objective": 0.5}),
        (trial, 3, {"dice": 0.375}),
        (trial, 3, {"objective": 0.5}),
        (fold, 3, {"dice": 0.375}),
    ]


def _times(records: Records, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a clock of one entry, in ms, that the records go by."""
    clock = [0]
    for module in ("records", "journal"):
        monkeypatch.setattr(f"sweep.{module}.now_ms", lambda: clock[0])
    return clock


def _span(records: Records, run: list[Any]) -> tuple[int, int]:
    """Return start and end of a run as MLflow will have them: the time of its first record and of its last status."""
    lines = [line.record for line in read_lines(records.journal.path) if line.record["run"] == run]
    return lines[0]["time"], [record["time"] for record in lines if record["op"] == "status"][-1]


def test_a_fold_lasts_as_long_as_its_training(records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    """From its begin to its end, however often that is told again; where it was cut off, it goes on."""
    clock = _times(records, monkeypatch)
    for at, told in (
        (1_000, lambda: records.fold_begins(0, 1)),
        (31_000, lambda: records.fold_epoch(0, 1, 1, {"dice": 0.1, "seconds": 30.0})),
        (40_000, lambda: records.fold(0, 1, "PREEMPTED", {}, [])),
        (50_000, lambda: records.fold_begins(0, 1)),
        (80_000, lambda: records.fold_epoch(0, 1, 2, {"dice": 0.2, "seconds": 30.0})),
        (90_000, lambda: records.fold(0, 1, "COMPLETE", {"dice": 0.3}, [])),
        (95_000, lambda: records.fold_begins(0, 1)),
        (99_000, lambda: records.fold(0, 1, "COMPLETE", {"dice": 0.3}, [])),
    ):
        clock[0] = at
        told()
    assert _span(records, ["fold", 0, 1]) == (1_000, 90_000)


def test_a_fold_of_a_trial_lasts_from_its_first_epoch_to_its_last(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The search tells of it first when an epoch is over, and closes it when the trial has come to its end."""
    clock = _times(records, monkeypatch)
    for at, step in ((31_000, 1), (60_000, 2)):
        clock[0] = at
        records.fold_epoch(0, 0, step, {"dice": 0.1, "seconds": 30.0})
    clock[0] = 500_000
    records.fold(0, 0, "COMPLETE", {}, [], over=True)
    records.end(0, "COMPLETE", {"dice": 0.1, "dice_low": 0.05, "ceiling_dice": 0.9})
    assert _span(records, ["fold", 0, 0]) == (1_000, 60_000)
    metrics = next(r["metrics"] for r in _lines(records) if r["run"][0] == "trial" and "metrics" in r)
    assert metrics == {"best_dice": 0.1, "best_dice_low": 0.05, "ceiling_dice": 0.9}


def test_what_is_still_open_when_the_study_ends_was_cut_off(records: Records) -> None:
    """A fold and a repeat that Ctrl-C stops are not left RUNNING."""
    records.fold_begins(0, 1)
    records.repeat_begins(0, 7)
    records.repeat(0, 7, "COMPLETE", {}, [])
    records.fold_begins(2, 0)
    records.close("INTERRUPTED")
    closed = {tuple(run): state for run, state in records.journal.states.items()}
    assert closed[("fold", 0, 1)] == closed[("fold", 2, 0)] == "PREEMPTED" and closed[("repeat", 0, 7)] == "COMPLETE"
    assert closed[("study", -1, -1)] == "INTERRUPTED"


def test_endings_that_are_told_again(records: Records) -> None:
    """A resumed study tells again what ended before: values that changed are written, others are not."""
    records.fold_epoch(0, 1, 4, {"dice": 0.25})
    for dice in (0.5, 0.5, 0.625):
        records.fold(0, 1, "COMPLETE", {"dice": dice}, [])
        records.measure({"out_of_fold_dice": dice})
    written = [(r["run"][0], r.get("step", 0), r["metrics"]) for r in _lines(records, 4) if "metrics" in r]
    assert written == [
        ("fold", 4, {"dice": 0.5}),
        ("study", 0, {"out_of_fold_dice": 0.5}),
        ("fold", 4, {"dice": 0.625}),
        ("study", 0, {"out_of_fold_dice": 0.625}),
    ], "a fold's result stands at its last step, where MLflow shows it"


def test_a_study_in_the_embedded_store(place: Path) -> None:
    """Study → trial → fold and repeat by parent tags, with params, a metric an epoch, files, errors and endings."""
    records = _open(place, "whole")
    records.describe({"commit": "abc"})
    records.start(0, {"lr_max": 0.001}, {"recipe": "notebook"})
    records.epoch(0, 1, {"dice": 0.25})
    records.epoch(0, 2, {"dice": 0.5})
    model = place / "whole" / "trials" / "0" / "model"
    model.mkdir(parents=True)
    (model / "model.json").write_text("{}")
    history = model.parent / "history.csv"
    history.write_text("epoch,dice\n")
    records.model(0, model)
    records.end(0, "COMPLETE", {"dice": 0.5}, files=[history])
    records.start(1, {"lr_max": 0.1})
    records.end(1, "FAILED", {}, error="Traceback: no memory")
    records.fold_epoch(0, 1, 1, {"dice": 0.3})
    records.fold(0, 1, "COMPLETE", {"dice": 0.4}, [history])
    records.repeat(0, 7, "COMPLETE", {"dice": 0.45}, [history])
    records.measure({"out_of_fold_dice": 0.45})
    records.files([history], "figures")
    assert records.close("COMPLETE") == 0
    runs = _runs(place, "whole")
    assert {name: (run.info.status, run.data.tags["state"]) for name, run in runs.items()} == {
        "whole": ("FINISHED", "COMPLETE"),
        "trial 0": ("FINISHED", "COMPLETE"),
        "trial 1": ("FAILED", "FAILED"),
        "trial 0 fold 1": ("FINISHED", "COMPLETE"),
        "trial 0 seed 7": ("FINISHED", "COMPLETE"),
    }
    study, trial, fold = runs["whole"], runs["trial 0"], runs["trial 0 fold 1"]
    assert trial.data.tags["mlflow.parentRunId"] == study.info.run_id
    parents = {runs[name].data.tags["mlflow.parentRunId"] for name in ("trial 0 fold 1", "trial 0 seed 7")}
    assert parents == {trial.info.run_id}
    assert trial.data.params == {"lr_max": "0.001"} and trial.data.tags["recipe"] == "notebook"
    assert trial.data.metrics == {"dice": 0.5, "best_dice": 0.5}
    assert fold.data.metrics == {"dice": 0.4}
    assert (study.data.tags["commit"], study.data.metrics) == ("abc", {"out_of_fold_dice": 0.45})
    client = MlflowClient(default_tracking_uri(place))
    points = client.get_metric_history(trial.info.run_id, "dice")
    assert [(point.step, point.value) for point in points] == [(1, 0.25), (2, 0.5)]

    def files(name: str, folder: str | None = None) -> list[str]:
        return [file.path for file in client.list_artifacts(runs[name].info.run_id, folder)]

    assert files("trial 0", "model") == ["model/model.json"] and files("trial 0", "0") == ["0/history.csv"]
    assert (files("trial 1"), files("trial 0 fold 1")) == (["error.txt"], ["history.csv"])
    assert files("trial 0 seed 7", "0") == ["0/history.csv"] and files("whole", "figures") == ["figures/history.csv"]
    assert (place / "mlartifacts" / "whole").is_dir()


def test_a_resumed_study_goes_on_in_its_runs(place: Path) -> None:
    """A trial that was preempted is open again under the same run, its epochs in one row; no point is double."""
    for start, state in ((1, "PREEMPTED"), (3, "COMPLETE")):
        records = _open(place, "again", resumed=start > 1)
        records.start(0, {"lr_max": 0.001}, {"attempt": str(start)})
        for step in range(1, start + 2):
            records.epoch(0, step, {"dice": step / 8})
        if start > 1:
            assert records.delivery is not None and records.delivery.wait(30.0) == 0
            assert _runs(place, "again")["trial 0"].info.status == "RUNNING"
        records.end(0, state, {})
        assert records.close(state) == 0
    runs = _runs(place, "again")
    assert sorted(runs) == ["again", "trial 0"]
    points = MlflowClient(default_tracking_uri(place)).get_metric_history(runs["trial 0"].info.run_id, "dice")
    assert [point.step for point in points] == [1, 2, 3, 4]
    assert (runs["trial 0"].info.status, runs["trial 0"].data.tags["attempt"]) == ("FINISHED", "3")


def test_a_resumed_study_ends_with_its_last_start(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was COMPLETE and is open again: its end moves; a trial that stayed closed keeps its own."""
    for start in (1_000, 50_000):
        records = _open(place, "longer", resumed=start > 1_000)
        clock = _times(records, monkeypatch)
        clock[0] = start
        records.end(0, "COMPLETE", {"dice": 0.5})
        clock[0] = start + 5_000
        assert records.close("COMPLETE") == 0
    runs = _runs(place, "longer")
    assert (runs["longer"].info.end_time, runs["trial 0"].info.end_time) == (55_000, 1_000)


def test_another_study_of_the_same_name(place: Path, tmp_path: Path) -> None:
    """It has runs of its own in the same experiment, and no journal in the same folder."""
    uri = default_tracking_uri(place)
    for folder, identity in (("one", "1"), ("two", "2")):
        assert open_records(uri, place, tmp_path / folder, "named", identity, False).close("COMPLETE") == 0
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("named")
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id])
    assert sorted(run.data.tags["sn7.identity"] for run in found) == ["1", "2"]
    with pytest.raises(ResultsConflict, match="another study"):
        open_records(uri, place, tmp_path / "one", "named", "2", True)
    assert sync(uri, place, tmp_path / "one", "named") == Synced(0, 0, 0)
    assert str(Synced(7, 1, 2)) == (
        "records delivered to MLflow: 7, refused for good 1 (see refused.jsonl), still waiting 2"
    )


def test_a_server_that_is_not_there(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A new study does not begin and leaves nothing; a resumed one is warned, goes on, and loses nothing."""
    gone = "http://someone:hidden@127.0.0.1:1"
    with pytest.raises(TrackingUnavailable, match=r"^--tracking-uri http://127.0.0.1:1 does not answer"):
        open_records(gone, place, place / "away", "away", "0123", False)
    assert not (place / "away").exists()
    _open(place, "away").close("PREEMPTED")
    records = open_records(gone, place, place / "away", "away", "0123", True)
    records.start(0, {"lr_max": 0.001})
    records.end(0, "COMPLETE", {})
    assert records.close("COMPLETE") == records.journal.lines == 11
    said = capsys.readouterr()
    assert said.err.count("\n") == 1 and said.err.startswith("warning: --tracking-uri http://127.0.0.1:1 ")
    assert "hidden" not in said.err + said.out
    with pytest.raises(TrackingUnavailable, match="no address"):
        open_records("foo://x", place, place / "away", "away", "0123", True)
    synced = sync(default_tracking_uri(place), place, place / "away", "away")
    assert synced == Synced(7, 0, 0), "all but the header and the three lines that the first driver delivered"
    assert _runs(place, "away")["trial 0"].info.status == "FINISHED"


def test_the_ensemble_is_a_registered_model(place: Path, tmp_path: Path) -> None:
    """It loads by its alias and predicts as the folder does; told twice it is one version; a second is champion."""
    config = TrainConfig(encoder="xresnet18", tile_size=32)
    torch.manual_seed(0)
    save_model(tmp_path / "model", build_unet(config), config, {})
    save_ensemble(tmp_path / "ensemble", [tmp_path / "model"], 0.25, {})
    uri, client = default_tracking_uri(place), MlflowClient(default_tracking_uri(place))
    with warnings.catch_warnings(record=True) as caught:
        records = _open(place, "served")
        records.register(tmp_path / "ensemble", "made by a test", {"dice": 0.5})
        assert records.close("COMPLETE") == 0
        next((place / "served" / "delivered").glob("*.json")).unlink()
        assert sync(uri, place, place / "served", "served").waiting == 0
    assert not [str(warning.message) for warning in caught if "hint" in str(warning.message)]
    (version,) = client.search_model_versions("name = 'served'")
    assert (str(version.version), version.description, version.tags["dice"]) == (
        "1",
        "made by a test\n\ndice: 0.5",
        "0.5",
    )
    assert version.run_id == _runs(place, "served")["served"].info.run_id
    (output,) = _runs(place, "served")["served"].outputs.model_outputs
    assert client.get_logged_model(output.model_id).artifact_location == version.source
    again = _open(place, "served", resumed=True)
    again.register(tmp_path / "ensemble", "the same, told by a driver that was killed after it had told it")
    save_ensemble(tmp_path / "second", [tmp_path / "model"], 0.5, {})
    again.register(tmp_path / "second", "another one")
    assert again.close("COMPLETE") == 0
    assert str(client.get_model_version_by_alias("served", "champion").version) == "2"
    mlflow.set_tracking_uri(uri)
    served = mlflow.pyfunc.load_model("models:/served@champion")
    images = np.random.default_rng(0).integers(0, 256, (2, 40, 64, 3), np.uint8)
    alone = predict_array(images[1].transpose(2, 0, 1), load_predictor(tmp_path / "ensemble"))
    probs = served.predict(images)
    assert probs.shape == (2, 40, 64) and probs.dtype == np.float32
    np.testing.assert_allclose(probs[1], alone, atol=1e-6)
