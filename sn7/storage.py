"""Folders at a URL (s3://, gs://, https:// …, whatever fsspec reads): a local copy, fetched once a machine.

    CACHE/<name>-<hash of the URL>/         the copy
    CACHE/<name>-<hash of the URL>.json     which version of each file it has
    CACHE/<name>-<hash of the URL>.lock     held while it is brought up to date, by one process of the machine

CACHE is SN7_CACHE, else sn7/ in the user's cache folder. Credentials and endpoints are those of the protocol's own
library; for S3 these are AWS's usual files and variables, AWS_ENDPOINT_URL among them.
"""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
from tqdm import tqdm

from sn7.errors import DiskFull, Sn7Error, StorageUnavailable
from sn7.files import free_bytes, is_full, read_json, require_writable, write_json
from sn7.signals import LeaveQuestion, leave_if_asked

__all__ = [
    "LAST",
    "PREPARING",
    "Listing",
    "cache_folder",
    "changing",
    "chunks",
    "is_url",
    "listing",
    "local",
    "reaching",
    "save_state",
]

LAST = "index.json"
"""Of a prepared set: where it is, it is true, so it is removed first and written last, here as there."""
PREPARING = ".prepare.lock"
"""By which `sn7 prepare` knows a folder of its own, finished or not."""
AT_ONCE = 32
"""Files under way at a time."""
VERSION = ("ETag", "etag", "md5Hash", "mtime", "LastModified", "last_modified", "Last-Modified", "created")
"""What protocols call that which tells one version of a file from another."""

Listing = dict[str, list[Any]]
"""Size and version of each file, by its path relative to the folder."""


def is_url(place: str | Path) -> bool:
    """Return whether a place is a URL, and not a path of this machine."""
    return isinstance(place, str) and "://" in place


def local(place: str | Path, leave: LeaveQuestion | None = None) -> Path:
    """Return a place as a folder of this machine: a path as it is, a URL as its copy, brought up to date.

    Only what has changed is fetched. Several processes of a machine fetch once: the others wait.
    `leave` is asked between files; what has been fetched by then is not fetched again.
    Raises StorageUnavailable where the URL cannot be read or holds nothing, DiskFull, FolderUnwritable.
    """
    if not is_url(place):
        return Path(place)
    folder = cache_folder(str(place))
    with _locked(folder):
        for _ in _update(str(place), folder):
            leave_if_asked(leave)
    return folder


@contextmanager
def changing(url: str) -> Iterator[Path]:
    """Yield the copy of a URL to prepare in and to publish from; meanwhile other processes of the machine wait for it.

    Until it is published it is no copy: where that fails, `local` fetches what is at the URL.
    """
    folder = cache_folder(url)
    with _locked(folder):
        _state_file(folder).unlink(missing_ok=True)
        (folder / PREPARING).touch()  # by which `sn7 prepare` knows its own folder, half fetched or not
        yield folder


