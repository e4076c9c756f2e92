"""Trainings beyond the search, each a Ray task: folds of the cross-validation, other seeds of the best trials.

A training that has been done, in an earlier start or by the search itself, is not done again; one that was cut off
goes on from its checkpoint.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import ray
from ray.util.queue import Empty, Queue
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sn7.config import TrainConfig
from sn7.errors import NodeUnfit
from sn7.files import is_full
from sn7.folds import Split
from sn7.prepared import Prepared
from sn7.train import EpochMetrics, read_result, train
from sweep.board import Board
from sweep.budget import Budget
from sweep.failures import FREE, LOST, is_final
from sweep.fence import newest, require_newest, taken
from sweep.notice import Taken, own_notice
from sweep.stopping import StopFile, Stopped
from sweep.study import Study
from sweep.terms import fetch_prepared, require_met
from sweep.trial import Urgent, claim_unfinished, past_epochs, remove_damaged
from sweep.usage import Place, keep_to_share, place
from sweep.versions import warning_of

__all__ = ["Fit", "result", "run_fits"]

Told = Callable[["Fit", Sequence[EpochMetrics]], None]
"""What hears of a training: when it begins, with the epochs it has behind it, and after each epoch, with that one."""
After = Callable[["Fit", Path, Prepared], None]
"""What is done with a trained model, in the same task and in its folder."""


@dataclass(frozen=True)
class Fit:
    """One training."""

    trial: int
    label: str
    """What tells it from the other trainings of its trial, for people."""
    key: int
    """The same as a number: the fold, or the seed."""
    config: TrainConfig
    split: Split
    base: Path
    """Folder of its first attempt."""
    keep: Literal["best", "last"]

    @property
    def out(self) -> Path:
        """Folder of its newest attempt."""
        return newest(self.base)


def run_fits(
    fits: Sequence[Fit],
    what: str,
    study: Study,
    results: Path,
    prepared: str | Path,
    budget: Budget,
    after: After | None,
    told: Told,
) -> Iterator[tuple[Fit, str]]:
    """Run trainings on the connected cluster; yield each as it is done, with its error.

    `told` hears of each as it goes; one that has been done already does not begin, and is only yielded.
    The error is empty where all went well, and does not stop the others. Raises KeyboardInterrupt where the study
    was asked to stop.
    """
    left = sum(fit.config.epochs - len(past_epochs(fit.out)) for fit in fits)
    board = Board(len(fits), left, what, spent=lambda: str(budget.spent))
    # Beside the driver, without which nothing goes on; elsewhere it would go down with any machine that does.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    progress = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})
    # Never tried again by Ray itself, which knows of no attempts and their numbers.
    task = ray.remote(num_cpus=study.resources.cpu, num_gpus=float(study.resources.gpu), max_retries=0)(_run)
    attempts, lost, counted = Counter[int](), Counter[int](), Counter[int]()

    def submit(index: int) -> ray.ObjectRef:
        attempts[index] = 1 + max(attempts[index], taken(fits[index].base))
        return task.remote(index, fits[index], attempts[index], results, prepared, after, progress)

    waiting = {submit(index): index for index in range(len(fits))}
    stopped, stop = False, StopFile(results)
    shown: dict[int, float] = {}
    try:
        while waiting:
            done, _ = ray.wait(list(waiting), timeout=0.5)
            room = budget.tick(len(waiting), ray.nodes())
            for index, epochs, begun in _drain(progress):
                told(fits[index], epochs)
                if begun and (warning := warning_of(begun.node, f"node {begun.host}", begun.versions)):
                    board.say(warning)
                for metrics in epochs[-1:] if not begun else ():
                    best = fits[index].keep == "best"
                    shown[index] = max(metrics.dice, shown.get(index, 0.0)) if best else metrics.dice
                    board.epoch(index, _where(fits[index], metrics), shown[index])
            board.tick()
            if not room and stop.requested():  # nothing runs that could end in order, and machines may never come
                raise KeyboardInterrupt
            for reference in done:
                index = waiting.pop(reference)
                error, end = _error(reference)
                lost[index] += end == "lost"
                counted[index] += end == "counts" or lost[index] > MOST_LOST
                if error and end != "final" and counted[index] <= study.max_failures:
                    board.retry(index, error)
                    waiting[submit(index)] = index
                    continue
                stopped |= error is STOPPED
                board.end(index, "PREEMPTED" if error is STOPPED else "FAILED" if error else "COMPLETE")
                if error is not STOPPED:
                    yield fits[index], error
    finally:
        board.close()
        progress.shutdown()
    if stopped:
        raise KeyboardInterrupt


STOPPED = "stopped"
MOST_LOST = 10
"""Losses of a training's process or machine that are no failures: more of them are its own doing."""


def _error(reference: ray.ObjectRef) -> tuple[str, Literal["free", "lost", "final", "counts"]]:
    """Return why a task has failed, in a line, or nothing; and what another attempt is: free, in vain, or counted.

    Of one that was lost with its process, or its machine, it is free up to MOST_LOST.

    Raises what says that the disk is full, or that a node cannot take part: others would fail as well.
    """
    try:
        result(reference)
    except Stopped:
        return STOPPED, "final"
    except FREE as error:
        return str(error), "free"
    except Exception as error:
        if isinstance(error, NodeUnfit):
            raise NodeUnfit(f"a node that has joined {error}; then go on with --resume.") from error
        if is_full(error):
            raise
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        if isinstance(error, LOST):
            return reason, "lost"
        return reason, "final" if is_final(error) else "counts"
    return "", "final"


def result(reference: ray.ObjectRef) -> Any:
    """Return what a Ray task has returned, or raise what it has raised."""
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error  # ours to report; Ray's own is the worker's traceback as text


def _where(fit: Fit, metrics: EpochMetrics) -> str:
    return f"trial {fit.trial} {fit.label} epoch {metrics.epoch}/{fit.config.epochs}"


def _drain(progress: Queue) -> Iterator[tuple[int, Sequence[EpochMetrics], Place | None]]:
    """Yield what trainings have said: which one, epochs, and where it begins with them behind it, if it does."""
    while True:
        try:
            yield progress.get_nowait()
        except Empty:
            return


def _run(
    index: int, fit: Fit, attempt: int, results: Path, prepared: str | Path, after: After | None, progress: Queue
) -> None:
    require_met()
    keep_to_share()
    urgent = Urgent(StopFile(results), own_notice())
    if urgent() and urgent.stopping:
        raise Stopped
    out = claim_unfinished(fit.base, attempt)
    remove_damaged(out)
    data = fetch_prepared(str(prepared), urgent.leave)

    def report(metrics: EpochMetrics) -> None:
        require_newest(out)
        progress.put((index, (metrics,), None))
        # An epoch that was over just before has no checkpoint: it leaves within the next, or it is the last.
        if urgent.stopping:
            raise Stopped
        if urgent.taken:
            raise Taken("its machine is being taken away")

    if read_result(out) is None:
        progress.put((index, past_epochs(out), place()))
        train(fit.config, data, fit.split, out, report, fit.keep, resume=True, urgent=urgent, leave=urgent.leave)
    if after:
        after(fit, out, data)
