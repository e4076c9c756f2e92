"""A data set → prepared arrays + index, in parallel, once per data set.

    PREPARED/<scene>/<image>.npy    see sn7.prepared
    PREPARED/<scene>/<image>.json   its row of the index and what was left out of it, written after the array

An array whose .json carries the fingerprint of today's source files is kept, so a second run is short and an
interrupted one goes on. The index is written last and removed first: where it is, it is true.
"""

import fcntl
import hashlib
import logging
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from sn7.catalog import LABEL_FOLDERS, Catalog, Image, Scene, read_catalog
from sn7.errors import ConfigError, DataMissing, PreparedInvalid, ResultsConflict, SceneUnlabelled
from sn7.files import atomic_file, read_json, write_json
from sn7.imagearray import image_array
from sn7.prepared import FORMAT, Prepared, PreparedImage, load_prepared, save_index

__all__ = ["Preparation", "prepare"]

logger = logging.getLogger(__name__)

RECIPE = 1
"""Counts up whenever the same files would give other arrays, so that old ones are not kept."""
IMAGES_PER_WORKER = 16
"""Starting a process takes about as long as preparing this many images."""


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
    """One image, and the fingerprint of the files it is made from."""

    image: Image
    source: str


@dataclass(frozen=True)
class _Result:
    row: PreparedImage
    left_out: list[str]


def prepare(data: Path, out: Path, workers: int | None = None) -> Preparation:
    """Prepare the training scenes of the data set `data` in the folder `out`, `workers` images at a time.

    Arrays that are up to date are kept; those of images that are gone are removed. The first image that fails
    ends the run; what was finished is kept for the next. A second run on the same folder waits for the first.
    Raises DataMissing, ImageUnreadable, LabelsUnreadable, SceneUnlabelled (a training scene without one
    labelled image), ResultsConflict where `out` holds something else, ConfigError where `workers` is below 1,
    PreparedInvalid where somebody else removes arrays meanwhile.
    """
    if workers is not None and workers < 1:
        raise ConfigError(f"workers = {workers} cannot be used; wanted at least 1.")
    catalog = read_catalog(data)
    _check_scenes(catalog)
    tasks = [_Task(image, _source(image, data)) for scene in catalog.training for image in scene.images]
    with _locked(out):
        todo = [task for task in tasks if _finished(task, out) is None]
        _remove_stale(out, tasks, changed=bool(todo))
        _run(todo, out, workers, len(tasks))
        results = [result for task in tasks if (result := _finished(task, out)) is not None]
        if len(results) != len(tasks):
            raise PreparedInvalid(f"{out} lost arrays while it was prepared; run `sn7 prepare` again.")
        _check_labelled(catalog.training, results)
        prepared = _index(out, results)
    unlabelled = sum(not image.labelled for image in prepared.images)
    left_out = tuple(sentence for result in results for sentence in result.left_out)
    return Preparation(prepared, len(todo), len(tasks) - len(todo), unlabelled, left_out)


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


def _source(image: Image, data: Path) -> str:
    """Return a fingerprint of an image's files: names, sizes and times, since to read them takes minutes."""
    lines = [f"format {FORMAT} recipe {RECIPE}"]
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
    lock = out / ".lock"
    ours = lock.exists() or (out / "index.json").exists()
    if out.exists() and not ours and (not out.is_dir() or any(out.iterdir())):
        raise ResultsConflict(f"{out} exists and is no prepared folder; wanted a new or an empty one: give another.")
    out.mkdir(parents=True, exist_ok=True)
    with lock.open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.warning("another run prepares %s; waiting for it", out)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _paths(task: _Task, out: Path) -> tuple[Path, Path]:
    folder = out / task.image.scene
    return folder / f"{task.image.name}.npy", folder / f"{task.image.name}.json"


def _finished(task: _Task, out: Path) -> _Result | None:
    """Return what is known of an array that was made from today's files; None where it has to be made."""
    try:
        content = read_json(_paths(task, out)[1])
        row = PreparedImage(**{**content["row"], "transform": tuple(content["row"]["transform"])})
        Prepared(out, (row,), "").pixels(row)  # there, whole and of the right shape
    except (OSError, ValueError, KeyError, TypeError, PreparedInvalid):
        return None
    return _Result(row, content["left_out"]) if row.source == task.source else None


def _remove_stale(out: Path, tasks: list[_Task], changed: bool) -> None:
    """Remove what no image of the data set accounts for, and the index where it will not be true any more."""
    expected = {path for task in tasks for path in _paths(task, out)}
    found = [path for pattern in (".tmp-*", "*/.tmp-*", "*/*.npy", "*/*.json") for path in out.glob(pattern)]
    stale = set(found) - expected
    if changed or stale:
        (out / "index.json").unlink(missing_ok=True)
    for path in stale:
        path.unlink()
    for folder in {path.parent for path in stale}:
        if not any(folder.iterdir()):
            folder.rmdir()


def _cores() -> int:
    """Return how many cores this process may use; macOS only tells how many there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _run(todo: list[_Task], out: Path, workers: int | None, total: int) -> None:
    if workers is None:
        workers = min(_cores(), -(-len(todo) // IMAGES_PER_WORKER))
    with tqdm(total=total, initial=total - len(todo), desc="prepare", unit="image", disable=None) as bar:
        for _ in _each(todo, out, workers):
            bar.update()


def _each(todo: list[_Task], out: Path, workers: int) -> Iterator[None]:
    """Prepare each image, `workers` at a time; the first error ends it, after the images under way."""
    if workers <= 1:
        for task in todo:
            _prepare_image(task, out)
            yield
        return
    # spawn: a forked copy of a process with Ray's or torch's threads may hang
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            for future in as_completed([pool.submit(_prepare_image, task, out) for task in todo]):
                future.result()
                yield
        finally:
            pool.shutdown(cancel_futures=True)


def _prepare_image(task: _Task, out: Path) -> None:
    """Make an array and, when it is in its place, its .json."""
    array, row, left_out = image_array(task.image, task.source)
    array_path, json_path = _paths(task, out)
    json_path.unlink(missing_ok=True)
    with atomic_file(array_path) as temporary:
        np.save(temporary, array)
    write_json(json_path, {"row": asdict(row), "left_out": left_out})


def _index(out: Path, results: list[_Result]) -> Prepared:
    """Write the index, unless it says the same already."""
    rows = [result.row for result in results]
    lines = [f"format {FORMAT}", *(f"{row.scene}/{row.image} {row.sha256}" for row in rows)]
    fingerprint = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    try:
        current = load_prepared(out)
        if (current.images, current.fingerprint) == (tuple(rows), fingerprint):
            return current
    except PreparedInvalid:
        pass
    save_index(out, rows, fingerprint, [sentence for result in results for sentence in result.left_out])
    return load_prepared(out)
