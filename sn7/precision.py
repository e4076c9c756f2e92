"""In which arithmetic a forward pass runs; weights, gradients and optimizer stay fp32."""

import torch
from fastai.callback.core import Callback

__all__ = ["Precision", "autocast", "scaler"]


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """Return the context that a forward pass runs in.

    `auto` is bf16 where the hardware computes in it (other processors emulate it, slower than fp32), fp16 on other
    GPUs that have units for it, else fp32.
    """
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16, "auto": _native(device)}.get(precision)
    return torch.autocast(device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None)


def _native(device: torch.device) -> torch.dtype | None:
    if device.type != "cuda":
        return torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() else None
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16
    return torch.float16 if torch.cuda.get_device_capability(device) >= (7, 0) else None


def scaler(context: torch.autocast, device: torch.device) -> torch.amp.GradScaler | None:
    """Return what keeps small gradients from vanishing in fp16; None in arithmetic with the range of fp32."""
    return torch.amp.GradScaler(device.type) if context.fast_dtype == torch.float16 and context._enabled else None


class Precision(Callback):
    """Runs forward pass and loss in a context of autocast()."""

    def __init__(self, context: torch.autocast) -> None:
        self.context, self.entered = context, False

    def before_batch(self) -> None:
        self.context.__enter__()
        self.entered = True

    def after_loss(self) -> None:
        self.close()

    def close(self) -> None:
        """Leave the arithmetic; after an error in the forward pass nothing else does."""
        if self.entered:
            self.context.__exit__(None, None, None)
        self.entered = False
