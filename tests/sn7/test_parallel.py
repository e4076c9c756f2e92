import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sn7.errors import WorkerLost
from sn7.parallel import each


def _end(_: int) -> None:
    """End this process as the system does where memory runs out."""
    os._exit(1)


def test_a_process_that_is_killed_is_one_sentence() -> None:
    """Not Python's own traceback."""
    with pytest.raises(WorkerLost, match="one of 2 processes was killed"):
        list(each(_end, [1, 2, 3], 2, "test"))


def test_no_more_processes_than_tasks() -> None:
    """A single image is worked on here, whatever was asked for."""
    assert list(each(_process, [0], 16, "test")) == [os.getpid()]


def test_in_order_in_processes() -> None:
    """Two at a time."""
    assert list(each(str, [3, 1, 2], 2, "test")) == ["3", "1", "2"]


def _process(_: int) -> int:
    return os.getpid()


CTRL_C = """
import time
from sn7.parallel import each
if __name__ == "__main__":
    try:
        list(each(time.sleep, [0.5] * 60, 2, "test"))
    except KeyboardInterrupt:
        print("one line")
"""


@pytest.mark.parametrize("seconds", [0.5, 2.5])  # while the processes start, and while they work
def test_ctrl_c_is_the_parents_alone(seconds: float, tmp_path: Path) -> None:
    """A terminal sends it to all; the processes print nothing of their own."""
    script = tmp_path / "script.py"
    script.write_text(CTRL_C)
    with subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, process_group=0
    ) as process:
        time.sleep(seconds)
        os.killpg(process.pid, signal.SIGINT)
        said, _ = process.communicate(timeout=60)
    assert "SpawnProcess" not in said and said.count("Traceback") <= (seconds < 1)
