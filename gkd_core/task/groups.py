"""Which parameters stage two decays."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

LEVEL_EMBEDDING = "level_embed"  # Mask2Former's in its pixel decoder, a bare parameter


def weight_decay_groups(module: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Optimizer groups of a module's trainable parameters: first those that decay, then those that do not.

    Norms, biases and other vectors do not, nor do query and level embeddings, which are matrices. Released: the same, but
    for biases, which decay there.
    """
    still = {id(parameter) for parameter in _embeddings(module)}
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    decayed = [parameter for parameter in parameters if parameter.ndim > 1 and id(parameter) not in still]
    kept = [parameter for parameter in parameters if parameter.ndim <= 1 or id(parameter) in still]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": kept, "weight_decay": 0.0}]


def _embeddings(module: nn.Module) -> Iterator[nn.Parameter]:
    for part in module.modules():
        if isinstance(part, nn.Embedding):
            yield from part.parameters(recurse=False)
    for name, parameter in module.named_parameters():
        if name.endswith(LEVEL_EMBEDDING):
            yield parameter
