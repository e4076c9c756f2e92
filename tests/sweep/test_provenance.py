import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from sn7.prepared import Prepared
from sweep import provenance as module
from sweep.provenance import provenance
from sweep.studyfile import load_study
from sweep.terms import code_version


@pytest.mark.parametrize("changed", [None, False, True])
def test_the_code_of_a_study(
    changed: bool | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    write_study: Callable[..., Path],
    make_prepared: Callable[..., Prepared],
) -> None:
    """Its commit, and whether the checkout differs from it; where there is none, that is unknown, and not clean."""
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    (checkout / "code.py").write_text("")
    monkeypatch.delenv("SN7_COMMIT", raising=False)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    monkeypatch.setattr(module, "__file__", str(checkout / "code.py"))
    if changed is not None:
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        for words in (["init", "-q"], ["add", "."], [*who, "commit", "-q", "-m", "first"]):
            subprocess.run(["git", *words], cwd=checkout, check=True)
    if changed:
        (checkout / "more.py").write_text("")
    tags = provenance(load_study(write_study()), make_prepared(scenes=1))
    assert tags["dirty"] == {None: "unknown", False: "false", True: "true"}[changed]
    assert (tags["commit"] == "unknown") == (changed is None)
    assert tags["code"] == code_version()


@pytest.mark.parametrize(
    ("told", "at", "dirty"), [("1f2e", "1f2e", "false"), ("1f2e-dirty", "1f2e", "true"), ("", "unknown", "unknown")]
)
def test_code_that_came_without_its_checkout(
    told: str,
    at: str,
    dirty: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    write_study: Callable[..., Path],
    make_prepared: Callable[..., Prepared],
) -> None:
    """The head of a cluster has no history: whoever starts the study there says where the code is from."""
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    monkeypatch.setattr(module, "__file__", str(tmp_path / "code.py"))
    monkeypatch.setenv("SN7_COMMIT", told)
    tags = provenance(load_study(write_study()), make_prepared(scenes=1))
    assert (tags["commit"], tags["dirty"]) == (at, dirty)


def test_the_place_of_the_data_is_told_without_secrets(
    write_study: Callable[..., Path], make_prepared: Callable[..., Prepared]
) -> None:
    """The tag `data` stands in MLflow and in the report."""
    study = replace(load_study(write_study()), data="sftp://u:hidden@host/data?token=hidden")
    assert provenance(study, make_prepared(scenes=1))["data"] == "sftp://host/data"
