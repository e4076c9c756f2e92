"""The folders of a training's attempts: each writes into one of its own, and only the newest is ever read.

    results/<study>/trials/0007/random-0              the first attempt
    results/<study>/trials/0007/random-0.attempt-2    the second one, in place of the first
    …/.attempt                                        in each of them: somebody has claimed it

A worker that was cut off from the network trains on until its machine notices, while its trial is given to another
one. Whatever the two do, and in whatever order: a folder appears by one rename, which fails where the number is taken;
an attempt claims all its folders before it begins, and writes nowhere else; so what a superseded one still writes lies
where nobody looks. That it also stops, once it sees a newer folder, saves time and nothing more.
"""

import errno
import re
import shutil
import tempfile
import time
from pathlib import Path

from sn7.files import require_writable

__all__ = ["Superseded", "claim", "newest", "number", "remove_older", "require_newest", "training"]

LATER = re.compile(r"(.+)\.attempt-(\d+)")
CLAIMED = ".attempt"
KEPT = "checkpoint.pt"
"""What an attempt takes over from the one before it: a training depends on nothing else."""


class Superseded(Exception):
    """Another attempt at this training has begun; this one ends, and what it has written counts for nothing."""


def newest(base: Path) -> Path:
    """Return the folder of the newest attempt at the training of folder `base`; `base` itself where there is none."""
    last = max(map(number, _attempts(base)), default=0)
    while _numbered(base, last + 1).exists():  # a listing may miss what is made, or removed, while it is read
        last += 1
    return _numbered(base, max(last, 1))


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


def claim(base: Path) -> Path:
    """Make a folder for a new attempt at the training of folder `base`, with the checkpoint of the newest one before.

    From then on this one is the newest, and the older ones are emptied. Raises FolderUnwritable where its parent
    cannot be written to.
    """
    require_writable(base.parent)
    while True:
        before = newest(base)
        folder = _numbered(base, number(before) + 1) if before.exists() else base
        temporary = Path(tempfile.mkdtemp(prefix=f".tmp-{base.name}-", dir=base.parent))
        try:
            temporary.chmod(0o755)
            (temporary / CLAIMED).touch()  # a rename replaces an empty folder
            if (before / KEPT).exists():
                _link(before / KEPT, temporary / KEPT)
            temporary.rename(folder)
        except FileNotFoundError:
            continue  # a faster attempt has emptied what this one would take over
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            time.sleep(0.1)  # a faster attempt has the number, and this machine may not see it at once
            continue
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        _empty_older(base, folder)
        return folder


def _empty_older(base: Path, mine: Path) -> None:
    """Free the disk of older attempts; their folders stay while the trial runs, so that no number is given twice."""
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
    now = newest(training(folder))
    if number(now) > number(folder):
        raise Superseded(f"attempt {number(now)} has begun, and this is attempt {number(folder)}")


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
