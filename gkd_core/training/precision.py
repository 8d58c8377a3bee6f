"""Mixed precision: the number format of the passes, and fp16's gradient scaler."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from gkd_core.settings import Precision

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[Any]:
    """Passes in the format of `precision`; parameters, their gradients and the optimizer stay in float32."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=DTYPES[precision])


def full_precision(device: torch.device) -> AbstractContextManager[Any]:
    """Float32 for a stretch of a pass in another format; nothing to do on a device that has no other (meta)."""
    if not torch.amp.is_autocast_available(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


class GradientScaler:
    """Scales the loss so that small gradients survive in fp16, and leaves out updates whose gradients overflow.

    In other precisions it does nothing.

    Attributes:
        skips: updates left out one after the other, up to now. A few are how the scale finds its size.
    """

    def __init__(self, device: torch.device, precision: Precision) -> None:
        self._scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
        self.skips = 0

    def scale(self, loss: Tensor) -> Tensor:
        return self._scaler.scale(loss)

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        """Bring the optimizer's gradients to their true size, for clipping."""
        self._scaler.unscale_(optimizer)

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """The optimizer's step, unless a gradient overflowed."""
        before = self._scaler.get_scale()
        self._scaler.step(optimizer)
        self._scaler.update()
        self.skips = self.skips + 1 if self._scaler.get_scale() < before else 0

    def state_dict(self) -> dict[str, Any]:
        return {"scale": self._scaler.state_dict(), "skips": self.skips}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._scaler.load_state_dict(state["scale"])
        self.skips = state["skips"]
