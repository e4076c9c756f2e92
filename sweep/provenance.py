"""Where a study's results come from, as MLflow tags: code, data, versions, machine."""

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

from sn7.prepared import Prepared
from sweep.study import Study

__all__ = ["commit", "provenance"]

PACKAGES = ("sn7", "torch", "fastai", "ray", "optuna", "mlflow", "rasterio")


def provenance(study: Study, prepared: Prepared) -> dict[str, str]:
    """Return the tags of a study's run."""
    return {
        "commit": commit(),
        "dirty": str(bool(_git("status", "--porcelain"))).lower(),
        "data_fingerprint": prepared.fingerprint,
        "data": study.data,
        "scenes": str(len(prepared.scenes)),
        "validation": study.validation,
        "folds": str(study.folds),
        "seed": str(study.seed),
        "trials": str(study.trials),
        "machine": f"{platform.system()} {platform.machine()}",
        **{f"version.{name}": version(name) for name in PACKAGES},
    }


def commit() -> str:
    """Return the commit of this project's checkout, or "unknown" where there is none."""
    return _git("rev-parse", "HEAD") or "unknown"


def _git(*arguments: str) -> str:
    """Return what git says of this project's checkout, or nothing where there is none."""
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
