"""Ctrl-C and SIGTERM: once, what runs ends in order; twice, now. And how work that takes long is asked to end."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

__all__ = ["LeaveQuestion", "exit_on_sigterm", "leave_if_asked", "stop_on_signals"]

STDERR = 2

LeaveQuestion = Callable[[], Exception | None]
"""Asked now and then by work that takes long; what it returns ends the work, and passes through."""


def leave_if_asked(question: LeaveQuestion | None) -> None:
    """Raise what the question returns, if it is one and returns anything."""
    if question and (reason := question()):
        raise reason


@contextmanager
def exit_on_sigterm() -> Iterator[None]:
    """Let SIGTERM end this process as an exception does: its worker processes and temporary folders go with it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def stop_on_signals(said: str, ask: Callable[[], None] | None = None) -> Iterator[Callable[[], bool]]:
    """Answer the first SIGINT or SIGTERM with the words `said` and by calling `ask`, the second by KeyboardInterrupt.

    Yields a function that says whether there was one.
    """
    asked = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        if ask:
            ask()
        # Not by print(): the thread that was interrupted may hold a lock that another one, who prints, waits for.
        with suppress(OSError):
            os.write(STDERR, f"\n{said}; again to stop now\n".encode())

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
