"""EC2's instance metadata service on 127.0.0.1 and a free port: IMDSv2, which answers nothing without its token."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

__all__ = ["MetadataServer", "serve_metadata"]

DATA = "/latest/meta-data/"


class MetadataServer:
    """A running service; `paths` is what it holds, by path below latest/meta-data."""

    def __init__(self) -> None:
        self.paths = {"instance-id": "i-0123456789abcdef0"}
        self.tokens: set[str] = set()
        self.given = 0
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def take_away(self, time: str) -> None:
        """Give notice of the machine's end."""
        self.paths["spot/instance-action"] = json.dumps({"action": "terminate", "time": time})

    def recommend(self) -> None:
        """Recommend that the machine be replaced."""
        self.paths["events/recommendations/rebalance"] = json.dumps({"noticeTime": "2026-01-01T00:00:00Z"})

    def expire(self) -> None:
        """Forget all tokens."""
        self.tokens.clear()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                seconds = self.headers.get("X-aws-ec2-metadata-token-ttl-seconds", "0")
                if self.path != "/latest/api/token" or not 0 < int(seconds) <= 21_600:
                    self._answer(400)
                    return
                service.given += 1
                token = f"token-{service.given}"
                service.tokens.add(token)
                self._answer(200, token)

            def do_GET(self) -> None:
                if self.headers.get("X-aws-ec2-metadata-token") not in service.tokens:
                    self._answer(401)
                    return
                found = service.paths.get(self.path.removeprefix(DATA))
                self._answer(404 if found is None else 200, found or "")

            def _answer(self, status: int, text: str = "") -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *arguments: object) -> None:
                pass

        return Handler


@contextmanager
def serve_metadata() -> Iterator[MetadataServer]:
    """Serve until the end of the block."""
    service = MetadataServer()
    thread = Thread(target=service.server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield service
    finally:
        service.server.shutdown()
        service.server.server_close()
        thread.join()
