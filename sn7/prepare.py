"""A data set → prepared arrays + index, in parallel, once per data set.

    PREPARED/<scene>/<image>.npy        see sn7.prepared
    PREPARED/<scene>/<image>.x<s>.npy   its labels at scale s
    PREPARED/<scene>/<image>.footprints.npy
    PREPARED/<scene>/<image>.json       its row of the index and what was left out of it, written after the arrays

An array whose .json carries the fingerprint of today's source files is kept, so a second run is short and an
interrupted one goes on. The index is written last and removed first: where it is, it is true.
"""

import fcntl
import hashlib
import logging
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np

from sn7.catalog import LABEL_FOLDERS, Catalog, Image, Scene, read_catalog
from sn7.errors import ConfigError, DataMissing, PreparedInvalid, ResultsConflict, SceneUnlabelled
from sn7.files import atomic_file, read_json, write_json
from sn7.imagearray import image_arrays
from sn7.parallel import each
from sn7.prepared import (
    CHANNELS,
    FORMAT,
    UPSCALES,
    Prepared,
    PreparedImage,
    array_name,
    footprints_name,
    load_prepared,
    save_index,
)
from sn7.storage import PREPARING

__all__ = ["Preparation", "prepare"]

logger = logging.getLogger(__name__)

RECIPE = 1
"""Counts up whenever the same files would give other arrays, so that old ones are not kept."""


@dataclass(frozen=True)
class Preparation:
    """What a run of `prepare` did."""

    prepared: Prepared
    written: int
    """Images whose array was made."""
    reused: int
    """Images whose array was there already."""
    unlabelled: int
    """Images without usable footprints: they are in the index, and valid nowhere."""
    left_out: tuple[str, ...]
    """One sentence for each image or part of a label file that was not used."""


@dataclass(frozen=True)
class _Task:
    """One image, and the labels that it gets."""

    image: Image
    source: str
    """Fingerprint of the files that it is made from and of what is made."""
    separation: bool
    upscales: tuple[int, ...]

    @property
    def arrays(self) -> list[str]:
        """Paths of the array, of its fine labels and of its footprints, relative to the prepared folder."""
        named = self.image.scene, self.image.name
        return [*(array_name(*named, scale) for scale in (1, *self.upscales)), footprints_name(*named)]

    @property
    def description(self) -> str:
        """Path of the .json, relative to the prepared folder."""
        return f"{self.image.scene}/{self.image.name}.json"


@dataclass(frozen=True)
class _Result:
    row: PreparedImage
    left_out: list[str]


def prepare(
    data: Path,
    out: Path,
    workers: int | None = None,
    separation: bool = False,
    upscales: Collection[int] = (),
) -> Preparation:
    """Prepare the training scenes of the data set `data` in the folder `out`, `workers` images at a time.

    With `separation` arrays have two more channels, boundary and contact (see sn7.separation); for each scale in
    `upscales` there are fine labels (see sn7.prepared). The set has what this run asks for and no more, so that the
    same call gives the same set everywhere: with other labels than before every image is made anew.
    Arrays that are up to date are kept; those of images that are gone are removed. The first image that fails
    ends the run; what was finished is kept for the next. A second run on the same folder waits for the first.
    Raises DataMissing, ImageUnreadable, LabelsUnreadable, SceneUnlabelled (a training scene without one
    labelled image), ResultsConflict where `out` lies in `data` or holds something else, ConfigError where `workers`
    is below 1 or a scale is none of UPSCALES, PreparedInvalid where somebody else removes arrays meanwhile.
    """
    scales = _scales(upscales)
    catalog = read_catalog(data)
    if out.resolve().is_relative_to(data.resolve()):
        raise ResultsConflict(f"{out} lies in the data set {data}, where it would be taken for a scene; give another.")
    _check_scenes(catalog)
    images = [image for scene in catalog.training for image in scene.images]
    tasks = [_Task(image, _source(image, data, separation, scales), separation, scales) for image in images]
    with _locked(out):
        todo = [task for task in tasks if _finished(task, out) is None]
        _remove_stale(out, tasks, changed=bool(todo))
        for _ in each(partial(_prepare_image, out=out), todo, workers, "prepare", len(tasks) - len(todo)):
            pass
        results = [result for task in tasks if (result := _finished(task, out)) is not None]
        if len(results) != len(tasks):
            raise PreparedInvalid(f"{out} lost arrays while it was prepared; run `sn7 prepare` again.")
        _check_labelled(catalog.training, results)
        prepared = _index(out, results, separation, scales)
    unlabelled = sum(not image.labelled for image in prepared.images)
    left_out = tuple(sentence for result in results for sentence in result.left_out)
    return Preparation(prepared, len(todo), len(tasks) - len(todo), unlabelled, left_out)


def _scales(upscales: Collection[int]) -> tuple[int, ...]:
    """Return scales in ascending order, each once; raise ConfigError for one that cannot be."""
    for scale in upscales:
        if scale not in UPSCALES:
            raise ConfigError(f"upscale = {scale} cannot be prepared; wanted one of {', '.join(map(str, UPSCALES))}.")
    return tuple(sorted(set(upscales)))


