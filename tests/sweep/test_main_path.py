"""The whole path on a tiny sample, as a person runs it: real processes, a real Ray, a real MLflow store."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import geopandas as gpd
import numpy as np
import optuna
import pytest
import rasterio
from mlflow.tracking import MlflowClient
from PIL import Image

from sn7.ensemble import load_predictor
from sn7.sample import make_sample
from sweep.footprints import LEAST_GAIN
from sweep.trial import split_folder

ROOT = Path(__file__).parents[2]
STUDY = """
[study]
name = "tiny"
trials = 4
validation = "random:1"
folds = 2
refit = 2
repeats = 3

[train]
tile_size = 32
batch_size = 4
epochs = 2

[search]
encoder = { choice = ["xresnet34", "xresnet18", "vit_tiny_patch16_224"] }
lr_max = { loguniform = [1e-4, 1e-2] }

[postprocess]
trials = 4
tta = true
"""

STOPPED = """
[study]
name = "stopped"
trials = 2
validation = "random:1"
folds = 2
refit = 1
grace_epochs = 30          # none is pruned

[train]
encoder = "test_efficientnet"
tile_size = 32
batch_size = 4
epochs = 30

[search]
lr_max = { loguniform = [1e-4, 1e-2] }
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a tiny sample in data/ and a study that has run in results/tiny."""
    place = tmp_path_factory.mktemp("place")
    make_sample(place / "data", scenes=4, months=2, size=96)
    (place / "study.toml").write_text(STUDY)
    done = _run(place)
    assert done.returncode == 0, done.stderr[-3000:]
    (place / "said.txt").write_text(done.stdout)
    return place


def _command(place: Path, extra: Sequence[str]) -> list[str]:
    paths = ["study.toml", "--data", "data", "--results", "results"]
    return [sys.executable, str(ROOT / "sweep" / "run.py"), *paths, *extra]


def _run(place: Path, *extra: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(_command(place, extra), cwd=place, capture_output=True, text=True, timeout=900, check=False)


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _files(folder: Path) -> dict[str, float]:
    return {str(path.relative_to(folder)): path.stat().st_mtime for path in folder.rglob("*") if path.is_file()}


def test_the_leaderboard(place: Path) -> None:
    """Four trials, the notebook recipe COMPLETE among them, the best first, a failed one with its reason."""
    rows = _rows(place / "results/tiny/leaderboard.csv")
    assert sorted(int(row["trial"]) for row in rows) == [0, 1, 2, 3]
    assert rows[0]["rank"] == "1" and rows[0]["state"] == "COMPLETE"
    complete = [float(row["dice"]) for row in rows if row["state"] == "COMPLETE"]
    assert complete == sorted(complete, reverse=True)
    (notebook,) = (row for row in rows if row["recipe"] == "notebook")
    assert (notebook["state"], notebook["encoder"], float(notebook["lr_max"])) == ("COMPLETE", "xresnet34", 3e-4)
    for row in rows:
        assert (row["state"] == "FAILED") == (row["encoder"] == "vit_tiny_patch16_224")
        assert ("EncoderUnknown" in row["error"]) == (row["state"] == "FAILED")
    assert "FAILED" in {row["state"] for row in rows}, "the seed no longer draws the encoder that fails; take another"


def test_optuna_and_mlflow_say_the_same(place: Path) -> None:
    """One parent, a run a trial with the same state, a run a fold; no run is left RUNNING; a registered champion."""
    rows = _rows(place / "results/tiny/leaderboard.csv")
    storage = f"sqlite:///{place / 'results/tiny/optuna.db'}"
    trials = optuna.load_study(study_name="tiny", storage=storage).trials
    states = {"COMPLETE": "COMPLETE", "PRUNED": "PRUNED", "FAIL": "FAILED"}
    assert {str(t.number): states[t.state.name] for t in trials} == {row["trial"]: row["state"] for row in rows}

    client = MlflowClient(f"sqlite:///{place / 'results/mlflow.db'}")
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    kinds = {kind: [r for r in runs if r.data.tags["sn7.kind"] == kind] for kind in ("study", "trial", "fold")}
    assert [len(kinds[kind]) for kind in ("study", "trial", "fold")] == [1, 4, 4]
    assert "RUNNING" not in {run.info.status for run in runs}
    parent = kinds["study"][0]
    assert {r.data.tags["sn7.trial"]: r.data.tags["state"] for r in kinds["trial"]} == {
        row["trial"]: row["state"] for row in rows
    }
    for run in kinds["trial"]:
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert len(run.data.params) > 15
        if run.data.tags["state"] == "COMPLETE":
            assert [m.step for m in client.get_metric_history(run.info.run_id, "dice")] == [1, 2]
    assert {"report.html", "leaderboard.csv", "predictions"} <= {
        file.path for file in client.list_artifacts(parent.info.run_id)
    }
    assert int(client.get_model_version_by_alias("tiny", "champion").version) == 1


def test_where_a_result_comes_from_is_in_mlflow(place: Path) -> None:
    """Code, data, split, seed, versions and machine as tags; curves, pictures, system metrics and the best's model."""
    rows = _rows(place / "results/tiny/leaderboard.csv")
    client = MlflowClient(f"sqlite:///{place / 'results/mlflow.db'}")
    experiment = client.get_experiment_by_name("tiny").experiment_id
    runs = client.search_runs([experiment], "tags.`sn7.kind` = 'trial' and tags.state = 'COMPLETE'")
    index = json.loads(next((place / "results/prepared").glob("*/index.json")).read_text())
    for run in runs:
        tags = run.data.tags
        assert tags["data_fingerprint"] == index["fingerprint"]
        assert (tags["validation"], tags["seed"], tags["node_type"]) == ("random:1", "0", "default")
        assert tags["dirty"] in ("true", "false", "unknown") and re.fullmatch("[0-9a-f]{40}|unknown", tags["commit"])
        assert tags["version.torch"] == version("torch") and tags["device"] and tags["host"]
        assert run.data.metrics["system/system_memory_usage_megabytes"] > 50
        files = {file.path for file in client.list_artifacts(run.info.run_id, "random-1")}
        assert files == {f"random-1/{name}" for name in ("history.csv", "tiles.png", "curves.png", "result.json")}
        best = run.data.metrics
        assert 0 < best["best_threshold_dice"] <= 1 and 0 < best["ceiling_dice"] <= 1
        assert "best_dice_low" not in best, "one scene says nothing of others"
        has_model = "model" in {file.path for file in client.list_artifacts(run.info.run_id)}
        assert has_model == (tags["sn7.trial"] == rows[0]["trial"])


