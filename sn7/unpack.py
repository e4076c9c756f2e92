"""A tar.gz archive → the files in it, one after the other; none outside of the folder, and none twice."""

import gzip
import os
import shutil
import stat
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from tqdm import tqdm

from sn7.errors import ArchiveInvalid, FolderUnwritable

__all__ = ["Unpacked", "unpack"]

BLOCK = 1 << 20
"""Bytes that are read and written at a time, which bounds the memory."""


@dataclass(frozen=True)
class Unpacked:
    """The files of an archive."""

    written: int
    there: int
    """Skipped: a file of that name and size was there already."""

    @property
    def files(self) -> int:
        """All of them."""
        return self.written + self.there


class _Member(tarfile.TarInfo):
    """An entry of an archive; where one is broken or missing, tarfile would take that for the archive's end."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_Member":
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if len(buf) == tarfile.BLOCKSIZE and not any(buf):  # zeros: the end indeed
                raise
            raise tarfile.ReadError(str(error)) from error


def unpack(archive: Path, out: Path) -> Unpacked:
    """Write the files of `archive`, a tar.gz, below `out`; a file that is there with its size is left as it is.

    `archive` lies in a folder of its own, which nothing is unpacked to. Modes and owners are those of any new file.
    Raises ArchiveInvalid where the archive is damaged, or holds anything but folders and files with a place below
    `out`, before anything of that member is written; FolderUnwritable where a link that is there leads out of `out`.
    """
    written = there = 0
    size = archive.stat().st_size
    try:
        with (
            archive.open("rb") as file,
            tqdm(total=size, desc=f"unpack {archive.stem}", unit="B", unit_scale=True, disable=None) as bar,
            gzip.open(file) as stream,
            tarfile.open(fileobj=stream, mode="r|", bufsize=BLOCK, tarinfo=_Member) as members,
        ):
            while (member := members.next()) is not None:
                members.members = []  # type: ignore[attr-defined]  # it would keep every one
                place = _place(member, archive, out)
                if member.isdir():
                    place.mkdir(parents=True, exist_ok=True)
                elif _is_there(place, member):
                    there += 1
                elif content := members.extractfile(member):
                    _write(content, place)
                    written += 1
                bar.update(file.tell() - bar.n)
            while stream.read(BLOCK):  # up to the checksum at the end
                pass
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise ArchiveInvalid(
            f"{archive} is damaged ({error}); remove it and give the same command again: it is downloaded anew."
        ) from error
    return Unpacked(written, there)


def _place(member: tarfile.TarInfo, archive: Path, out: Path) -> Path:
    """Return where a file or folder belongs. Raises ArchiveInvalid or FolderUnwritable as `unpack` says."""
    name = PurePosixPath(member.name)
    place = out / name
    folder = place if member.isdir() else place.parent
    if not (member.isdir() or member.isfile()):
        found = "a link" if member.issym() or member.islnk() else "a device or pipe"
    elif name.is_absolute() or ".." in name.parts or "\0" in member.name or (member.isfile() and not name.parts):
        found = "a path that leads out of the folder"
    elif place.is_relative_to(archive.parent):
        found = "a path into the folder of the archive itself"
    elif not Path(os.path.realpath(folder)).is_relative_to(out.resolve()):
        raise FolderUnwritable(
            f"{archive} holds {member.name!r}, but {folder} is, or lies behind, a link that leads out of {out}: "
            "nothing of it was written; remove the link or give another folder."
        )
    else:
        return place
    raise ArchiveInvalid(
        f"{archive} holds {member.name!r}, {found}; wanted files and folders below {out} only: nothing of it was "
        "written, do not use this archive."
    )


def _is_there(place: Path, member: tarfile.TarInfo) -> bool:
    try:
        found = place.lstat()
    except FileNotFoundError:
        return False
    return stat.S_ISREG(found.st_mode) and found.st_size == member.size


def _write(content: IO[bytes], place: Path) -> None:
    # Not atomic_file: after a kill the next run meets the same temporary name again, so that none stays behind.
    place.parent.mkdir(parents=True, exist_ok=True)
    temporary = place.with_name(f".tmp-{place.name}")
    temporary.unlink(missing_ok=True)
    try:
        with temporary.open("xb") as file:
            shutil.copyfileobj(content, file, BLOCK)
        temporary.replace(place)
    finally:
        temporary.unlink(missing_ok=True)
