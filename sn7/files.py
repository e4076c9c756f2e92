"""Files and folders that are either complete or not there: written to a temporary name, then renamed."""

import errno
import fcntl
import json
import os
import re
import resource
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sn7.errors import DiskFull, FolderUnwritable, ResultsConflict, Sn7Error

__all__ = [
    "allow_open_files",
    "atomic_dir",
    "atomic_file",
    "causes",
    "free_bytes",
    "is_full",
    "lock",
    "read_json",
    "require_writable",
    "write_json",
]

FULL = re.compile(
    r"(?i)no space left|dis[ck] is full|quota exceeded|requested and \d+ written|PytorchStreamWriter|unexpected pos \d+"
)
"""What libraries write of a full disk that do not pass the system's error on: safetensors, sqlite, numpy, torch."""
MOST_FILES = 1 << 16
"""Open at a time: images of a set with all their months, and fine labels, are thousands."""
NOTHING_FREE = 1 << 16
"""Bytes; with less, whatever a writer raises is taken for a full disk. GDAL's error says nothing of it."""


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` on success, remove it on failure.

    The temporary name ends like `path`, since writers choose a format by the ending. Raises DiskFull where the disk
    is, whatever the writer raises.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".tmp-", suffix=path.name, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    temporary.chmod(0o644)  # mkstemp's 0600 would hide results from a colleague on a shared disk
    try:
        with _full_disk_named(path):
            yield temporary
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_dir(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; on success it takes the place of `path`, else it is removed.

    Raises DiskFull where the disk is, whatever the writer raises.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".tmp-{path.name}-", dir=path.parent))
    temporary.chmod(0o755)
    try:
        with _full_disk_named(path):
            yield temporary
            _put_in_place(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _put_in_place(temporary: Path, path: Path) -> None:
    if not path.exists():
        temporary.replace(path)
        return
    # A rename cannot replace a full folder: move the old one aside first, so that a crash between the two renames
    # leaves both whole.
    old = Path(tempfile.mkdtemp(prefix=f".tmp-{path.name}-old-", dir=path.parent))
    path.replace(old / path.name)
    temporary.replace(path)
    shutil.rmtree(old)


@contextmanager
def _full_disk_named(path: Path) -> Iterator[None]:
    """Raise DiskFull in place of what a writer of `path` raises where the disk is full: each raises its own."""
    try:
        yield
    except Sn7Error:
        raise
    except Exception as error:
        if is_full(error) or free_bytes(path) < NOTHING_FREE:
            raise DiskFull(f"{path} cannot be written: the disk is full; make room there and start again.") from error
        raise


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and what it came from, the last one first."""
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def is_full(error: BaseException) -> bool:
    """Return whether an error, or one that it came from, says that a disk is full or a quota used up."""
    return any(
        isinstance(cause, DiskFull)
        or getattr(cause, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
        or FULL.search(str(cause))
        for cause in causes(error)
    )


def free_bytes(path: Path) -> int:
    """Return what is free, for this user, on the disk that holds `path`, or would."""
    there = next(place for place in (path, *path.absolute().parents) if place.exists())
    return shutil.disk_usage(there).free


def allow_open_files() -> None:
    """Let this process have as many files open as the system lets it, up to MOST_FILES: a memory map holds one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def require_writable(folder: Path) -> None:
    """Make `folder` if it is not there. Raises FolderUnwritable where that, or a file in it, cannot be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise _unwritable(folder, error) from error


def _unwritable(folder: Path, error: OSError) -> FolderUnwritable:
    found = "it is no folder" if isinstance(error, FileExistsError | NotADirectoryError) else error.strerror
    return FolderUnwritable(f"{folder} cannot be written to ({found}); give another folder, or make it writable.")


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold the lock file `path` for this process alone; the system lets go of it whatever ends the process.

    Raises ResultsConflict while another process holds it, FolderUnwritable where its folder is not for writing.
    """
    require_writable(path.parent)
    with path.open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ResultsConflict(f"another process is at work in {path.parent}; wait for it to end.") from error
        yield


def write_json(path: Path, content: Any) -> None:
    """Write `content` as indented JSON, atomically."""
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Parse a JSON file. Raises OSError or ValueError, which callers turn into their own sentence."""
    return json.loads(path.read_text(encoding="utf-8"))
