"""What an optimizer is given: learning rates, and which parameters decay.

Rates are pure functions of the update, so that a resumed run needs no scheduler state.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator

from torch import nn

Schedule = Callable[[int], float]
LEVEL_EMBEDDING = "level_embed"  # Mask2Former's in its pixel decoder, a bare parameter


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


def decay_groups(module: nn.Module, weight_decay: float, exempt: Iterable[nn.Parameter] = ()) -> list[dict[str, object]]:
    """Optimizer groups of a module's trainable parameters: first those that decay, then those that do not.

    Norms, biases and other vectors do not, nor do those that are exempt. There are always two groups, in this order, be one
    empty: a checkpoint knows the optimizer's state by the place of a parameter, and each group has a schedule. (timm's
    `param_groups_weight_decay` has the same members the other way round, and leaves out a group that is empty.)
    """
    still = {id(parameter) for parameter in exempt}
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    decayed = [parameter for parameter in parameters if parameter.ndim > 1 and id(parameter) not in still]
    kept = [parameter for parameter in parameters if parameter.ndim <= 1 or id(parameter) in still]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": kept, "weight_decay": 0.0}]


def embeddings(module: nn.Module) -> Iterator[nn.Parameter]:
    """Query and level embeddings, which are matrices and yet do not decay in stage two.

    Released: the same, but for biases, which decay there.
    """
    for part in module.modules():
        if isinstance(part, nn.Embedding):
            yield from part.parameters(recurse=False)
    for name, parameter in module.named_parameters():
        if name.endswith(LEVEL_EMBEDDING):
            yield parameter
