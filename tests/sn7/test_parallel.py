import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
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


SIGTERM = """
import pathlib, sys, time
from sn7.parallel import each
from sn7.predict.files import scratch_folder
from sn7.signals import exit_on_sigterm
if __name__ == "__main__":
    with exit_on_sigterm(), scratch_folder(pathlib.Path(sys.argv[1])):
        list(each(time.sleep, [0.2] * 600, 2, "test"))
"""


def test_sigterm_leaves_nothing_behind(tmp_path: Path) -> None:
    """Neither processes, which would wait for ever, nor temporary folders."""
    script, out = tmp_path / "script.py", tmp_path / "out"
    script.write_text(SIGTERM)
    with subprocess.Popen([sys.executable, str(script), str(out)], stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 60
        while len(workers := psutil.Process(process.pid).children(recursive=True)) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        process.terminate()
        _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM and "Traceback" not in said
    _, alive = psutil.wait_procs(workers, timeout=20)
    assert not alive and not out.exists()


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
