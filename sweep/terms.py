"""What every machine of a cluster must have in common with the driver: its code, its data, its folder of results.

The driver ships its code, and with it these terms, to every worker. It asks each node at the start, before anything is
spent, whether it can meet them; nodes that join later are asked by the first attempt that lands on them.
"""

import hashlib
import json
import os
import platform
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import sn7
import sweep
from sn7.errors import DiskFull, FolderUnwritable, NodeUnfit, PreparedInvalid, StorageUnavailable
from sn7.files import require_writable
from sn7.prepared import Prepared, load_prepared
from sn7.signals import LeaveQuestion, leave_if_asked
from sn7.storage import is_url

__all__ = ["MARK", "Terms", "code_version", "fetch_prepared", "make_terms", "require_met", "shipped"]

VARIABLE = "SN7_TERMS"
MARK = ".cluster"
"""File in a study's folder by which a node knows that it looks at the driver's own."""
CODE = (sn7, sweep)
FETCH_S, PAUSE_S = 60.0, 10.0
"""How long a machine tries to reach the data, and between two tries."""


@dataclass(frozen=True)
class Terms:
    """What the driver has."""

    results: str
    """The study's folder."""
    mark: str
    """What the file MARK there holds, anew for each start of a driver."""
    prepared: str
    """The prepared set's place with its fingerprint."""
    code: str
    """See code_version."""
    final: Sequence[str] = ()
    """Folders of the final scenes, where they are predicted from a folder that all must have."""


def make_terms(results: Path, prepared: str, final: Sequence[str] = ()) -> Terms:
    """Return the terms of a start of the driver, and leave its mark in the study's folder."""
    terms = Terms(str(results), secrets.token_hex(8), prepared, code_version(), final)
    (results / MARK).write_text(terms.mark, encoding="utf-8")
    return terms


def code_version() -> str:
    """Return a fingerprint of the code that this process imports: all modules of both packages."""
    digest = hashlib.sha256()
    for package in CODE:
        folder = Path(str(package.__file__)).parent
        for path in sorted(folder.rglob("*.py")):
            digest.update(f"{package.__name__}/{path.relative_to(folder)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


@contextmanager
def shipped(terms: Terms) -> Iterator[dict[str, Any]]:
    """Yield the runtime environment of a job whose workers run this very code, and know the terms.

    Only the two packages are shipped, from a copy: Ray would take all of a checkout, data and results too, up to its
    limit, and would leave out what a .gitignore names. As a working folder, because Ray else puts the folders that the
    driver was started in before everything else on each node, with whatever code lies there.
    """
    with tempfile.TemporaryDirectory(prefix="sn7-code-") as folder:
        for package in CODE:
            source = Path(str(package.__file__)).parent
            shutil.copytree(source, Path(folder, package.__name__), ignore=shutil.ignore_patterns("__pycache__"))
        yield {"working_dir": folder, "env_vars": {VARIABLE: json.dumps(asdict(terms))}}


def require_met() -> None:
    """Raise NodeUnfit where this process's machine does not meet the terms; without any, it is the driver's own."""
    if VARIABLE in os.environ:
        terms = Terms(**json.loads(os.environ[VARIABLE]))
        if lack := _code(terms) or _results(terms) or _data(terms) or _final(terms):
            raise NodeUnfit(lack)


def _code(terms: Terms) -> str:
    found = code_version()
    if found == terms.code:
        return ""
    return (
        f"runs other code than the driver (version {found[:12]} from {Path(str(sn7.__file__)).parents[1]}; wanted "
        f"{terms.code[:12]}): take that off its PYTHONPATH, or start the node again"
    )


def _results(terms: Terms) -> str:
    folder = Path(terms.results)
    try:
        mark = (folder / MARK).read_text(encoding="utf-8")
        require_writable(folder)
    except FileNotFoundError:
        found = "it has no such study there"
    except Exception as error:  # noqa: BLE001 - whatever a mounted file system raises
        found = f"{type(error).__name__}: {error}"
    else:
        if mark == terms.mark:
            return ""
        found = "it has another study there"
    return (
        f"does not share the driver's folder {folder} ({found}): mount one file system on all machines, such as NFS or "
        "EFS, and give a --results folder on it"
    )


def _data(terms: Terms) -> str:
    """Return what is wrong with a folder of prepared data; a URL's copy is fetched, and checked, by the first trial."""
    if is_url(terms.prepared):
        return ""
    try:
        load_prepared(terms.prepared)
    except PreparedInvalid as error:
        return f"has other data than the driver: {str(error).rstrip('.')}"
    return ""


def _final(terms: Terms) -> str:
    missing = [folder for folder in terms.final if not Path(folder).is_dir()]
    if not missing:
        return ""
    return (
        f"does not see {missing[0]}, one of {len(terms.final)} final scenes that the study ends with: put the data set "
        "on the file system that all machines share, or give its URL, or a prepared set, which has no such scenes"
    )


def fetch_prepared(place: str, leave: LeaveQuestion | None = None) -> Prepared:
    """Open the study's data on this machine, which takes a copy of what is at a URL until `leave` says otherwise.

    Raises NodeUnfit where it cannot reach them for a minute, or keep them: another machine may, so no trial has failed;
    and else what load_prepared raises.
    """
    deadline = time.monotonic() + FETCH_S
    while True:
        try:
            return load_prepared(place, leave)
        except StorageUnavailable as error:
            if time.monotonic() > deadline:
                raise _without_data(error) from error
        except (DiskFull, FolderUnwritable) as error:  # of its cache
            raise _without_data(error) from error
        leave_if_asked(leave)
        time.sleep(PAUSE_S)


def _without_data(error: Exception) -> NodeUnfit:
    return NodeUnfit(f"({platform.node()}) has no data: {str(error).rstrip('.')}")
