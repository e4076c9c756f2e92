"""Who can reach a started head from another host: nobody without the token."""

import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from knock import HEALTH
from netns import namespace, needs_namespaces
from nodes import Nodes

ROOT = Path(__file__).parents[2]
OURS = ("--head", "--port", "--autoscaling-config")
"""What the test starts a head with in its own way."""

pytestmark = [pytest.mark.slow, pytest.mark.alone, needs_namespaces]


def _start_of_head() -> tuple[dict[str, str], list[str]]:
    """Return the variables and the options that cluster.yaml starts its head's Ray with."""
    commands = yaml.safe_load((ROOT / "cluster.yaml").read_text())["head_start_ray_commands"]
    before, after = next(command for command in commands if "ray start" in command).split("ray start")
    options = [option for option in shlex.split(after) if option.split("=")[0] not in OURS]
    return dict(re.findall(r"(\w+)=([^\s;]+)", before)), options


def test_nothing_answers_without_the_token(tmp_path: Path) -> None:
    """A head as cluster.yaml has it: each port, over HTTP, gRPC with every method of Ray's services, and as text.

    A connection may come about, since Ray listens on all interfaces; what is said in it is a refusal. The one exception
    is gRPC's question for health, whose answer is that something lives there.
    """
    variables, options = _start_of_head()
    with namespace() as there, Nodes(tmp_path / "nodes.log", there.here, options, **variables) as nodes:
        time.sleep(10)  # agents come up after their node
        ports = nodes.listening()
        command = [*there.within, sys.executable, str(ROOT / "tests/support/knock.py"), there.here, *map(str, ports)]
        environment = {name: value for name, value in nodes.environment.items() if not name.startswith("RAY_")}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400, check=True)
    said = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert nodes.port in ports and len(ports) >= 5 and set(said) == set(map(str, ports))
    answered = {port: text for port, text in said.items() if text.startswith("ANSWERS")}
    healthy = {port: text for port, text in answered.items() if text == f"ANSWERS {HEALTH}: 2 bytes"}
    assert answered == healthy, "\n".join(f"{ports[int(port)]}: {text}" for port, text in answered.items())
    assert "refuses" in said.values()
