"""The control service of a Ray cluster, for those who are no part of the cluster: a quick answer where Ray waits."""

import re
import socket
from typing import Any

import ray
from ray._raylet import GcsClient  # type: ignore[attr-defined]

from sn7.errors import ClusterUnavailable

__all__ = ["open_gcs", "refused"]

HOST_PORT = re.compile(r"([^:/]+):(\d+)")


def refused(address: str) -> ClusterUnavailable:
    """Return the error of those who have another token than the cluster."""
    return ClusterUnavailable(
        f"the Ray cluster at {address} refuses our token; set RAY_AUTH_TOKEN, or ~/.ray/auth_token, to its head's."
    )


def open_gcs(address: str) -> Any:
    """Return Ray's client of the control service at HOST:PORT.

    Raises ClusterUnavailable where nothing listens there or our token is another one: Ray itself tries for minutes,
    and of a token it says nothing.
    """
    found = HOST_PORT.fullmatch(address)
    if not found:
        raise ClusterUnavailable(f"{address} is no address of a Ray cluster; wanted HOST:PORT, such as 10.0.0.5:6379.")
    try:
        socket.create_connection((found[1], int(found[2])), timeout=10).close()
        return GcsClient(address=address)
    except ray.exceptions.AuthenticationError as error:
        raise refused(address) from error
    except (OSError, RuntimeError, ray.exceptions.RayError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ClusterUnavailable(
            f"no Ray cluster at {address} ({reason}); start it, or give the address of its head."
        ) from error
