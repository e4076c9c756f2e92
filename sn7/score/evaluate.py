"""score: truth and predictions → the metrics of each scene and of all; a scene a task, as many at once as cores."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from sn7.challenge import Tracks
from sn7.errors import ConfigError, SceneUnknown
from sn7.metrics import Counts
from sn7.parallel import each
from sn7.score.inputs import SceneTracks, Source, find_sources, scene_tracks
from sn7.score.pixels import pixel_counts
from sn7.score.report import Report, SceneReport
from sn7.score.scot import MATCH_IOU, score_scene

__all__ = ["score"]


@dataclass(frozen=True)
class _Task:
    scene: str
    truth: Source
    found: Source | None


def score(
    truth: Path,
    predictions: Path,
    ious: Sequence[float] = (MATCH_IOU,),
    threshold: float | None = None,
    scenes: Sequence[str] | None = None,
    workers: int | None = None,
) -> Report:
    """Score predictions against truth, both folders or challenge CSVs, on the truth's scenes or on `scenes` of them.

    `ious`: what a match has to exceed, for F1; `threshold`: from which probs count as building, in place of what each
    file says of its model. What the inputs do not allow is None in the report: pixel metrics without probs or masks,
    F1 without footprints, SCOT without Ids.
    Raises SceneUnknown where predictions are of a scene that the truth has not; TracksInvalid, DataMissing,
    LabelsUnreadable, ImageUnreadable; ConfigError for arguments out of range.
    """
    for name, values in (("iou", ious), ("threshold", [] if threshold is None else [threshold])):
        for value in values:
            if not 0 <= value < 1:
                raise ConfigError(f"{name} = {value} cannot be used; wanted a number from 0 to below 1.")
    true, found = find_sources(truth), find_sources(predictions)
    if scenes is not None:
        _require_known(scenes, true, truth)
        true, found = ({s: side[s] for s in scenes if s in side} for side in (true, found))
    _require_known(found, true, truth)
    footprints = any(
        source.tracks is not None or any(m.footprints for m in source.months.values()) for source in found.values()
    )
    tasks = [_Task(scene, source, found.get(scene)) for scene, source in true.items()]
    work = partial(_score_scene, ious=tuple(ious), threshold=threshold, footprints=footprints)
    return Report(tuple(ious), tuple(each(work, tasks, workers, "score", unit="scene")))


def _require_known(scenes: Sequence[str] | dict[str, Source], true: dict[str, Source], truth: Path) -> None:
    unknown = sorted(set(scenes) - set(true))
    if unknown:
        raise SceneUnknown(
            f"{truth} has no scene {unknown[0]}; wanted one of its {len(true)}, such as {next(iter(true))}: give the "
            f"truth of {'it' if len(unknown) == 1 else f'all {len(unknown)} that it lacks'}, or leave it out."
        )


def _score_scene(task: _Task, ious: tuple[float, ...], threshold: float | None, footprints: bool) -> SceneReport:
    pixels, images = _pixels(task, threshold)
    true = scene_tracks(task.scene, task.truth, task.found, truth=True)
    if not footprints:
        return SceneReport(task.scene, None, False, pixels, images, ())
    found = scene_tracks(task.scene, task.found, task.truth, truth=False)
    objects = score_scene(true.tracks, found.tracks, ious)
    notes = tuple(_notes(task, true, found))
    return SceneReport(task.scene, objects, true.identified and found.identified, pixels, images, notes)


def _pixels(task: _Task, threshold: float | None) -> tuple[Counts | None, int]:
    """Return the sum of the counts of a scene's images, and how many there are."""
    if task.found is None:
        return None, 0
    counts = [
        pixel_counts(task.scene, truth, found, threshold)
        for date, found in task.found.months.items()
        if found.raster and (truth := task.truth.months.get(date)) and truth.footprints
    ]
    known = [count for count in counts if count is not None]
    return (sum(known, start=Counts()) if known else None), len(known)


def _notes(task: _Task, true: SceneTracks, found: SceneTracks) -> list[str]:
    """Return what a reader of the scores should know, a sentence each."""
    months, predicted = set(true.tracks.months), set(found.tracks.months)
    alone, missing = len(predicted - months), len(months - predicted)
    facts: tuple[tuple[object, str], ...] = (
        (true.unlabelled, f"{true.unlabelled} months of the truth have no usable footprint: unlabelled, not counted"),
        (true.left_out, f"{true.left_out} features of the truth are null or no polygon: left out"),
        (found.left_out, f"{found.left_out} predicted features are null or no polygon: left out"),
        (alone, f"{alone} predicted months have no truth: not counted"),
        (missing, f"{missing} of {len(months)} months have no predictions: every footprint counts as missed"),
        (len(months) == 1, "one month only, in which nothing can be new: F_change and SCOT are 0"),
        (not true.identified, "the truth has footprints without an Id: no SCOT"),
        (not found.identified, "predictions have footprints without an Id: no SCOT"),
        (
            _numbered_anew(found.tracks),
            "each month's Ids are 1, 2, …, as `sn7 predict` numbers polygons, and SCOT takes them for buildings: run "
            "`sn7 track` first",
        ),
    )
    return [sentence for applies, sentence in facts if applies]


def _numbered_anew(tracks: Tracks) -> bool:
    """Return whether ids are 1 to n in each month, of an n that falls at times: no tracks look like that."""
    counts = np.bincount(tracks.month, minlength=len(tracks.months))
    lowest, highest = (np.full(len(counts), start) for start in (1, 0))
    np.minimum.at(lowest, tracks.month, tracks.ids)
    np.maximum.at(highest, tracks.month, tracks.ids)
    return bool((lowest == 1).all() and (highest == counts).all() and (np.diff(counts) < 0).any())
