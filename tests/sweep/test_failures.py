import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayActorError, RayTaskError

from sn7.errors import DiskFull, NodeUnfit, PreparedInvalid, StorageUnavailable, TrainingDiverged
from sweep.failures import classify
from sweep.fence import Superseded
from sweep.notice import Taken
from sweep.stopping import Stopped


def _raised(cause: Exception) -> RayTaskError:
    """Return what Tune gets of an exception in a worker."""
    return RayTaskError(
        "train", "Traceback (most recent call last):\n  here\n" + repr(cause), cause
    ).as_instanceof_cause()


def test_a_loss_that_is_not_finite_is_final() -> None:
    """Another attempt with the same seed would end alike."""
    failure = classify(_raised(TrainingDiverged("the loss became nan")))
    assert failure.kind == "final"
    assert failure.reason == "TrainingDiverged('the loss became nan')"
    assert "\n  here\n" in failure.traceback and "\x1b" not in failure.traceback


def test_anything_else_that_is_raised_counts() -> None:
    """A bug, a network that is away."""
    assert classify(_raised(OSError("connection reset"))).kind == "other"
    assert classify(None).kind == "other"
    for error in (StorageUnavailable("s3://b cannot be reached"), PreparedInvalid("s3://b has changed")):
        assert classify(_raised(error)).kind == "other"  # the data may be there again


def test_a_full_disk_is_no_fault_of_the_trial() -> None:
    """As the system says it, and as this project does."""
    for error in (OSError(28, "No space left on device"), DiskFull("r cannot be written: the disk is full")):
        assert classify(_raised(error)).kind == "full"


def test_other_hands_are_no_fault_of_the_trial() -> None:
    """Its machine is taken away, another worker has it by now; a machine that cannot take part ends the search."""
    assert classify(_raised(Taken("its machine is being taken away"))).kind == "lost"
    assert classify(_raised(Superseded("attempt 2 has begun"))).kind == "lost"
    unfit = classify(_raised(NodeUnfit("does not share the driver's folder")))
    assert (unfit.kind, unfit.reason) == ("unfit", "does not share the driver's folder")
    assert classify(_raised(Stopped("the study was asked to stop"))).kind == "stopped"


@pytest.mark.parametrize(
    ("error", "kind", "doubt"),
    [
        (RayActorError(preempted=True), "lost", 0),  # taken away with a notice
        (RayActorError(error_msg="The actor died because its node has died. Node Id: 7"), "lost", 0),
        (ActorDiedError(), "doubtful", 30),  # killed: with its machine, or alone
        (RayActorError(error_msg="The actor died unexpectedly: worker exit 1"), "doubtful", 30),
        (ActorUnavailableError("Socket closed", None), "doubtful", 90),  # a machine without power says nothing
    ],
)
def test_a_worker_that_died(error: RayActorError, kind: str, doubt: float) -> None:
    """With its machine, where Ray says so; else that is to be seen."""
    failure = classify(error)
    assert (failure.kind, failure.doubt_s) == (kind, doubt)


def test_the_reason_is_one_line() -> None:
    """The last one that says something."""
    assert classify(RuntimeError("first\nlast words\n\n")).reason == "last words"
