import os
import signal
from pathlib import Path

import pytest

from sweep.stopping import StopFile, stop_on_signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_once_asks_twice_ends(number: signal.Signals, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The first signal asks the trainings to stop, the second interrupts."""
    stop = StopFile(tmp_path)
    with pytest.raises(KeyboardInterrupt), stop_on_signals(stop) as asked:
        assert not stop.requested() and not asked()
        os.kill(os.getpid(), number)
        assert stop.requested() and asked()
        assert "again to stop now" in capfd.readouterr().err
        os.kill(os.getpid(), number)
        pytest.fail("the second signal has not interrupted")
    assert not stop.requested()


def test_an_old_request_is_forgotten_and_handlers_come_back(tmp_path: Path) -> None:
    """A study that was killed while it stopped does not stop again at once."""
    stop, before = StopFile(tmp_path), signal.getsignal(signal.SIGINT)
    stop.request()
    with stop_on_signals(stop) as asked:
        assert not stop.requested()
        stop.request()  # as a budget does
        assert not asked()
    assert signal.getsignal(signal.SIGINT) is before
