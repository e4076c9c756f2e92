"""Numbers of the code as tensors on a device: each is copied there once, since the copy waits for a GPU."""

from functools import cache

import torch
from torch import Tensor

__all__ = ["constant"]

Values = tuple[float, ...] | tuple[tuple[float, ...], ...]


def constant(values: Values, device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return the values as a tensor that is shared with all who ask for the same: it must not be changed."""
    if torch.compiler.is_exporting():  # where tensors have no values that could be kept
        return torch.tensor(values, device=device, dtype=dtype)
    return _made(values, device, dtype)


@cache
def _made(values: Values, device: torch.device, dtype: torch.dtype) -> Tensor:
    with torch.inference_mode(False):  # or it could be used in no training afterwards
        return torch.tensor(values, device=device, dtype=dtype)
