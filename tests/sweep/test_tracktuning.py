import argparse
import weakref
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import optuna
import pytest
import shapely

from sn7.challenge import Tracks
from sn7.configfile import read_values
from sn7.files import read_json, write_json
from sn7.prepare import prepare
from sn7.prepared import MASK
from sn7.sample import make_sample
from sn7.score.scot import score_scene
from sn7.tracking.config import TrackConfig
from sn7.tracking.months import Months
from sweep.cluster import start_ray, stop_ray
from sweep.driver import _tune_tracks
from sweep.journal import JOURNAL, Journal, read_lines
from sweep.plan import Plan, make_plan
from sweep.records import STUDY, Records, open_records
from sweep.stopping import StopFile
from sweep.studyfile import load_study
from sweep.trackstage import track_stage
from sweep.tracktuning import _baseline, _scenes, _score, _suggest


def _scot(found: float) -> object:
    """Return the score of a scene in which a building is new in month 1, predicted at `found` px to its right."""

    def tracks(x: float) -> Tracks:
        old, new = shapely.box(50, 50, 60, 60), shapely.box(x, 0, x + 10, 10)
        return Tracks.of("scene", {"2018-01": ([1], [old]), "2018-02": ([1, 2], [old, new])})

    return score_scene(tracks(0), tracks(found))


def test_scot_is_a_mean_over_scenes_and_f1_of_their_sum() -> None:
    """A perfect scene and one whose new building is missed: SCOT 1 and 0, five of six matched."""
    scot, f1 = _score([[_scot(0)], [_scot(30)]])
    assert (scot, f1) == (0.5, pytest.approx(5 / 6))


@pytest.mark.parametrize("longest", [2, 4, 12])
def test_the_search_begins_with_the_rules_as_they_ship(longest: int) -> None:
    """The first draw is TrackConfig's own, with the fitted threshold, as far as the months reach."""
    drawn = _suggest(optuna.trial.FixedTrial(_baseline(0.61328, longest)), longest)
    rules = TrackConfig.from_dict(drawn)
    months = {name: min(getattr(TrackConfig(), name), longest) for name in ("min_months", "pool_months", "gone_months")}
    assert rules == TrackConfig.from_dict({"threshold": 0.61, **months})


def test_whatever_is_drawn_are_rules() -> None:
    """No draw leaves the ranges of TrackConfig."""
    opened = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(60):
        TrackConfig.from_dict(_suggest(opened.ask(), 12))


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """Return a study of two small scenes and four months, each a fold, and write out-of-fold probs of trial 3."""
    data = tmp_path / "data"
    make_sample(data, scenes=2, months=4, size=96, seed=1)
    prepared = prepare(data, tmp_path / "prepared").prepared
    path = tmp_path / "study.toml"
    path.write_text(
        f'[study]\nname = "tracks"\nvalidation = "folds"\nfolds = "{tmp_path / "folds.csv"}"\n'
        f'[data]\nfolder = "{data}"\n[train]\ntile_size = 32\nencoder = "xresnet18"\nbatch_size = 2\n'
        "[search]\nlr_max = { loguniform = [1e-4, 1e-2] }\n"
    )
    scenes = prepared.scenes
    (tmp_path / "folds.csv").write_text("scene,fold\n" + "".join(f"{s},{i}\n" for i, s in enumerate(scenes)))
    rng = np.random.default_rng(0)
    for image in prepared.images:
        building = prepared.pixels(image)[MASK] == 1
        probs = np.where(building, 0.8, 0.2) + rng.normal(0, 0.15, building.shape)
        target = tmp_path / "tracks" / "oof" / "0003" / image.array
        target.parent.mkdir(parents=True, exist_ok=True)
        np.save(target, probs.clip(0, 1).astype(np.float16))
    return make_plan(load_study(path), prepared)


def test_scenes_are_kept_once_and_as_the_ensemble_saw_them(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each with the weights of its own fold; when one is read, the one before lies in Ray's store alone."""
    for image in plan.prepared.images:
        target = tmp_path / "tracks" / "oof" / "0005" / image.array
        target.parent.mkdir(parents=True, exist_ok=True)
        np.save(target, np.full((image.height, image.width), 0.5, np.float16))
    alive: list[weakref.ref[Months]] = []

    def put(content: tuple[Months, Tracks]) -> float:
        assert not any(months() for months in alive)
        alive.append(weakref.ref(content[0]))
        return float(content[0].probs.max())

    monkeypatch.setattr("sweep.tracktuning.ray", SimpleNamespace(put=put))
    scenes, left_out = _scenes(plan, ({3: 1.0}, {3: 0.5, 5: 0.5}), tmp_path / "tracks", StopFile(tmp_path))
    assert [(scene.name, scene.fold, scene.months) for scene in scenes] == [
        (plan.prepared.scenes[0], 0, 4),
        (plan.prepared.scenes[1], 1, 4),
    ]
    assert [scene.content for scene in scenes] == [1.0, 0.75] and not left_out
    StopFile(tmp_path).request()
    with pytest.raises(KeyboardInterrupt):
        _scenes(plan, ({3: 1.0}, {3: 1.0}), tmp_path / "tracks", StopFile(tmp_path))


def test_a_study_keeps_its_state(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A complete study whose tuning fails, or is stopped, is still a complete one in MLflow."""
    results = tmp_path / "tracks"
    Records(Journal(results, "tracks", "id")).close("COMPLETE")
    records = Records(Journal(results, "tracks", "id"))
    records.journal.append("status", STUDY, status="RUNNING")
    monkeypatch.setattr("sweep.driver._open", lambda *_: (None, records))

    def fails(*_: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("sweep.driver.track_stage", fails)
    with pytest.raises(KeyboardInterrupt):
        _tune_tracks(plan, results, argparse.Namespace(tune_tracks=3))
    *_, told, closed = (line.record for line in read_lines(results / JOURNAL))
    assert (told["tags"], closed["status"]) == ({"state": "COMPLETE"}, "FINISHED")


@pytest.mark.slow
def test_from_a_study_to_rules(plan: Plan, tmp_path: Path) -> None:
    """Rules, tables, picture and a run a search are left; what was tuned on all is the best that was tried."""
    results = tmp_path / "tracks"
    records = open_records(f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path, results, "tracks", "id", resumed=False)
    of_fold = {"weights": {"3": 1.0}, "threshold": 0.5}
    write_json(results / "summary.json", {"ensemble": {**of_fold, "folds": [of_fold, of_fold]}})
    start_ray(None)
    try:
        text = track_stage(plan, results, records, 6)
    finally:
        stop_ray()
        assert records.close("COMPLETE") == 0
    lines = {line.split("  ")[0]: line.split() for line in text.splitlines()}
    assert float(lines["tuned on all"][-1]) >= float(lines["as shipped"][-1])
    rows = (results / "tracks.csv").read_text().splitlines()
    assert len(rows) == 1 + 4 * 2
    searches = [line for line in list(read_lines(results / JOURNAL))[1:] if line.run.kind == "tracking"]
    assert {line.run.part for line in searches} == {-1, 0, 1}
    assert (results / "figures" / "tracking.png").stat().st_size > 5000
    chosen = read_values(results / "tracking.toml", TrackConfig, "track")
    assert chosen == read_json(results / "tracking.json")["rules"]