def test_folds_and_repeats_last_as_long_as_they_trained(place: Path) -> None:
    """In MLflow each run is as long as its epochs together, or longer; a fold has its epochs and what it is worth."""
    client = MlflowClient(f"sqlite:///{place / 'results/mlflow.db'}")
    experiment = client.get_experiment_by_name("tiny").experiment_id
    for run in client.search_runs([experiment], "tags.`sn7.kind` = 'fold'"):
        epochs = client.get_metric_history(run.info.run_id, "seconds")
        assert [epoch.step for epoch in epochs] == [1, 2]
        assert run.info.end_time - run.info.start_time >= 1000 * (sum(epoch.value for epoch in epochs) - 1)
        assert 0 < run.data.metrics["threshold_dice"] <= run.data.metrics["ceiling_dice"] <= 1
    for run in client.search_runs([experiment], "tags.`sn7.kind` = 'repeat'"):
        name = f"random-1-repeat-{run.data.tags['sn7.seed']}/result.json"
        result = json.loads(Path(client.download_artifacts(run.info.run_id, name)).read_text())
        assert run.info.end_time - run.info.start_time >= 1000 * (
            result["seconds"] - 1
        )  # the driver looks twice a second


def test_the_ensemble_and_its_folds(place: Path) -> None:
    """Of two configurations on two folds what was selected, with its weights; thresholds of the folds are their own."""
    content = json.loads((place / "results/tiny/ensemble/ensemble.json").read_text())
    members = len(content["members"])
    assert members in (2, 4) and sum(content["weights"]) == pytest.approx(1)
    predictor = load_predictor(place / "results/tiny/ensemble")
    assert (len(predictor.members), predictor.threshold) == (members, content["threshold"])
    summary = json.loads((place / "results/tiny/summary.json").read_text())
    names = [candidate["model"] for candidate in summary["candidates"]]
    assert names[-1] == "ensemble" and "mean of the best 2" in names
    assert summary["ensemble"]["models"] == members and summary["ensemble"]["seconds_per_km2"] > 0
    folds = _rows(place / "results/tiny/folds.csv")
    assert [row["model"] for row in folds[::2]] == names
    scenes = [scene for row in folds if row["model"] == "ensemble" for scene in row["scenes"].split()]
    assert len(scenes) == len(set(scenes)) == 4
    probs = list((place / "results/tiny/oof").rglob("*.npy"))
    assert len(probs) == 2 * 8