def cache_folder(url: str) -> Path:
    """Return where the local copy of a URL lies; other URLs have other folders."""
    cache = os.environ.get("SN7_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sn7"
    name = PurePosixPath(url.rstrip("/")).name
    return Path(cache) / f"{name}-{hashlib.sha256(url.rstrip('/').encode()).hexdigest()[:12]}"


def listing(fs: Any, root: str) -> Listing:
    """Return what a folder of a file system holds, as it is now, but for hidden files.

    Nor are the links files by which people sort a web server's list, such as `?C=M;O=A`.
    """
    fs.invalidate_cache()
    found: Listing = {}
    for path, info in fs.find(root, detail=True).items():
        if path.endswith("/") or path == root:  # a folder, as S3's console marks it, or no folder at all
            continue
        name = path[len(root.rstrip("/")) + 1 :] if path.startswith(root) else path
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise StorageUnavailable(f"{path} has a name that leads out of its folder; remove it there.")
        if not PurePosixPath(name).name.startswith((".", "?")):
            if not any(key in info for key in VERSION):  # HTTP lists names alone, and tells more of one file at a time
                info = fs.info(path)
            found[name] = [info["size"] or 0, str(next((info[key] for key in VERSION if key in info), ""))]
    return found


def _update(url: str, folder: Path) -> Iterator[None]:
    """Bring the copy of a URL up to date with what is there in the end; yield before each step."""
    with reaching(url):
        fs, root = fsspec.core.url_to_fs(url)
        while True:
            wanted = listing(fs, root)
            if not wanted:
                raise StorageUnavailable(f"{url} holds no file; give the folder of a data set or of a prepared one.")
            if not (yield from _fetch(fs, root, wanted, folder)):  # else somebody may have published meanwhile
                return


def _fetch(fs: Any, root: str, wanted: Listing, folder: Path) -> Generator[None, None, bool]:
    """Bring the local copy up to date with a listing, and return whether it was not; yield before each few files.

    What an interrupted start has fetched is not fetched again.
    """
    state = _state(folder)
    there = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    stale = [name for name in there if name not in wanted and not name.startswith(".")]
    todo = [name for name in wanted if name not in there or state.get(name) != wanted[name]]
    _require_room(folder, sum(wanted[name][0] for name in todo))
    if todo or stale:
        (folder / LAST).unlink(missing_ok=True)
    todo = sorted({*todo, *({LAST} & set(wanted) if todo or stale else ())}, key=lambda name: (name == LAST, name))
    for name in stale:
        there[name].unlink(missing_ok=True)
    for names in chunks([name for name in todo if name != LAST], "fetch"):
        yield
        _get(fs, root, names, folder)
        state.update({name: wanted[name] for name in names})
        save_state(folder, state)
    if LAST in todo:
        _get(fs, root, [LAST], folder)
        save_state(folder, {**state, LAST: wanted[LAST]})
    return bool(todo or stale)


def _require_room(folder: Path, size: int) -> None:
    if size > (free := free_bytes(folder)):
        raise DiskFull(
            f"{folder} has {free / 1e9:.1f} GB of room; wanted {size / 1e9:.1f} GB for the copy: make room there, or "
            "set SN7_CACHE to a folder of another disk."
        )


def _get(fs: Any, root: str, names: Sequence[str], folder: Path) -> None:
    """Fetch files together, each to a temporary name, and put them in their places."""
    temporary = folder / ".tmp-fetch"
    shutil.rmtree(temporary, ignore_errors=True)
    targets = [temporary / str(number) for number in range(len(names))]
    temporary.mkdir(parents=True)
    try:
        fs.get([f"{root}/{name}" for name in names], [str(target) for target in targets])
        for name, target in zip(names, targets, strict=True):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            target.replace(folder / name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def chunks(names: Sequence[str], what: str) -> Iterator[Sequence[str]]:
    """Yield names, as many as are moved at once, with a bar."""
    with tqdm(total=len(names), desc=what, unit="file", disable=None) as bar:
        for start in range(0, len(names), AT_ONCE):
            yield names[start : start + AT_ONCE]
            bar.update(len(names[start : start + AT_ONCE]))


def _state(folder: Path) -> Listing:
    try:
        state: Listing = read_json(_state_file(folder))
    except (OSError, ValueError):
        return {}
    return state


def save_state(folder: Path, state: Listing) -> None:
    """Write down which version of each file a copy has."""
    write_json(_state_file(folder), state)


def _state_file(folder: Path) -> Path:
    return folder.with_name(folder.name + ".json")


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold a copy for this process; wait while another one of this machine holds it."""
    require_writable(folder)
    with folder.with_name(folder.name + ".lock").open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@contextmanager
def reaching(url: str) -> Iterator[None]:
    """Raise StorageUnavailable in place of what a protocol's library raises."""
    try:
        yield
    except Sn7Error:
        raise
    except Exception as error:
        if is_full(error):
            raise DiskFull(f"{cache_folder(url)} has no room for {url}; make room there, or set SN7_CACHE.") from error
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise StorageUnavailable(
            f"{url} cannot be reached ({type(error).__name__}: {reason}); check address, credentials and network."
        ) from error
