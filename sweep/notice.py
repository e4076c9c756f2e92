"""Word that this machine will be taken away, from the watcher of a node (sweep.spot) to the trainings on it."""

import os
import tempfile
from pathlib import Path
from typing import Literal

import ray

__all__ = ["Notice", "Taken", "own_notice"]

Kind = Literal["", "rebalance", "taken"]


class Taken(Exception):
    """A training has ended because its machine is being taken away; its checkpoint is written."""


class Notice:
    """A file of this machine that says what its trainings have to expect; `node` is Ray's identity of the node."""

    def __init__(self, node: str) -> None:
        self.path = Path(tempfile.gettempdir(), f"sn7-notice-{os.getuid()}-{node}")

    def give(self, kind: Kind) -> None:
        """Say `rebalance`: it may be taken away before long. Or `taken`: it will be, in a minute or two."""
        self.path.write_text(kind, encoding="utf-8")

    def kind(self) -> Kind:
        """Return what was said; nothing where nothing was."""
        try:
            said = self.path.read_text(encoding="utf-8")
        except OSError:
            return ""
        return "taken" if said == "taken" else "rebalance"


def own_notice() -> Notice:
    """Return the notice for the node that this process, one of Ray's, runs on."""
    return Notice(ray.get_runtime_context().get_node_id())