def _check_scenes(catalog: Catalog) -> None:
    if not catalog.training:
        raise DataMissing(
            f"{catalog.data} holds {len(catalog.final)} scenes to predict and none to train on; wanted "
            "train/<scene>/ with images and labels: get them with `sn7 download`."
        )
    for scene in catalog.training:
        if not any(image.labels for image in scene.images):
            _raise_unlabelled(scene, "not one label file")


def _check_labelled(scenes: tuple[Scene, ...], results: list[_Result]) -> None:
    labelled = {result.row.scene for result in results if result.row.labelled}
    for scene in scenes:
        if scene.name not in labelled:
            _raise_unlabelled(scene, "label files without one footprint")


def _raise_unlabelled(scene: Scene, found: str) -> None:
    raise SceneUnlabelled(
        f"{scene.folder} has {found} for its {len(scene.images)} images; wanted <image>_Buildings.geojson in "
        f"{', '.join(LABEL_FOLDERS)}: get its labels, or move the scene to test_public/ to only predict it."
    )


def _source(image: Image, data: Path, separation: bool, scales: tuple[int, ...]) -> str:
    """Return a fingerprint of an image's files: names, sizes and times, since to read them takes minutes."""
    lines = [f"format {FORMAT} recipe {RECIPE} channels {CHANNELS[separation]} scales {scales}"]
    for path in filter(None, (image.path, image.labels, image.udm)):
        try:
            status = path.stat()
        except OSError as error:
            raise DataMissing(f"{path} cannot be read ({error.strerror}); get the file again or remove it.") from error
        lines.append(f"{path.relative_to(data).as_posix()} {status.st_size} {status.st_mtime_ns}")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Hold the prepared folder for this process alone; wait while another one holds it."""
    lock = out / PREPARING
    if out.exists() and not lock.exists() and not _has_index(out) and (not out.is_dir() or any(out.iterdir())):
        raise ResultsConflict(f"{out} exists and is no prepared folder; wanted a new or an empty one: give another.")
    out.mkdir(parents=True, exist_ok=True)
    with lock.open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.warning("another run prepares %s; waiting for it", out)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _has_index(out: Path) -> bool:
    """Return whether a folder has an index of ours, of whatever version; others' files may have that name, too."""
    try:
        index = read_json(out / "index.json")
    except (OSError, ValueError):
        return False
    return isinstance(index, dict) and {"format", "fingerprint", "images"} <= index.keys()


def _finished(task: _Task, out: Path) -> _Result | None:
    """Return what is known of an array that was made from today's files; None where it has to be made."""
    try:
        content = read_json(out / task.description)
        row = PreparedImage.from_json(content["row"])
        prepared = Prepared(out, (row,), "", task.separation, task.upscales)
        prepared.pixels(row)  # there, whole and of the right shape
        for scale in task.upscales:
            prepared.fine_labels(row, scale)
        prepared.footprints(row)
    except (OSError, ValueError, KeyError, TypeError, PreparedInvalid):
        return None
    return _Result(row, content["left_out"]) if row.source == task.source else None


def _remove_stale(out: Path, tasks: list[_Task], changed: bool) -> None:
    """Remove what no image of the data set accounts for, and the index where it will not be true any more."""
    expected = {out / name for task in tasks for name in (*task.arrays, task.description)}
    found = [path for pattern in (".tmp-*", "*/.tmp-*", "*/*.npy", "*/*.json") for path in out.glob(pattern)]
    stale = set(found) - expected
    if changed or stale:
        (out / "index.json").unlink(missing_ok=True)
    for path in stale:
        if path.is_dir():  # of a fetch that was killed
            shutil.rmtree(path)
        else:
            path.unlink()
    for folder in {path.parent for path in stale}:
        if not any(folder.iterdir()):
            folder.rmdir()


def _prepare_image(task: _Task, out: Path) -> None:
    """Make an image's arrays and, when they are in their places, its .json."""
    made = image_arrays(task.image, task.source, task.separation, task.upscales)
    (out / task.description).unlink(missing_ok=True)
    for name, array in zip(task.arrays, (made.array, *made.fine.values(), made.footprints), strict=True):
        with atomic_file(out / name) as temporary:
            np.save(temporary, array)
    write_json(out / task.description, {"row": asdict(made.row), "left_out": made.left_out})


def _index(out: Path, results: list[_Result], separation: bool, scales: tuple[int, ...]) -> Prepared:
    """Write the index, unless it says the same already."""
    rows = [result.row for result in results]
    lines = [f"format {FORMAT}", *(f"{row.scene}/{row.image} {row.sha256}" for row in rows)]
    fingerprint = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    try:
        current = load_prepared(out)
        labels = current.separation, current.upscales
        if (current.images, current.fingerprint, labels) == (tuple(rows), fingerprint, (separation, scales)):
            return current
    except PreparedInvalid:
        pass
    left_out = [sentence for result in results for sentence in result.left_out]
    save_index(out, rows, fingerprint, left_out, separation, scales)
    return load_prepared(out)
