"""Ctrl-C and SIGTERM: once, what runs ends in order; twice, now."""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["stop_on_signals"]


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
        print(f"\n{said}; again to stop now", file=sys.stderr, flush=True)

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
