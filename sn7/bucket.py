"""An S3 bucket that is open to everyone: what an object is, and its bytes in pieces that are asked for ahead."""

import asyncio
from collections import deque
from collections.abc import Coroutine, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import islice
from typing import Any

from botocore.exceptions import BotoCoreError  # type: ignore[import-untyped]
from s3fs import S3FileSystem
from s3fs.core import S3_RETRYABLE_ERRORS

from sn7.errors import DownloadFailed

__all__ = ["Bucket", "Remote"]

PIECE = 4 << 20
"""Bytes of one request: a second or so on a slow line, so that a cut costs little and the progress moves."""
AT_ONCE = 6
"""Requests under way together: one alone does not fill a fast line. With PIECE it bounds the memory."""
WAITS = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Seconds before each new try of a request that failed for a reason that may pass."""
TIMEOUT = 30
"""Seconds without a byte after which a connection counts as cut."""
REGION = "us-east-1"
"""Of the public bucket; named, so that a region in the user's environment plays no part."""

_FAILURES = (OSError, BotoCoreError, *S3_RETRYABLE_ERRORS)
_Answer = tuple[dict[str, Any], bytes]


@dataclass(frozen=True)
class Remote:
    """An object in a bucket."""

    key: str
    size: int
    """Bytes."""
    etag: str
    """What the server calls this content, without quotes; another content has another one."""


class Bucket:
    """A bucket at AWS, or at the S3 server of `endpoint_url`, read without a login.

    Raises DownloadFailed where the address is none.
    """

    def __init__(self, name: str, endpoint_url: str | None = None) -> None:
        self.name = name
        # One try a request here, since those libraries give up within two seconds; `_read` waits longer.
        retries = {"total_max_attempts": 1}
        # Other S3 servers seldom have a host name a bucket.
        style = {"addressing_style": "path" if endpoint_url else "auto"}
        self._files = S3FileSystem(
            anon=True,
            endpoint_url=endpoint_url,
            client_kwargs={"region_name": REGION},
            config_kwargs={"retries": retries, "s3": style, "connect_timeout": TIMEOUT, "read_timeout": TIMEOUT},
            skip_instance_cache=True,
        )
        self._files.retries = 1
        try:
            self.endpoint: str = self._files.s3.meta.endpoint_url
        except (ValueError, BotoCoreError) as error:
            raise DownloadFailed(
                f"{endpoint_url or 'AWS'} cannot be used as an S3 server ({error}); wanted an address such as "
                "http://host:9000: check --endpoint-url and the AWS_ variables of your environment."
            ) from error

    def find(self, key: str) -> Remote:
        """Return what an object is, without its content.

        Raises DownloadFailed where it is not there, not open to everyone, or the server does not answer.
        """
        # Its first byte: unlike a HEAD request, a refusal then tells the reason. Who has mistyped an address waits.
        reply, _ = self._start(self._read(key, 0, 1, WAITS[:2])).result()
        return Remote(key, int(reply["ContentRange"].rpartition("/")[2]), reply["ETag"].strip('"'))

    def pieces(self, remote: Remote, start: int) -> Iterator[bytes]:
        """Yield an object's bytes from `start` on, in order; the next pieces are under way by then.

        Raises DownloadFailed where the connection stays cut, or the object is not any more what it was.
        """
        firsts = iter(range(start, remote.size, PIECE))
        under_way = deque(self._ask(remote, first) for first in islice(firsts, AT_ONCE))
        try:
            while under_way:
                yield under_way.popleft().result()[1]
                under_way.extend(self._ask(remote, first) for first in islice(firsts, 1))
        finally:
            for request in under_way:
                request.cancel()

    def _ask(self, remote: Remote, first: int) -> Future[_Answer]:
        end = min(first + PIECE, remote.size)
        return self._start(self._read(remote.key, first, end, WAITS, IfMatch=f'"{remote.etag}"'))

    def _start(self, work: Coroutine[Any, Any, _Answer]) -> Future[_Answer]:
        """Run it in s3fs's own thread: Ctrl-C waits for none of it."""
        return asyncio.run_coroutine_threadsafe(work, self._files.loop)

    async def _read(self, key: str, first: int, end: int, waits: Sequence[float], **conditions: str) -> _Answer:
        """Return the answer to a request for the bytes from `first` up to `end`, and they."""
        for wait in (*waits, None):
            try:
                return await self._read_once(key, first, end, conditions)
            except _FAILURES as error:
                if wait is None or not _may_pass(error):
                    raise self._failed(key, error) from error
                await asyncio.sleep(wait)
        raise AssertionError("the last try returns or raises")

    async def _read_once(self, key: str, first: int, end: int, conditions: dict[str, str]) -> _Answer:
        span = f"bytes={first}-{end - 1}"
        reply = await self._files._call_s3("get_object", Bucket=self.name, Key=key, Range=span, **conditions)
        try:
            if not {"ETag", "ContentRange"} <= reply.keys() or reply["ContentLength"] != end - first:
                raise DownloadFailed(
                    f"{self.endpoint} does not answer a request for a part of s3://{self.name}/{key} as an S3 server "
                    "does; wanted the part and its ETag: check the network and --endpoint-url."
                )
            return reply, await reply["Body"].read()
        finally:
            reply["Body"].close()

    def _failed(self, key: str, error: Exception) -> DownloadFailed:
        """Return the sentence that tells what to do about an error."""
        advice = {
            403: "wanted an archive that everyone may read: check --endpoint-url",
            404: "wanted the data set's own bucket and archives: check --endpoint-url",
            412: "the archive was replaced on the server meanwhile: give the same command again, it starts anew",
        }.get(
            _status(error) or 0,
            "check the network and --endpoint-url and give the same command again: it goes on from what is there",
        )
        # aiohttp's own sentence on a connection that ended too early is a page of headers.
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())[:200] or type(error).__name__
        return DownloadFailed(f"s3://{self.name}/{key} cannot be read from {self.endpoint} ({reason}); {advice}.")


def _status(error: BaseException) -> int | None:
    """Return the HTTP status of a refusal; None where there was no answer."""
    response = getattr(error.__cause__ or error, "response", None) or {}
    status: int | None = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return status


def _may_pass(error: BaseException) -> bool:
    """Return whether trying again may help: no answer, half of one, a server that is busy or out of order."""
    status = _status(error)
    return status is None or status == 429 or status >= 500
