"""The journal: what happens in a study, one JSON object a line, appended at once and delivered to MLflow later."""

import json
import os
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from sn7.errors import ResultsConflict

__all__ = ["JOURNAL", "Journal", "Line", "Run", "now_ms", "read_header", "read_lines"]

JOURNAL = "records.jsonl"
"""The journal's name in a study's folder."""


PARTS = {"fold": ("fold", "sn7.fold"), "repeat": ("seed", "sn7.seed")}
"""Kinds of runs that lie below a trial: what their part is called, and the tag that has it."""


class Run(NamedTuple):
    """The run that a record belongs to.

    Its kind is study, trial, fold (part = its number), repeat (part = its seed), or the name of a search for parameters
    that need no training (part = the fold that it does not see, -1 for none).
    """

    kind: str
    trial: int = -1
    part: int = -1

    @property
    def parent(self) -> "Run | None":
        """The run that this one lies below."""
        if self.kind == "study":
            return None
        return Run("trial", self.trial) if self.kind in PARTS else Run("study")

    @property
    def label(self) -> str:
        """What MLflow shows as the run's name; empty for the study's, which has the study's own."""
        if self.kind == "study":
            return ""
        if self.trial < 0:
            return f"{self.kind} {'on all folds' if self.part < 0 else f'without fold {self.part}'}"
        return f"trial {self.trial}" + (f" {PARTS[self.kind][0]} {self.part}" if self.kind in PARTS else "")

    @property
    def tags(self) -> dict[str, str]:
        """The tags that the run is found by, apart from the study's identity."""
        tags = {"sn7.kind": self.kind}
        if self.trial >= 0:
            tags["sn7.trial"] = str(self.trial)
        elif self.kind != "study":
            tags["sn7.held_out"] = "none" if self.part < 0 else str(self.part)
        if self.kind in PARTS:
            tags[PARTS[self.kind][1]] = str(self.part)
        return tags


class Line(NamedTuple):
    """A line of the journal: the byte after its end, and its object; `record` is empty where it is no JSON object."""

    end: int
    record: dict[str, Any]

    @property
    def run(self) -> Run:
        """The run that the record belongs to."""
        return Run(*self.record["run"])


def read_lines(path: Path, start: int = 0, limit: int | None = None) -> Iterator[Line]:
    """Yield the whole lines of a journal from byte `start` on, about `limit` bytes of them; a torn last line waits."""
    with path.open("rb") as file:
        file.seek(start)
        end = start
        for text in file:
            if not text.endswith(b"\n"):
                return
            end += len(text)
            yield Line(end, _parse(text))
            if limit is not None and end - start >= limit:
                return


def _parse(text: bytes) -> dict[str, Any]:
    try:
        record = json.loads(text)
        Run(*record["run"])
    except (ValueError, TypeError, KeyError):
        return {}
    return dict(record)


def read_header(results: Path) -> dict[str, Any]:
    """Return a journal's first record: study and identity. Raises ResultsConflict where there is no journal."""
    path = results / JOURNAL
    first = next(read_lines(path), None) if path.exists() else None
    if first is None or first.record.get("op") != "study":
        raise ResultsConflict(f"{path} is no journal of a study's records; run the study first.")
    return first.record


def now_ms() -> int:
    """Return the time as MLflow has it."""
    return time.time_ns() // 1_000_000


class Journal:
    """The journal of one study, open for its one writer.

    A line is one write to the file, so a killed process leaves at most a torn last line, which is cut off here.
    The highest step and the last value of each metric are known from what the journal holds, so that nothing is
    written twice. Raises ResultsConflict where the journal is of another study.
    """

    def __init__(self, results: Path, study: str, identity: str) -> None:
        self.results, self.path = results, results / JOURNAL
        self.added = threading.Event()
        """Set after each line."""
        self.lines = 0
        self.states: dict[Run, str] = {}
        """The state that each run was last closed, or opened, with."""
        self.open: set[Run] = set()
        """Runs that have begun and were not closed."""
        self.ends: dict[Run, int] = {}
        """When each run was closed, ms."""
        self.measured: dict[Run, int] = {}
        """When metrics of each run were last written, ms."""
        self.tags: dict[Run, set[str]] = {}
        """Names of the tags that were written to each run."""
        self._said: dict[Run, str] = {}
        self._last: dict[tuple[Run, str], tuple[int, float]] = {}
        self._lock = threading.Lock()
        results.mkdir(parents=True, exist_ok=True)
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        self._end = 0
        for line in read_lines(self.path):
            self._note(line)
        os.ftruncate(self._file, self._end)
        if not self.lines:
            self.append("study", Run("study"), study=study, identity=identity)
        self._check(study, identity)

    def _check(self, study: str, identity: str) -> None:
        found = read_header(self.results)
        if (found["study"], found["identity"]) != (study, identity):
            self.close()
            raise ResultsConflict(
                f"{self.path} holds the records of another study ({found['study']}, identity {found['identity']}; this "
                f"is {study}, {identity}): remove that folder, or give another --results folder."
            )

    def append(self, op: str, run: Run, at: int | None = None, **content: Any) -> None:
        """Append a record: what is done (`op`), to which run, the time in ms (now, or `at`), what the operation needs.

        Raises OSError where the disk does not take it; the journal then is as it was.
        """
        record = {"time": now_ms() if at is None else at, "op": op, "run": run, **content}
        text = (json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n").encode()
        with self._lock:
            try:
                if os.write(self._file, text) != len(text):
                    raise OSError(
                        f"{self.path} cannot be written: the disk is full; make room and go on with --resume."
                    )
            except OSError:
                os.ftruncate(self._file, self._end)
                raise
            self._note(Line(self._end + len(text), record))
        self.added.set()

    def _note(self, line: Line) -> None:
        self._end = line.end
        self.lines += 1
        operation = line.record.get("op")
        if operation == "status":  # the last line of an ending: without it, the run is not closed
            self.states[line.run] = self._said.get(line.run, "")
            (self.open.add if line.record["status"] == "RUNNING" else self.open.discard)(line.run)
            self.ends[line.run] = line.record["time"]
        if operation != "log":
            return
        self.open.add(line.run)
        tags = line.record.get("tags", {})
        self.tags.setdefault(line.run, set()).update(tags)
        if state := tags.get("state"):
            self._said[line.run] = state
        step = line.record.get("step", 0)
        if line.record.get("metrics"):
            self.measured[line.run] = line.record["time"]
        for name, value in line.record.get("metrics", {}).items():
            self._last[line.run, name] = (max(step, self.last_step(line.run, name)), float(value))

    def last_step(self, run: Run, name: str) -> int:
        """Return the highest step of a run's metric, 0 where it has none."""
        return self._last.get((run, name), (0, 0.0))[0]

    def later(self, run: Run, step: int, metrics: Mapping[str, float]) -> dict[str, float]:
        """Return the metrics that the journal does not have at this step or a later one."""
        return {k: v for k, v in metrics.items() if (run, k) not in self._last or step > self.last_step(run, k)}

    def changed(self, run: Run, metrics: Mapping[str, float]) -> dict[str, float]:
        """Return the metrics whose last value in the journal is another, or that it does not have."""
        return {k: v for k, v in metrics.items() if (last := self._last.get((run, k))) is None or last[1] != float(v)}

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._file)
