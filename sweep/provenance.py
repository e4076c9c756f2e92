"""Where a study's results come from, as MLflow tags: code, data, versions, machine."""

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

from sn7.prepared import Prepared
from sweep.server import shown
from sweep.study import Study
from sweep.terms import code_version

__all__ = ["commit", "provenance"]

UNKNOWN = "unknown"
VARIABLE, DIRTY = "SN7_COMMIT", "-dirty"
"""Of code that came without its history, as to the head of a cluster: the commit where it is from, and "-dirty"."""
PACKAGES = ("sn7", "torch", "fastai", "ray", "optuna", "mlflow", "rasterio")


def provenance(study: Study, prepared: Prepared) -> dict[str, str]:
    """Return the tags of a study's run."""
    return {
        "commit": commit(),
        "dirty": _dirty(),
        "code": code_version(),
        "data_fingerprint": prepared.fingerprint,
        "data": shown(study.data),
        "scenes": str(len(prepared.scenes)),
        "validation": study.validation,
        "folds": str(study.folds),
        "seed": str(study.seed),
        "trials": str(study.trials),
        "machine": f"{platform.system()} {platform.machine()}",
        **{f"version.{name}": version(name) for name in PACKAGES},
    }


def commit() -> str:
    """Return the commit of this project's checkout, or that of the variable, or "unknown"."""
    return _git("rev-parse", "HEAD") or os.environ.get(VARIABLE, "").removesuffix(DIRTY) or UNKNOWN


def _dirty() -> str:
    """Return whether the checkout differs from its commit: "true", "false" or "unknown"."""
    changes = _git("status", "--porcelain")
    if changes is None:
        told = os.environ.get(VARIABLE)
        return str(told.endswith(DIRTY)).lower() if told else UNKNOWN
    return str(bool(changes)).lower()


def _git(*arguments: str) -> str | None:
    """Return what git says of this project's checkout, or None where there is none."""
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
