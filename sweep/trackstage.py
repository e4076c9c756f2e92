"""Tuned tracking as a study leaves it: rules, tables, a figure, and runs in MLflow.

results/<study>/tracking.toml   the rules, for `sn7 track --config`
results/<study>/tracks.csv      F1@0.25 and SCOT of each scene: naive, as shipped, tuned on other folds, tuned on all
results/<study>/tracking.csv    all rules that were tried
results/<study>/tracking.json   all of it
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.figure
import tomli_w

from sn7.errors import StudyInvalid
from sn7.files import atomic_file, write_json
from sn7.prepared import is_prepared
from sn7.score.scot import MATCH_IOU, f1
from sn7.storage import local
from sweep.ensembles import read_chosen
from sweep.found import record
from sweep.plan import Plan
from sweep.records import Records
from sweep.study import Study
from sweep.tables import write_table
from sweep.tracktuning import NAME, TunedTracks, Way, tune_tracks

__all__ = ["require_trackable", "track_stage"]

SCORES = ("scot", "f1")
COLOURS = ("#6b7280", "#2563eb", "#d97706", "#111827")
"""Of the ways, in their order."""


def require_trackable(study: Study, results: Path) -> None:
    """Raise StudyInvalid where the study is not complete, or its data says nothing of identities."""
    read_chosen(results)
    if is_prepared(local(study.data)):
        raise StudyInvalid(
            f"{study.data} is a prepared data set, which does not say which footprint is which building; wanted the "
            "data set itself: give it with --data."
        )


def track_stage(plan: Plan, results: Path, records: Records, tries: int) -> str:
    """Tune the rules of tracking for a finished study; return what a person should read.

    Needs a connected Ray. Raises StudyInvalid where the study is not complete or its data has no identities.
    """
    found = tune_tracks(plan, *read_chosen(results), results, tries)
    with atomic_file(results / "tracking.toml") as temporary:
        temporary.write_text(tomli_w.dumps(found.rules.to_dict()), encoding="utf-8")
    write_table(results / "tracks.csv", _rows(found.ways))
    write_json(results / "tracking.json", _content(found))
    _draw(found, results / "figures" / "tracking.png")
    record(NAME, SCORES, found.tuned, records)
    records.measure(
        {f"{NAME}_{_key(way)}_{name}": value for way in found.ways for name, value in way.metrics().items()}
    )
    files = [results / name for name in ("tracking.toml", "tracks.csv", "tracking.json")]
    records.files([*files, results / "figures" / "tracking.png"], NAME)
    return _text(found, results)


def _key(way: Way) -> str:
    return way.name.replace(" ", "_")


def _rows(ways: Sequence[Way]) -> list[dict[str, Any]]:
    return [
        {
            "rules": way.name,
            "scene": scene,
            "months": score.months,
            "f1": round(f1(score.matches[MATCH_IOU]), 6),
            "f_track": round(score.f_track, 6),
            "f_change": round(score.f_change, 6),
            "scot": round(score.scot, 6),
            "mismatches": score.mismatches,
        }
        for way in ways
        for scene, score in way.scores.items()
    ]


def _content(found: TunedTracks) -> dict[str, Any]:
    return {
        "rules": found.rules.to_dict(),
        "ways": {way.name: way.metrics() for way in found.ways},
        "search": found.tuned.to_json(SCORES),
        "left_out": list(found.left_out),
    }


def _draw(found: TunedTracks, path: Path) -> None:
    """Draw all rules of the search on all folds by their two scores, and where the ways lie."""
    figure = matplotlib.figure.Figure(figsize=(7, 4.6), layout="constrained")
    axes = figure.subplots()
    values = [scores for _, scores in found.tuned.found[-1].trials]
    axes.scatter([f for _, f in values], [s for s, _ in values], s=14, c="#cbd5e1", label="tried, on all folds")
    for way, colour in zip(found.ways, COLOURS, strict=True):
        metrics = way.metrics()
        axes.scatter([metrics["f1"]], [metrics["scot"]], s=70, c=colour, label=f"{way.name} ({metrics['scot']:.3f})")
    axes.set(
        xlabel="F1@0.25", ylabel="SCOT", title=f"Rules of tracking on {len(found.ways[0].scores)} scenes, out of fold"
    )
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=130)


def _text(found: TunedTracks, results: Path) -> str:
    lines = [f"{'rules':14}{'F1@0.25':>9}{'F_track':>9}{'F_change':>9}{'SCOT':>9}"]
    lines += [_line(way.name, way.metrics()) for way in found.ways]
    lines += [f"left out: {sentence}" for sentence in found.left_out]
    tried = sum(len(one.trials) for one in found.tuned.found)
    lines.append(
        f"{len(found.ways[0].scores)} scenes, {len(found.left_out)} left out; {tried} rules tried in "
        f"{len(found.tuned.found)} searches. tuned: each fold by rules found on the others.\n"
        f"sn7 track PREDICTIONS OUT --config {results / 'tracking.toml'}"
    )
    return "\n".join(lines)


def _line(name: str, metrics: Mapping[str, float]) -> str:
    cells = "".join(f"{metrics[key]:>9.4f}" for key in ("f1", "f_track", "f_change", "scot"))
    return f"{name:14}{cells}"
