"""Carries the journal to an MLflow server beside the study: at least once, nothing twice, as long as it takes."""

import hashlib
import json
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from mlflow.exceptions import MlflowException
from requests import HTTPError

from sn7.files import lock, read_json, write_json
from sweep.batches import Request, plan_requests, send
from sweep.journal import JOURNAL, read_lines
from sweep.server import Server, reason, shown

__all__ = ["REFUSED", "Delivery", "position_file"]

REFUSED = "refused.jsonl"
"""In a study's folder: the records that a server will never take, with its reasons."""

BLOCK = 1 << 19
"""Bytes of the journal that are gathered into requests at once."""
GATHER_S = 0.2
"""How long the first record of a quiet journal waits for others."""
REST, REST_MAX_S = 4.0, 10.0
"""After a block the delivery rests so many times what it took of a processor: under load it gathers more, and takes at
most a fifth of a core from the driver's loop, until the study's end waits for it."""
PAUSES_S = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""Between attempts at a server that does not answer."""
UPLOADS = ("file", "register")
ATTEMPTS, UPLOAD_ATTEMPTS = 5, 20
"""A request that fails so often, each time while the server takes another write, is what is wrong, not the server."""
REFUSALS = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS", "NOT_IMPLEMENTED")
"""MLflow's codes for what will never succeed. BAD_REQUEST is not one: it also means a lost database connection."""
BUSY = ("TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED")
"""MLflow's codes for an overloaded server."""


def position_file(results: Path, uri: str) -> Path:
    """Return where it is kept how far a study was delivered to a server, whose address may hold a password."""
    return results / "delivered" / f"{hashlib.sha256(uri.encode()).hexdigest()[:16]}.json"


