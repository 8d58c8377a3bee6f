"""Learning rates as pure functions of the update, so that a resumed run needs no scheduler state."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from torch import nn

Schedule = Callable[[int], float]


def cosine(peak: float, floor: float, updates: int, warmup: int = 0, start: float = 1e-6) -> Schedule:
    """Linear warm-up from `start` to `peak`, then half a cosine down to `floor` at the last update.

    >>> rate = cosine(peak=1.0, floor=0.0, updates=12, warmup=2, start=0.0)
    >>> [round(rate(update), 3) for update in (0, 1, 2, 7, 12)]
    [0.0, 0.5, 1.0, 0.5, 0.0]
    """

    def rate(update: int) -> float:
        if update < warmup:
            return start + (peak - start) * update / warmup
        done = (update - warmup) / max(1, updates - warmup)
        return floor + (peak - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))

    return rate


def polynomial(peak: float, updates: int, power: float) -> Schedule:
    """Decay from `peak` to 0 as (1 - update / updates) ** power.

    >>> [polynomial(1.0, 4, power=2)(update) for update in (0, 2, 4)]
    [1.0, 0.25, 0.0]
    """
    return lambda update: float(peak * max(0.0, 1 - update / updates) ** power)


def decay_groups(modules: Iterable[nn.Module], weight_decay: float) -> list[dict[str, object]]:
    """Optimizer groups of the modules' trainable parameters: no decay for norms, biases and other vectors."""
    parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
