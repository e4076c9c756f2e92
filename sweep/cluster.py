"""The Ray cluster that a study runs on."""

import os
import secrets

import ray

__all__ = ["start_ray", "stop_ray"]


def start_ray(address: str | None) -> None:
    """Join the cluster at `address`, or start one on this machine that only its own processes can talk to."""
    if address is None:
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    ray.init(
        address=address or "local",
        include_dashboard=None if address else False,
        log_to_driver=False,
        logging_level="ERROR",
    )


def stop_ray() -> None:
    """Leave the cluster, and end it if `start_ray` has started it."""
    ray.shutdown()