def test_the_tuning(place: Path) -> None:
    """What was found is in ensemble.json; each search has a run below the study's; both figures are told."""
    content = json.loads((place / "results/tiny/ensemble/ensemble.json").read_text())
    summary = json.loads((place / "results/tiny/summary.json").read_text())
    found = summary["postprocess"]
    advice = {"probs": found["params"]["probs"], "rules": found["params"]["rules"]}
    assert content.get("tuned") == (advice if found["used"] else None)
    assert found["used"] == (found["nested"]["f1"] - found["before"]["f1"] >= LEAST_GAIN)
    assert set(found["nested"]) == set(found["optimistic"]) == set(found["before"]) == {"f1"}
    assert found["tried"] == 3 * 4 == len(_rows(place / "results/tiny/postprocess.csv"))
    assert len(list((place / "results/tiny/oof_tta").rglob("*.npy"))) == 2 * 8
    client = MlflowClient(f"sqlite:///{place / 'results/mlflow.db'}")
    experiment = client.get_experiment_by_name("tiny").experiment_id
    runs = {
        run.data.tags["sn7.held_out"]: run
        for run in client.search_runs([experiment], "tags.`sn7.kind` = 'postprocess'")
    }
    assert set(runs) == {"none", "0", "1"} and {run.info.status for run in runs.values()} == {"FINISHED"}
    assert runs["none"].data.metrics["nested_f1"] == pytest.approx(found["nested"]["f1"])
    assert runs["0"].data.metrics["held_out_f1"] == pytest.approx(found["by_fold"][0]["f1"])
    assert summary["tuning"] in (place / "said.txt").read_text()


def test_the_repeats(place: Path) -> None:
    """Two configurations with three seeds each, in a table, below their trials in MLflow, and in a sentence."""
    rows = _rows(place / "results/tiny/repeats.csv")
    board = {row["trial"]: row for row in _rows(place / "results/tiny/leaderboard.csv")}
    assert [row["run"] for row in rows] == ["0", "1", "2"] * 2
    assert [row["dice"] for row in rows if row["run"] == "0"] == [board[row["trial"]]["dice"] for row in rows[::3]]
    client = MlflowClient(f"sqlite:///{place / 'results/mlflow.db'}")
    experiment = client.get_experiment_by_name("tiny").experiment_id
    runs = client.search_runs([experiment], "tags.`sn7.kind` = 'repeat'")
    assert {run.data.tags["sn7.trial"] for run in runs} == {row["trial"] for row in rows}
    assert sorted(run.data.metrics["dice"] for run in runs) == sorted(
        float(row["dice"]) for row in rows if row["run"] != "0"
    )
    assert "over 2 further seeds and trial" in (place / "said.txt").read_text()


def test_the_predictions_lie_on_their_images(place: Path) -> None:
    """For each image of the scene that no model saw: probs on its grid, polygons inside it, a picture."""
    images = sorted((place / "data/test_public").rglob("*.tif"))
    assert len(images) == 2
    for image in images:
        out = place / "results/tiny/predictions" / image.parent.parent.name / image.name
        with rasterio.open(image) as source, rasterio.open(out) as probs:
            assert (probs.shape, probs.transform, probs.crs) == (source.shape, source.transform, source.crs)
            assert (probs.dtypes, probs.profile["tiled"], probs.compression.name) == (("float32",), True, "deflate")
            values, alpha, bounds = probs.read(1), source.read(4), source.bounds
        assert np.array_equal(np.isnan(values), alpha == 0)
        assert np.nanmin(values) >= 0 and np.nanmax(values) <= 1
        polygons = gpd.read_file(out.with_suffix(".geojson")).to_crs(3857)
        if len(polygons):
            left, bottom, right, top = polygons.total_bounds
            assert bounds.left - 1 <= left <= right <= bounds.right + 1
            assert bounds.bottom - 1 <= bottom <= top <= bounds.top + 1
        with Image.open(out.with_suffix(".png")) as preview:
            assert preview.width >= 96


def test_the_closing_summary_says_where_everything_lies(place: Path) -> None:
    """Leaderboard, winner, notebook recipe, and places that exist."""
    said = (place / "said.txt").read_text()
    assert "← notebook recipe" in said
    assert "\nMLflow       make ui  (" in said
    for name in ("ensemble", "predictions", "report.html", "leaderboard.csv"):
        assert str(place / "results/tiny" / name) in said
        assert (place / "results/tiny" / name).exists()
    report = (place / "results/tiny/report.html").read_text()
    tags = re.sub(r"<script>.*?</script>", "", report, flags=re.DOTALL)
    assert not re.search(r"""<[^>]*\b(src|href)=["']?(?!["']?(data:|#))""", tags), (
        "the report is one file, loads nothing"
    )
    assert report.count("data:image/") >= 4 and report.count('class="plotly-graph-div"') >= 8
    rows = _rows(place / "results/tiny/scenes.csv")
    assert len({row["scene"] for row in rows}) == 4 and {"ensemble"} <= {row["model"] for row in rows}
    assert all(float(row["dice_low"]) <= float(row["dice"]) <= float(row["dice_high"]) for row in rows)


