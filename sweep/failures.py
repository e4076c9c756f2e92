"""Why an attempt at a trial has ended without a result, and what is to be done about it."""

import re
from dataclasses import dataclass
from typing import Literal

from ray.exceptions import (
    ActorUnavailableError,
    LocalRayletDiedError,
    NodeDiedError,
    RayActorError,
    RayTaskError,
    WorkerCrashedError,
)

from sn7.errors import NodeUnfit, PreparedInvalid, Sn7Error, StorageUnavailable
from sn7.files import is_full
from sweep.fence import Superseded
from sweep.notice import Taken
from sweep.stopping import Stopped

__all__ = ["FREE", "LOST", "MACHINE_DIED", "Failure", "classify", "is_final"]

NODE_DIED = ("node has died", "node was terminated", "node is dead", "node died", "node failure", "owner has died")
"""What Ray writes of an actor that went down with its machine; the exception has no field for it."""

MACHINE_DIED = (LocalRayletDiedError, NodeDiedError)
"""What Ray raises of a task that went down with its machine."""
LOST = (*MACHINE_DIED, WorkerCrashedError)
"""And of one whose process did, with its machine or alone."""
FREE = (Superseded, Taken)
"""What ends an attempt for no fault of its own: its trial is another worker's by now, or its machine is taken away."""
LONGEST = 240
"""Characters of a reason; Ray's own last lines run to paragraphs."""
DIED_S, UNREACHED_S = 30.0, 90.0
"""How long a machine may take to be missed: its node agent has just told of the process's end, or nobody has.

Ray misses one that was killed after 14 s, and one that was cut off from the network after 66 s (measured)."""
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class Failure:
    """An attempt that has ended without a result."""

    kind: Literal["stopped", "lost", "doubtful", "full", "unfit", "final", "other"]
    """`stopped`: as it was asked to. `lost`: the machine went away, which costs nothing. `doubtful`: the process did,
    and whether its machine has too is known after `doubt_s`. `full`: the disk is, which ends the search in order.
    `unfit`: so does a machine that cannot take part. `final`: trying again would end alike. `other`: counted against
    `max_failures`."""
    reason: str
    """One line."""
    traceback: str
    doubt_s: float = 0.0


def classify(error: BaseException | None) -> Failure:
    """Return what kind of failure ended an attempt.

    A loss that is not finite (TrainingDiverged), or a configuration that cannot be trained, is final: both are an
    Sn7Error. Ray tells of a process's end before it knows of its machine's.
    """
    text = COLOUR.sub("", str(error))
    reason = _last_line(text)
    cause = error.cause if isinstance(error, RayTaskError) else error
    if isinstance(cause, RayActorError):
        if cause.preempted or any(words in text.lower() for words in NODE_DIED):
            return Failure("lost", reason, text)
        return Failure("doubtful", reason, text, UNREACHED_S if isinstance(cause, ActorUnavailableError) else DIED_S)
    if isinstance(cause, Stopped):
        return Failure("stopped", reason, text)
    if isinstance(cause, FREE):
        return Failure("lost", reason, text)
    if isinstance(cause, NodeUnfit):
        return Failure("unfit", str(cause), text)
    if isinstance(cause, BaseException) and is_full(cause):
        return Failure("full", reason, text)
    return Failure("final" if is_final(cause) else "other", reason, text)


def is_final(error: BaseException | None) -> bool:
    """Return whether another attempt would end alike: not where the data could not be reached, or is being changed."""
    return isinstance(error, Sn7Error) and not isinstance(error, StorageUnavailable | PreparedInvalid)


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:LONGEST] if lines else "no reason was left"
