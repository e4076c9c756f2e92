"""Another host on this machine: a network namespace with one wire to us, which can be cut. Takes root and iproute2."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

__all__ = ["Namespace", "namespace", "needs_namespaces"]


def _reason() -> str:
    """Return why there can be no other host here."""
    if os.getuid() != 0:
        return "network namespaces take root"
    if not shutil.which("ip"):
        return "network namespaces take iproute2's `ip`"
    probe = subprocess.run(["unshare", "-n", "true"], capture_output=True, check=False)
    return "this system allows no network namespaces" if probe.returncode else ""


needs_namespaces = pytest.mark.skipif(bool(reason := _reason()), reason=reason)


class Namespace:
    """The other host: `here` is our end of the wire, `there` its own; `within` runs a command there."""

    def __init__(self) -> None:
        number = os.getpid() % 250
        self.name, self.wire = f"sn7-{os.getpid()}", f"sn7v{os.getpid()}"[:14]
        self.here, self.there = f"10.213.{number}.1", f"10.213.{number}.2"
        self.within = ["ip", "netns", "exec", self.name]

    def cut(self) -> None:
        """Cut the wire."""
        _ip("link", "set", self.wire, "down")


@contextmanager
def namespace() -> Iterator[Namespace]:
    """Make the other host, and remove it at the end of the block."""
    there = Namespace()
    _ip("netns", "add", there.name)
    try:
        _ip("link", "add", there.wire, "type", "veth", "peer", "name", "wire", "netns", there.name)
        _ip("addr", "add", f"{there.here}/24", "dev", there.wire)
        _ip("link", "set", there.wire, "up")
        for arguments in (
            ["addr", "add", f"{there.there}/24", "dev", "wire"],
            ["link", "set", "wire", "up"],
            ["link", "set", "lo", "up"],
        ):
            _ip("-n", there.name, *arguments)
        yield there
    finally:
        _ip("netns", "del", there.name)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
