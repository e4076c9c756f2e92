"""The public bucket → a data set on disk: each archive is fetched, checked, unpacked and removed.

    OUT/.download/<archive>.part        the bytes that are there so far
    OUT/.download/<archive>.part.json   of which object they are: its size and ETag
    OUT/.download/<archive>.json        the archive is unpacked; nothing is left to do

Whatever ends a run, the next one goes on from what is there.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from sn7.bucket import Bucket, Remote
from sn7.errors import ArchiveInvalid, DiskFull, FolderUnwritable
from sn7.files import free_bytes, is_full, lock, read_json, write_json
from sn7.unpack import Unpacked, unpack

__all__ = ["ARCHIVES", "Archive", "Result", "download"]

BUCKET = "spacenet-dataset"
PREFIX = "spacenet/SN7_buildings/tarballs/"
WORK = ".download"
"""Folder in OUT for what is not data."""
UNPACKED_PER_BYTE = 2.0
"""Bytes on disk for a byte of an archive, for the check of the disk; 1.64 for a scene of the published files."""
BLOCK = 1 << 20


@dataclass(frozen=True)
class Archive:
    """One of the published files."""

    name: str
    md5: str | None
    """As published; None where none is."""


ARCHIVES = {
    "train": Archive("SN7_buildings_train.tar.gz", "6eda13b9c28f6f5cdf00a7e8e218c1b1"),
    "csvs": Archive("SN7_buildings_train_csvs.tar.gz", None),
    "test_public": Archive("SN7_buildings_test_public.tar.gz", "b3bde95a0f8f32f3bfeba49464b9bc97"),
}
"""By the name of the split."""


@dataclass(frozen=True)
class Result:
    """What became of an archive."""

    sentence: str
    unpacked: Unpacked | None
    """None where an earlier run had done everything."""


class _Place:
    """The files of one archive in OUT/.download."""

    def __init__(self, out: Path, archive: Archive) -> None:
        self.archive = archive
        self.part = out / WORK / f"{archive.name}.part"
        self.origin = out / WORK / f"{archive.name}.part.json"
        self.marker = out / WORK / f"{archive.name}.json"

    def bytes_of(self, remote: Remote) -> int:
        """Return how many bytes of this very object are there."""
        try:
            size = self.part.stat().st_size
            return size if read_json(self.origin) == asdict(remote) and size <= remote.size else 0
        except (OSError, ValueError):
            return 0

    def files(self) -> int | None:
        """Return how many files an earlier run unpacked; None where none came to the end."""
        try:
            return int(read_json(self.marker)["files"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def clear(self) -> None:
        """Remove the archive."""
        self.part.unlink(missing_ok=True)
        self.origin.unlink(missing_ok=True)


def download(out: Path, archives: Sequence[Archive], endpoint_url: str | None = None) -> list[Result]:
    """Download and unpack `archives` into `out`, without a login, from AWS or from another S3 server.

    Raises DownloadFailed (bucket, network), ArchiveInvalid (checksum, damage, a member that leads out of `out`),
    DiskFull, FolderUnwritable, or ResultsConflict while another process downloads into `out`.
    """
    with lock(out / WORK / ".lock"), _unwritable_named(out):
        places = [_Place(out, archive) for archive in archives]
        done = [_done_before(place) for place in places if place.files() is not None]
        todo = [place for place in places if place.files() is None]
        if todo:
            bucket = Bucket(BUCKET, endpoint_url)
            remotes = [bucket.find(PREFIX + place.archive.name) for place in todo]
            _require_room(out, todo, remotes)
            done += [_get(bucket, remote, place, out) for place, remote in zip(todo, remotes, strict=True)]
        return done


@contextmanager
def _unwritable_named(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        again = "and give the same command again: it goes on from what is there."
        if is_full(error):
            raise DiskFull(f"{out} cannot be written to: the disk is full; make room there {again}") from error
        raise FolderUnwritable(
            f"{error.filename2 or error.filename or out} cannot be written ({error.strerror or error}); remove what is "
            f"in its place, or make it writable, {again}"
        ) from error


def _require_room(out: Path, places: Sequence[_Place], remotes: Sequence[Remote]) -> None:
    """Raise DiskFull where the archives and what is in them have no room; one lies there at a time."""
    missing = [remote.size - place.bytes_of(remote) for place, remote in zip(places, remotes, strict=True)]
    # One that is complete may be unpacked in part, nobody knows how far: its room shows while it is unpacked.
    unpacked = sum(int(UNPACKED_PER_BYTE * remote.size) for remote, left in zip(remotes, missing, strict=True) if left)
    need, free = max(missing) + unpacked, free_bytes(out)
    if need > free:
        raise DiskFull(
            f"{out} is on a disk with {_size(free)} free; wanted about {_size(need)}, {_size(max(missing))} for an "
            f"archive and {_size(unpacked)} for what is in them: make room there, or give another folder."
        )


def _done_before(place: _Place) -> Result:
    place.clear()  # that run may have been killed before it could
    found = f"unpacked before ({place.files()} files)"
    return Result(f"{place.archive.name}: skipped, {found}; to repeat it remove {place.marker}", None)


def _get(bucket: Bucket, remote: Remote, place: _Place, out: Path) -> Result:
    there = place.bytes_of(remote)
    kept = _kept(place, there)
    _append(bucket, remote, place, there)
    checked = _check(place, remote)
    unpacked = unpack(place.part, out)
    write_json(place.marker, {**asdict(remote), "checked": checked, "files": unpacked.files})
    place.clear()
    return Result(f"{place.archive.name}: {_size(remote.size - there)} downloaded{kept}; {checked}", unpacked)


def _kept(place: _Place, there: int) -> str:
    """Return what to say of the bytes of an earlier run, of which `there` can be used."""
    if there:
        return f", {_size(there)} were there"
    if place.part.exists() and place.part.stat().st_size:
        return ", begun anew: it was replaced on the server"
    return ""


def _append(bucket: Bucket, remote: Remote, place: _Place, there: int) -> None:
    """Download what comes after the first `there` bytes."""
    if not there:
        place.clear()
        write_json(place.origin, asdict(remote))
    with place.part.open("ab") as file, _bar("download", remote.size, place, there) as bar:
        for piece in bucket.pieces(remote, there):
            file.write(piece)
            file.flush()
            bar.update(len(piece))


def _check(place: _Place, remote: Remote) -> str:
    """Return how the archive was checked. Raises ArchiveInvalid, and removes it, where its md5 is a wrong one."""
    published = place.archive.md5
    wanted = published or (remote.etag if re.fullmatch("[0-9a-f]{32}", remote.etag) else None)
    if wanted is None:
        return "no md5 of it is known, its size was checked"
    says = "published" if published else "the server has it (none is published)"
    found = _md5(place)
    if found == wanted:
        return f"md5 as {says}"
    place.clear()
    raise ArchiveInvalid(
        f"{place.archive.name} has the md5 {found}; wanted {wanted}, as {says}: the file was removed, give the same "
        "command again."
    )


def _md5(place: _Place) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with place.part.open("rb") as file, _bar("check", place.part.stat().st_size, place) as bar:
        while block := file.read(BLOCK):
            digest.update(block)
            bar.update(len(block))
    return digest.hexdigest()


def _bar(what: str, size: int, place: _Place, there: int = 0) -> "tqdm[Any]":
    """Return a bar in bytes, of which `there` are no work of this run."""
    text = f"{what} {place.archive.name}"
    return tqdm(total=size, initial=there, desc=text, unit="B", unit_scale=True, disable=None)


def _size(count: int) -> str:
    """Return a number of bytes in the units of the progress bar."""
    return f"{tqdm.format_sizeof(count)}B"
