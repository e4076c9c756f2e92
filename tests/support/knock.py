"""Knocks at ports from wherever it is run, without a token: python knock.py HOST PORT… prints what each answers.

A line a port: the port, then `closed`, `refuses` or `ANSWERS` with what it said. Asked are the ways that Ray's own
services know: HTTP, gRPC with each method that Ray's description of its services has, and a line of text.
"""

import importlib
import pkgutil
import socket
import sys
import urllib.error
import urllib.request

import grpc
import ray.core.generated

PATHS = ("/", "/api/version", "/api/jobs/", "/nodes?view=summary", "/metrics", "/api/v0/tasks", "/logs")
REFUSALS = (401, 403, 404, 405)
"""HTTP's; what is not found without a token is not shown either."""


HEALTH = "/grpc.health.v1.Health/Check"


def methods() -> list[str]:
    """Return every method that Ray's services have, by its path, and gRPC's own question for health."""
    found = [HEALTH]
    for module in pkgutil.iter_modules(ray.core.generated.__path__):
        if module.name.endswith("_pb2"):
            described = importlib.import_module(f"ray.core.generated.{module.name}").DESCRIPTOR
            for service in described.services_by_name.values():
                found += [f"/{service.full_name}/{method.name}" for method in service.methods]
    return found


def main() -> None:
    """Knock at each port."""
    host, *ports = sys.argv[1:]
    known = methods()
    for port in ports:
        print(port, _knock(host, int(port), known), flush=True)


def _knock(host: str, port: int, known: list[str]) -> str:
    try:
        socket.create_connection((host, port), timeout=5).close()
    except OSError:
        return "closed"
    answers = [*_http(host, port), *_grpc(host, port, known), *_text(host, port)]
    return "ANSWERS " + "; ".join(answers) if answers else "refuses"


def _http(host: str, port: int) -> list[str]:
    found = []
    for path in PATHS:
        try:
            with urllib.request.urlopen(f"http://{host}:{port}{path}", timeout=3) as answer:
                found.append(f"GET {path}: {answer.status} {answer.read(60)!r}")
        except urllib.error.HTTPError as error:
            if error.code not in REFUSALS:
                found.append(f"GET {path}: {error.code}")
        except Exception:  # noqa: BLE001 - no HTTP at all
            break
    return found


def _grpc(host: str, port: int, known: list[str]) -> list[str]:
    found = []
    with grpc.insecure_channel(f"{host}:{port}") as channel:
        for method in known:
            try:
                said = channel.unary_unary(method)(b"", timeout=3)
                found.append(f"{method}: {len(said)} bytes")
            except grpc.RpcError as error:
                if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                    break  # no gRPC at all
    return found


def _text(host: str, port: int) -> list[str]:
    try:
        with socket.create_connection((host, port), timeout=5) as line:
            line.settimeout(2)
            line.sendall(b"PING\r\n")
            said = line.recv(60)
    except OSError:
        return []
    return [f"a line: {said!r}"] if said.startswith((b"+", b"$", b"-")) else []  # as Redis does


if __name__ == "__main__":
    main()
