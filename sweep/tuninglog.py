"""What searches without training have tried: an Optuna journal that a full disk or a lost machine may have torn."""

import os
from pathlib import Path

from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from sn7.errors import ResultsConflict

__all__ = ["open_log"]


def open_log(path: Path) -> JournalStorage:
    """Open the journal, or a new one, without its last line where that is torn.

    Raises ResultsConflict where it is damaged elsewhere.
    """
    if path.exists():
        os.truncate(path, path.read_bytes().rfind(b"\n") + 1)
    try:
        return JournalStorage(JournalFileBackend(str(path)))
    except (ValueError, KeyError, TypeError) as error:
        raise ResultsConflict(
            f"{path} cannot be read ({error}); remove it: what was tried is tried again, and nothing is trained."
        ) from error