class Delivery:
    """The delivery of one study's journal to one server, in a thread of its own once it is started.

    `connect` returns the server and is called again after an outage at the start; `total` the lines of the journal;
    `added` is set when there are more. Raises ResultsConflict while another process delivers to the same server.
    """

    def __init__(
        self,
        results: Path,
        uri: str,
        connect: Callable[[], Server],
        total: Callable[[], int],
        added: threading.Event,
        say: Callable[[str], None] = lambda text: print(text, file=sys.stderr, flush=True),
    ) -> None:
        self.results, self.uri = results, uri
        self.connect, self.total, self.added, self.say = connect, total, added, say
        self.server: Server | None = None
        self.away = False
        """Whether the last attempt failed."""
        self.uploading = False
        self.refused = 0
        """Records refused since the start of this delivery."""
        self._todo: list[Request] = []
        self._failures = self._faults = 0
        self._wake, self._over = threading.Event(), threading.Event()
        self._file = position_file(results, uri)
        self._locked = ExitStack()
        self._locked.enter_context(lock(self._file.with_suffix(".lock")))
        self.position, self.delivered = self._known()
        self._block: tuple[int, int] = (self.position, self.delivered)
        self._thread = threading.Thread(target=self._work, name="delivery", daemon=True)

    def _known(self) -> tuple[int, int]:
        """Return the byte and the lines up to which the server has the journal, from its file."""
        try:
            content = read_json(self._file)
            position, delivered = int(content["position"]), int(content["records"])
            with (self.results / JOURNAL).open("rb") as file:
                file.seek(position - 1)
                if file.read(1) == b"\n":
                    return position, delivered
        except (OSError, ValueError, KeyError, TypeError):
            pass
        return 0, 0  # no file, or a journal that lost its end with the machine: all of it again, which doubles nothing

    @property
    def waiting(self) -> int:
        """Records that the server does not have yet."""
        return max(0, self.total() - self.delivered)

    def start(self) -> None:
        """Begin to deliver."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread after the request that it is at; one that hangs is not waited for."""
        self._over.set()
        self._wake.set()
        self.added.set()
        self._thread.join(timeout=1.0)

    def wait(self, wait_s: float) -> int:
        """Wait until all is delivered; return how many records are not.

        Gives up after `wait_s` without progress, and after 2 s where the server is known to be away.
        """
        self._wake.set()
        seen, since = self._progress(), time.monotonic()
        while self.waiting:
            if self.uploading or self._progress() != seen:
                seen, since = self._progress(), time.monotonic()
            elif time.monotonic() - since > (min(wait_s, 2.0) if self.away else wait_s):
                break
            time.sleep(0.02)
        return self.waiting

    def _progress(self) -> tuple[int, int]:
        return self.position, len(self._todo)

    def _work(self) -> None:
        with self._locked:
            while not self._over.is_set():
                self.added.clear()
                began = time.thread_time()
                try:
                    busy = self.step()
                except Exception as error:  # noqa: BLE001 - whatever a server does, the study goes on
                    self._failed(error)
                    continue
                if busy:
                    self._wake.wait(min(REST * (time.thread_time() - began), REST_MAX_S))
                elif self.added.wait() and not self._wake.is_set():
                    self._over.wait(GATHER_S)

    def step(self) -> bool:
        """Deliver the next block of the journal; return whether there was one. Raises what the server raises."""
        if not self._todo and not self._read():
            return False
        if self.server is None:
            self.server = self.connect()
        while self._todo:
            if self._over.is_set():
                return True
            self._send(self.server, self._todo[0])
        self.server.settle()
        self.position, self.delivered = self._block
        write_json(self._file, {"position": self.position, "records": self.delivered})
        return True

    def _read(self) -> bool:
        lines = list(read_lines(self.results / JOURNAL, self.position, BLOCK))
        if lines:
            self._todo = plan_requests(lines)
            self._block = (lines[-1].end, self.delivered + len(lines))
        return bool(lines)

    def _send(self, server: Server, request: Request) -> None:
        """Send the first request; take it off, split it to find the record that is refused, or raise."""
        try:
            self.uploading = request.op in UPLOADS and not self._failures
            send(server, request, self.results)
        except Exception as error:  # told apart here, whatever a server, a proxy or a driver raises
            if self._failures == 0 and getattr(error, "error_code", "") == "RESOURCE_DOES_NOT_EXIST":
                self.server = None  # it may have been set up anew: look for everything again, once
                raise
            if not _is_refusal(error, request.op) and not self._is_at_fault(server, request, error):
                raise
            self._set_aside(request, reason(error, self.uri))
        else:
            self._todo.pop(0)
            self._answered()
        finally:
            self.uploading = False

    def _is_at_fault(self, server: Server, request: Request, error: Exception) -> bool:
        """Return whether a request fails again and again while the server takes another write; raise if it does not."""
        if request.op not in UPLOADS and _is_busy(error):
            return False
        try:
            server.probe()
        except Exception:
            self._faults = 0
            raise
        self._faults += 1
        return self._faults >= (UPLOAD_ATTEMPTS if request.op in UPLOADS else ATTEMPTS)

    def _set_aside(self, request: Request, why: str) -> None:
        """Write down a record that the server will never take; of several, send each alone to find which it is."""
        self._todo.pop(0)
        self._failures = self._faults = 0
        if len(request.lines) > 1:
            self._todo[:0] = [Request(request.op, request.run, (line,)) for line in request.lines]
            return
        (line,) = request.lines
        entry = {"server": self._file.stem, "reason": why, "end": line.end, "record": line.record}
        with (self.results / REFUSED).open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry, ensure_ascii=False) + "\n")
        self.refused += 1

    def _answered(self) -> None:
        if self.away:
            self.say(f"MLflow at {shown(self.uri)} is back; {self.waiting} records that waited are delivered now")
        self.away, self._failures, self._faults = False, 0, 0

    def _failed(self, error: Exception) -> None:
        """Say once that the server is away, and pause before the next attempt."""
        pause = PAUSES_S[min(self._failures, len(PAUSES_S) - 1)]
        self._failures += 1
        if not self.away and self._failures > 1:
            self.away = True
            why = reason(error.__cause__ or error, self.uri)
            waits = f"the study goes on, they wait in {self.results / JOURNAL}"
            self.say(f"MLflow at {shown(self.uri)} does not take records ({why}); {waits}")
        self._wake.wait(pause)
        self._wake.clear()


def _is_refusal(error: Exception, op: str) -> bool:
    """Return whether an error is of the record itself, so that another attempt cannot succeed."""
    if isinstance(error, HTTPError):
        status = error.response.status_code if error.response is not None else 500
        return 400 <= status < 500 and status not in (401, 403, 408, 429)
    if isinstance(error, MlflowException):
        # An older server does not know logged models.
        return error.error_code in REFUSALS or (op == "register" and error.error_code == "ENDPOINT_NOT_FOUND")
    if isinstance(error, OSError):
        return isinstance(error, FileNotFoundError | PermissionError)
    return isinstance(error, ImportError | ValueError | TypeError | KeyError)


def _is_busy(error: Exception) -> bool:
    """Return whether an error says nothing of the request itself: an overloaded server, or none that answers."""
    text = str(error)
    unanswered = ("failed with exception" in text or "failed with timeout" in text) and "too many 500" not in text
    return unanswered or getattr(error, "error_code", "") in BUSY
