"""A prepared set in a folder → the same set at a URL."""

import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec

from sn7.errors import StorageUnavailable
from sn7.storage import LAST, chunks, listing, reaching, save_state

__all__ = ["publish"]


def publish(folder: Path, url: str) -> int:
    """Bring a prepared set at `url` up to date with that of the local `folder`; return how many files were sent.

    An image's arrays are sent where the description beside them tells of other pixels than the one there. While
    anything changes there is no index there. Raises StorageUnavailable where the URL cannot be written, or where
    another machine publishes there at the same time.
    """
    with reaching(url):
        fs, root = fsspec.core.url_to_fs(url)
        fs.makedirs(root, exist_ok=True)
        here = sorted(path.relative_to(folder).as_posix() for path in folder.glob("[!.]*/[!.]*"))
        there = listing(fs, root)
        changed = _changed(fs, root, folder, here, there)
        stale = set(there) - {*here, LAST}
        index = (folder / LAST).read_bytes()
        if changed or stale or LAST not in there or fs.cat_file(f"{root}/{LAST}") != index:
            if LAST in there:
                fs.rm_file(f"{root}/{LAST}")
            for scene in sorted({PurePosixPath(name).parent for name in changed}):
                fs.makedirs(f"{root}/{scene}", exist_ok=True)  # S3 has no folders, others have
            for names in chunks(changed, "send"):
                fs.put([str(folder / name) for name in names], [f"{root}/{name}" for name in names])
            for name in stale:
                fs.rm_file(f"{root}/{name}")
            fs.pipe_file(f"{root}/{LAST}", index)
        now = listing(fs, root)
        if set(now) != {*here, LAST} or fs.cat_file(f"{root}/{LAST}") != index:
            raise StorageUnavailable(f"{url} was changed by somebody else meanwhile; publish again, one at a time.")
        save_state(folder, now)
    return len(changed)


def _changed(fs: Any, root: str, folder: Path, here: Sequence[str], there: Mapping[str, Any]) -> list[str]:
    """Return the local files that the URL lacks or has otherwise, arrays before their descriptions."""
    arrays = defaultdict(list)
    for name in here:
        if name.endswith(".npy"):
            arrays[re.sub(r"(\.x\d|\.footprints)?\.npy$", ".json", name)].append(name)
    described = [name for name in here if name.endswith(".json") and name in there]
    contents = fs.cat([f"{root}/{name}" for name in described]) if described else {}
    same = set()
    for name in described:
        ours, theirs = (folder / name).read_bytes(), contents[f"{root}/{name}"]
        whole = all(array in there and there[array][0] == (folder / array).stat().st_size for array in arrays[name])
        if whole and _pixels(ours) == _pixels(theirs):
            same |= {*arrays[name], name} if ours == theirs else {*arrays[name]}
    return sorted((name for name in here if name not in same), key=lambda name: (name.endswith(".json"), name))


def _pixels(description: bytes) -> str:
    """Return the checksum of the pixels that a description tells of; none where it is damaged."""
    try:
        return str(json.loads(description)["row"]["sha256"])
    except (ValueError, KeyError, TypeError):
        return ""
