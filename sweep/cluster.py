"""The Ray cluster that a study runs on."""

import os
import secrets

import ray

from sn7.errors import ClusterUnavailable

__all__ = ["start_ray", "stop_ray"]


def start_ray(address: str | None) -> None:
    """Join the cluster at `address`, or start one on this machine that only its own processes can talk to.

    Raises ClusterUnavailable.
    """
    if address is None:
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    try:
        ray.init(
            address=address or "local",
            include_dashboard=None if address else False,
            log_to_driver=False,
            logging_level="ERROR",
        )
    except (OSError, RuntimeError, ray.exceptions.RayError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ClusterUnavailable(
            f"no Ray cluster at {address or 'this machine'} ({reason}); start it, or give its RAY_AUTH_TOKEN."
        ) from error


def stop_ray() -> None:
    """Leave the cluster, and end it if `start_ray` has started it."""
    ray.shutdown()
