"""Nodes that cannot take part in a study: each is named, with one sentence, before anything is spent.

Hosts are loopback addresses; what a host has of its own is a mount that only its processes see, which takes root.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from nodes import Nodes

from sn7.prepared import Prepared, load_prepared

ROOT = Path(__file__).parents[2]
HEAD, FIT, UNFIT = "127.0.1.12", "127.0.1.13", "127.0.1.14"
ASK = """
import sys
from pathlib import Path
from sn7.errors import Sn7Error
from sweep.cluster import start_ray, stop_ray
from sweep.terms import make_terms
address, results, prepared = sys.argv[1:]
try:
    start_ray(address, make_terms(Path(results), prepared))
except Sn7Error as error:
    sys.exit(str(error))
"""
"""What the driver does before a study."""

pytestmark = [pytest.mark.slow, pytest.mark.alone]
root = pytest.mark.skipif(os.getuid() != 0, reason="a mount of a host's own takes root")


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """Run a head."""
    with Nodes(tmp_path_factory.mktemp("unfit") / "nodes.log", HEAD) as nodes:
        yield nodes


@pytest.fixture
def prepared(make_prepared: Callable[..., Prepared], tmp_path: Path) -> Prepared:
    """Return a prepared set, beside a study's folder."""
    (tmp_path / "study").mkdir()
    return make_prepared(scenes=1)


def _mounted(options: str, place: Path) -> list[str]:
    """Return what runs a command where something else is mounted at a place."""
    return ["unshare", "-m", "sh", "-c", f'mount {options} {place} && exec "$@"', "sh"]


def _ask(nodes: Nodes, prepared: Prepared, **variables: str) -> str:
    """Return what the driver says of the nodes; nothing where all are fit."""
    done = subprocess.run(
        [sys.executable, "-c", ASK, nodes.address, str(prepared.folder.parent / "study"), prepared.place],
        env={**nodes.environment, **variables},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.stderr.count("Traceback") == 0, done.stderr
    return done.stderr


def _other_code(folder: Path) -> Path:
    """Return a checkout of another version."""
    for package in ("sn7", "sweep"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "sn7/errors.py").write_text((folder / "sn7/errors.py").read_text() + "\n# another version\n")
    return folder


def test_an_old_checkout_on_a_node_does_no_harm(nodes: Nodes, prepared: Prepared, tmp_path: Path) -> None:
    """The driver's code is shipped, and goes first."""
    nodes.add(FIT, PYTHONPATH=str(_other_code(tmp_path / "old")))
    try:
        assert _ask(nodes, prepared) == ""
    finally:
        nodes.kill(FIT)


def test_a_node_with_other_code(nodes: Nodes, prepared: Prepared, tmp_path: Path) -> None:
    """One whose Python loads another version before anything else, whatever is shipped."""
    old = _other_code(tmp_path / "old")
    (old / "sitecustomize.py").write_text(f"import sys\nsys.path.insert(0, {str(old)!r})\nimport sn7, sweep\n")
    nodes.add(UNFIT, PYTHONPATH=str(old))
    try:
        said = _ask(nodes, prepared)
    finally:
        nodes.kill(UNFIT)
    assert said.startswith(f"node {UNFIT} runs other code than the driver (version ") and f"from {old}" in said


@root
def test_a_node_without_the_shared_folder(nodes: Nodes, prepared: Prepared, tmp_path: Path) -> None:
    """Its folder of results is a disk of its own."""
    nodes.add(UNFIT, within=_mounted("-t tmpfs none", tmp_path / "study"))
    try:
        said = _ask(nodes, prepared)
    finally:
        nodes.kill(UNFIT)
    assert said.startswith(
        f"node {UNFIT} does not share the driver's folder {tmp_path / 'study'} (it has no such study"
    )


@root
def test_a_node_with_other_data(nodes: Nodes, prepared: Prepared, tmp_path: Path) -> None:
    """The folder is there, and holds another set."""
    other = shutil.copytree(prepared.folder, tmp_path / "other")
    (other / "index.json").write_text((other / "index.json").read_text().replace("f" * 64, "e" * 64))
    assert load_prepared(other).fingerprint == "e" * 64
    nodes.add(UNFIT, within=_mounted(f"--bind {other}", prepared.folder))
    try:
        said = _ask(nodes, prepared)
    finally:
        nodes.kill(UNFIT)
    assert said.startswith(
        f"node {UNFIT} has other data than the driver: {prepared.folder} has changed (fingerprint eeee"
    )


def test_a_wrong_token(nodes: Nodes, prepared: Prepared) -> None:
    """In seconds, where Ray takes the better part of a minute and does not say it."""
    said = _ask(nodes, prepared, RAY_AUTH_TOKEN="0" * 64)
    said = said.splitlines()[-1]  # Ray's own log may precede it
    assert said.startswith(f"the Ray cluster at {nodes.address} refuses our token; set RAY_AUTH_TOKEN")
