"""Lines of the journal, gathered into as few requests as MLflow's limits allow."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlflow.entities import Metric

from sweep.journal import Line, Run
from sweep.registry import register
from sweep.server import METRICS_MAX, PARAMS_MAX, Server

__all__ = ["Request", "plan_requests", "send"]


@dataclass(frozen=True)
class Request:
    """Lines of one run that travel together: any number of `log`, or one of another operation."""

    op: str
    run: Run
    lines: tuple[Line, ...]


def plan_requests(lines: Iterable[Line]) -> list[Request]:
    """Return the fewest requests that carry these lines; the order within a run holds, that between runs does not."""
    by_run: dict[Run, list[Line]] = {}
    for line in lines:
        if line.record.get("op") != "study":  # the header is for who reads the journal
            by_run.setdefault(line.run if line.record else Run("study"), []).append(line)
    return [request for run, of_run in by_run.items() for request in _plan_run(run, of_run)]


def _plan_run(run: Run, lines: list[Line]) -> list[Request]:
    last_status = max((i for i, line in enumerate(lines) if line.record.get("op") == "status"), default=-1)
    requests: list[Request] = []
    batch: list[Line] = []
    for i, line in enumerate(lines):
        op = str(line.record.get("op", "unreadable"))
        if op == "log" and _fits([*batch, line]):
            batch.append(line)
            continue
        if batch and (op != "status" or i == last_status):
            requests.append(Request("log", run, tuple(batch)))
            batch = []
        if op == "log":
            batch = [line]
        elif op != "status" or i == last_status:  # an earlier one would be overwritten at once
            requests.append(Request(op, run, (line,)))
    return [*requests, *([Request("log", run, tuple(batch))] if batch else [])]


def _fits(lines: Sequence[Line]) -> bool:
    limits = {"metrics": METRICS_MAX, "params": PARAMS_MAX, "tags": PARAMS_MAX}
    return all(sum(len(line.record.get(kind, ())) for line in lines) <= most for kind, most in limits.items())


def send(server: Server, request: Request, results: Path) -> None:
    """Send a request of a study whose folder is `results`. Raises what the server raises."""
    _OPERATIONS[request.op](server, request, results)


def _log(server: Server, request: Request, results: Path) -> None:
    metrics: list[Metric] = []
    params: dict[str, str] = {}
    tags: dict[str, str] = {}
    for line in request.lines:
        record = line.record
        step = record.get("step", 0)
        metrics += [
            Metric(name, float(value), record["time"], step) for name, value in record.get("metrics", {}).items()
        ]
        params |= record.get("params", {})
        tags |= record.get("tags", {})
    server.log(request.run, request.lines[0].record["time"], metrics, params, tags)


def _status(server: Server, request: Request, results: Path) -> None:
    record = request.lines[0].record
    server.status(request.run, record["time"], record["status"])


def _file(server: Server, request: Request, results: Path) -> None:
    record = request.lines[0].record
    server.upload(request.run, record["time"], results / record["path"], record["folder"])


def _text(server: Server, request: Request, results: Path) -> None:
    record = request.lines[0].record
    server.text(request.run, record["time"], record["text"], record["name"])


def _register(server: Server, request: Request, results: Path) -> None:
    record = request.lines[0].record
    ensemble = results / record["path"]
    register(server, record["time"], record["id"], ensemble, record["description"], record["tags"])


def _unreadable(server: Server, request: Request, results: Path) -> None:
    raise ValueError(f"the line of the journal that ends at byte {request.lines[0].end} cannot be read")


_OPERATIONS: dict[str, Callable[[Server, Request, Path], None]] = {
    "log": _log,
    "status": _status,
    "file": _file,
    "text": _text,
    "register": _register,
    "unreadable": _unreadable,
}
