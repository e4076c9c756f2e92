"""Many images at once: a process a core, an image a task, results in order as they come."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import TypeVar

from tqdm import tqdm

from sn7.errors import ConfigError, WorkerLost

__all__ = ["each"]

Task = TypeVar("Task")
Result = TypeVar("Result")

TASKS_PER_WORKER = 16
"""Starting a process takes about as long as working on this many images."""


def each(
    function: Callable[[Task], Result],
    tasks: Sequence[Task],
    workers: int | None,
    what: str,
    done: int = 0,
    unit: str = "image",
) -> Iterator[Result]:
    """Yield what `function` makes of each task, an image or another `unit`, in order, with a bar from `done` on.

    `workers` images at a time; None is one a core, but no more than there is enough work for. The first error ends it,
    after the images under way.
    Raises ConfigError where `workers` is below 1, WorkerLost where one of the processes is killed.
    """
    if workers is not None and workers < 1:
        raise ConfigError(f"workers = {workers} cannot be used; wanted at least 1.")
    if workers is None:
        workers = min(_cores(), -(-len(tasks) // TASKS_PER_WORKER))
    with tqdm(total=done + len(tasks), initial=done, desc=what, unit=unit, disable=None) as bar:
        for result in _results(function, tasks, min(workers, len(tasks))):
            yield result
            bar.update()


def _results(function: Callable[[Task], Result], tasks: Sequence[Task], workers: int) -> Iterator[Result]:
    if workers <= 1:
        yield from map(function, tasks)
        return
    # spawn: a forked copy of a process with Ray's or torch's threads may hang
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            with _deaf_to_ctrl_c():  # map starts the processes
                results = pool.map(function, tasks)
            yield from results
        except BrokenProcessPool as error:
            raise WorkerLost(
                f"one of {workers} processes was killed, as a rule for want of memory; wanted all to the end: "
                "start again with fewer workers."
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


@contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """Let processes that are started here inherit that Ctrl-C is none of theirs: this one ends them, in a line."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _cores() -> int:
    """Return how many cores this process may use; macOS only tells how many there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