def test_a_second_start_changes_nothing(place: Path) -> None:
    """With and without --resume: the same summary at once, and no file but SQLite's own, database and journal."""
    before = _files(place / "results")
    for extra in ([], ["--resume"]):
        done = _run(place, *extra)
        assert done.returncode == 0, done.stderr
        assert done.stdout == (place / "said.txt").read_text()
    after = _files(place / "results")
    assert {name: at for name, at in after.items() if "optuna.db" not in name} == {
        name: at for name, at in before.items() if "optuna.db" not in name
    }


def test_another_study_in_the_folder_is_refused(place: Path) -> None:
    """One sentence with the difference, exit 1, nothing written."""
    before = _files(place / "results")
    (place / "other.toml").write_text(STUDY.replace("epochs = 2", "epochs = 3"))
    command = _command(place, ["--resume"])
    command[2] = "other.toml"
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ") and "train.epochs = 2 there, 3 here" in done.stderr
    assert _files(place / "results") == before


def test_more_trials_are_added_to_a_study_that_was_killed(place: Path) -> None:
    """A driver that is killed in the middle of a fifth trial: --resume ends with exactly six, none doubled."""
    process = subprocess.Popen(
        _command(place, ["--trials", "6", "--resume"]),
        cwd=place,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    storage = f"sqlite:///{place / 'results/tiny/optuna.db'}"
    deadline = time.monotonic() + 300
    while process.poll() is None and time.monotonic() < deadline:
        trials = optuna.load_study(study_name="tiny", storage=storage).trials
        if any(trial.number >= 4 and trial.state.name == "RUNNING" for trial in trials):
            break
        time.sleep(0.5)
    assert process.poll() is None, "the study ended before it could be killed"
    os.killpg(process.pid, signal.SIGKILL)  # the group that this test started: the driver and its Ray
    process.wait()
    refused = _run(place, "--trials", "6")
    assert refused.returncode == 1 and "unfinished; go on with --resume" in refused.stderr
    done = _run(place, "--trials", "6", "--resume")
    assert done.returncode == 0, done.stderr[-3000:]
    rows = _rows(place / "results/tiny/leaderboard.csv")
    assert len(rows) == 6
    assert {row["state"] for row in rows} <= {"COMPLETE", "PRUNED", "FAILED"}
    trials = optuna.load_study(study_name="tiny", storage=storage).trials
    assert not [trial for trial in trials if trial.state.name in ("RUNNING", "WAITING")]
    client = MlflowClient(f"sqlite:///{place / 'results/mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("tiny").experiment_id])
    numbers = [run.data.tags["sn7.trial"] for run in runs if run.data.tags["sn7.kind"] == "trial"]
    assert len(numbers) == len(set(numbers))
    assert {row["trial"] for row in rows} <= set(numbers)
    assert "RUNNING" not in {run.info.status for run in runs}


def test_ctrl_c_once_ends_in_order(place: Path) -> None:
    """The running trials checkpoint and are PREEMPTED everywhere; --resume goes on after the very epoch they had."""
    (place / "stopped.toml").write_text(STOPPED)
    command = _command(place, ["--resume"])
    command[2] = "stopped.toml"
    process = subprocess.Popen(command, cwd=place, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    results = place / "results/stopped"
    deadline = time.monotonic() + 300
    while process.poll() is None and time.monotonic() < deadline:
        if any(t.intermediate_values for t in _trials(results).values()):
            break
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 130, said
    assert b"again to stop now" in said and b"were cut off and go on with --resume" in said
    rows = {row["trial"]: row for row in _rows(results / "leaderboard.csv")}
    cut_off = {int(number) for number, row in rows.items() if row["state"] == "PREEMPTED"}
    trained = {number: len(_trials(results)[number].intermediate_values) for number in cut_off}
    assert any(0 < epochs < 30 for epochs in trained.values()), trained
    client = MlflowClient(f"sqlite:///{place / 'results/mlflow.db'}")
    experiment = client.get_experiment_by_name("stopped").experiment_id
    runs = client.search_runs([experiment], "tags.`sn7.kind` = 'trial'")
    assert {run.data.tags["sn7.trial"]: run.data.tags["state"] for run in runs} == {
        number: row["state"] for number, row in rows.items()
    }
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = {row["trial"]: row for row in _rows(results / "leaderboard.csv")}
    assert len(rows) == 2 and {row["state"] for row in rows.values()} == {"COMPLETE"}
    for number in cut_off:
        result = json.loads((split_folder(results, number, "random:1") / "result.json").read_text())
        assert result["continued_after"] == trained[number]
        assert rows[str(number)]["preempted"] == "1"


def _trials(results: Path) -> dict[int, optuna.trial.FrozenTrial]:
    """Return the trials of a study; none before its records, since opening a database that is being made makes it."""
    if not (results / "records.jsonl").exists():
        return {}
    study = optuna.load_study(study_name=results.name, storage=f"sqlite:///{results / 'optuna.db'}")
    return {trial.number: trial for trial in study.trials}
