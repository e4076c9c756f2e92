"""Ctrl-C: once, the running trials checkpoint and the study ends in order; twice, now."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sn7 import signals

__all__ = ["StopFile", "Stopped", "stop_on_signals"]

STOP = ".stop"


class Stopped(Exception):
    """A training has ended because the study was asked to stop; its checkpoint is written."""


class StopFile:
    """A file in the study's folder whose existence asks every training of the study to checkpoint and end."""

    def __init__(self, results: Path) -> None:
        self.path = results / STOP

    def clear(self) -> None:
        """Forget an earlier request."""
        self.path.unlink(missing_ok=True)

    def request(self) -> None:
        """Ask."""
        self.path.touch()

    def requested(self) -> bool:
        """Return whether it was asked."""
        return self.path.exists()

    def obey(self) -> None:
        """Raise KeyboardInterrupt where it was asked."""
        if self.requested():
            raise KeyboardInterrupt


@contextmanager
def stop_on_signals(stop: StopFile) -> Iterator[Callable[[], bool]]:
    """Turn the first SIGINT or SIGTERM into a request to stop, the second into KeyboardInterrupt.

    Yields a function that says whether there was one.
    """
    stop.clear()
    try:
        with signals.stop_on_signals("stopping when the trainings have checkpoints", stop.request) as asked:
            yield asked
    finally:
        stop.clear()
