"""The folders of a training's attempts: each writes into one of its own, and only the newest is ever read.

    results/<study>/trials/0007/random-0              the first attempt
    results/<study>/trials/0007/random-0.attempt-2    the second one, in place of the first
    …/.attempt                                        in each of them: somebody has claimed it

A worker that was cut off from the network goes on until its machine notices, while its trial is given to another one.
Whatever the two do, and in whatever order: the driver numbers the attempts as it hands them out, each higher than all
before; a folder appears by one rename, which fails where the number is taken; an attempt claims all its folders before
it begins, writes nowhere else, and empties those of lower numbers alone. So what a superseded one still writes lies
where nobody looks, and one that comes too late to its claim harms nobody. That it also stops, once it sees a higher
number, saves time and nothing more.
"""

import errno
import re
import shutil
import tempfile
from pathlib import Path

from sn7.files import require_writable

__all__ = ["Superseded", "claim", "newest", "number", "remove_older", "require_newest", "taken", "training"]

LATER = re.compile(r"(.+)\.attempt-(\d+)")
CLAIMED = ".attempt"
KEPT = "checkpoint.pt"
"""What an attempt takes over from the one before it: a training depends on nothing else."""


class Superseded(Exception):
    """Another attempt at this training has begun; this one ends, and what it has written counts for nothing."""


def newest(base: Path) -> Path:
    """Return the folder of the newest attempt at the training of folder `base`; `base` itself where there is none."""
    return _numbered(base, max(taken(base), 1))


def taken(base: Path) -> int:
    """Return the number of the newest attempt at the training of folder `base`, 0 where there is none."""
    last = max(map(number, _attempts(base)), default=0)
    while _numbered(base, last + 1).exists():  # a listing may miss what is made, or removed, while it is read
        last += 1
    return last


def number(folder: Path) -> int:
    """Return which attempt's folder this is, from 1."""
    later = LATER.fullmatch(folder.name)
    return int(later[2]) if later else 1


def training(folder: Path) -> Path:
    """Return the folder by which a training is known, that of its first attempt, for the folder of any attempt."""
    later = LATER.fullmatch(folder.name)
    return folder.with_name(later[1]) if later else folder


def _numbered(base: Path, wanted: int) -> Path:
    return base if wanted == 1 else base.with_name(f"{base.name}.attempt-{wanted}")


def claim(base: Path, attempt: int) -> Path:
    """Make the folder of an attempt at the training of folder `base`, with the checkpoint of the newest one before.

    From then on this one is the newest, and the older ones are emptied. Raises Superseded where an attempt of this
    number or a higher one has been there before, FolderUnwritable where its parent cannot be written to.
    """
    require_writable(base.parent)
    folder = _numbered(base, attempt)
    while True:
        last = taken(base)
        if last >= attempt:
            raise _superseded(last, attempt)
        before = _numbered(base, max(last, 1))
        temporary = Path(tempfile.mkdtemp(prefix=f".tmp-{base.name}-", dir=base.parent))
        try:
            temporary.chmod(0o755)
            (temporary / CLAIMED).touch()  # a rename replaces an empty folder
            if (before / KEPT).exists():
                _link(before / KEPT, temporary / KEPT)
            elif taken(base) != last:
                continue  # another attempt has come between, and has it
            temporary.rename(folder)
        except FileNotFoundError:
            continue  # as above, a moment later
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):  # this machine may not have seen it at once
                raise _superseded(attempt, attempt) from error
            raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        _empty_older(base, folder)
        return folder


def _superseded(last: int, attempt: int) -> Superseded:
    return Superseded(f"attempt {last} has begun, and this is attempt {attempt}")


def _empty_older(base: Path, mine: Path) -> None:
    """Free the disk of older attempts; their folders stay while the trial runs, so that no number is claimed twice."""
    for folder in _attempts(base):
        if number(folder) < number(mine):
            (folder / CLAIMED).touch()
            for path in folder.iterdir():
                if path.name != CLAIMED:
                    _remove(path)


def _remove(path: Path) -> None:
    """Remove what a late writer may be replacing at this moment."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def require_newest(folder: Path) -> None:
    """Raise Superseded where there is a newer attempt than that of `folder`."""
    last = taken(training(folder))
    if last > number(folder):
        raise _superseded(last, number(folder))


def remove_older(base: Path) -> None:
    """Remove the folders of all attempts but the newest, once the trial has ended."""
    last = newest(base)
    for folder in _attempts(base):
        if folder != last:
            shutil.rmtree(folder, ignore_errors=True)


def _attempts(base: Path) -> list[Path]:
    there = base.parent.iterdir() if base.parent.is_dir() else ()
    return [path for path in there if training(path) == base]


def _link(source: Path, target: Path) -> None:
    """Give a file a second name, or copy it; no file is changed in place, so the two go their own ways."""
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, target)
