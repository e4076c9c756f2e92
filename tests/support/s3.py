"""An S3 server in this process, on 127.0.0.1 and a free port: moto's."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import boto3
from moto.server import ThreadedMotoServer

__all__ = ["Server", "serve_s3"]


class Server:
    """A running server; `url` is what --endpoint-url takes. All servers of a process share their buckets."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._client = boto3.client(
            "s3", endpoint_url=url, region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test"
        )

    def make_bucket(self, bucket: str) -> None:
        """Make a bucket; one that is there stays as it is."""
        self._client.create_bucket(Bucket=bucket, ACL="public-read")

    def put(self, bucket: str, key: str, content: bytes, public: bool = True) -> str:
        """Put an object, in place of one of that name; return its ETag. One that is not public answers 403."""
        acl = "public-read" if public else "private"
        etag: str = self._client.put_object(Bucket=bucket, Key=key, Body=content, ACL=acl)["ETag"]
        return etag.strip('"')

    def get(self, bucket: str, key: str) -> bytes:
        """Return an object's bytes."""
        content: bytes = self._client.get_object(Bucket=bucket, Key=key)["Body"].read()
        return content

    def keys(self, bucket: str, prefix: str = "") -> list[str]:
        """Return the names of a bucket's objects (1,000 at most), sorted."""
        found = self._client.list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", [])
        return sorted(item["Key"] for item in found)

    def drop_bucket(self, bucket: str) -> None:
        """Remove a bucket with its objects."""
        for key in self.keys(bucket):
            self._client.delete_object(Bucket=bucket, Key=key)
        self._client.delete_bucket(Bucket=bucket)


@contextmanager
def serve_s3() -> Iterator[Server]:
    """Serve S3 until the end of the block."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # it writes a line a request to stderr
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield Server(f"http://{host}:{port}")
    finally:
        server.stop()
