"""Where an encoder's weights come from, and how they reach it."""

from __future__ import annotations

import importlib.resources
from functools import cache, partial
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from gkd_core.errors import WeightsError
from gkd_core.messages import one_line
from gkd_core.models.encoder import Encoder
from gkd_core.models.names import BACKBONE, encoder_names
from gkd_core.models.tensor_files import read_tensors
from gkd_core.models.weights import DEMO_TEACHER, load_into, package_tensors
from gkd_core.settings import EncoderSettings


def load_weights(encoder: Encoder, settings: EncoderSettings) -> None:
    """Give an encoder the weights that its settings name, and note the coverage on it.

    Files that hold a mask of ours beside the backbone must fill both; files from elsewhere know the backbone alone.

    Raises:
        WeightsError: the weights cannot be had or do not fit.
    """
    if settings.weights == "random":
        return
    tensors = _tensors(settings)
    if not tensors:
        raise WeightsError(f"{settings.weights}: holds no tensors")
    tensors = encoder_names(tensors, encoder, settings.arch, like=cache(partial(_whole_model, settings)))
    whole = any(name in tensors for name in encoder.state_dict() if not name.startswith(BACKBONE))
    target: nn.Module = encoder if whole else encoder.backbone
    if not whole:
        tensors = {name.removeprefix(BACKBONE): tensor for name, tensor in tensors.items()}
    encoder.coverage = load_into(target, tensors, settings.weights, settings.min_coverage, settings.resize)


def _tensors(settings: EncoderSettings) -> dict[str, Tensor]:
    """The tensors of a source, under the names that it gives them."""
    weights = settings.weights
    if weights == "hub":
        return _hub_tensors(settings.arch)
    if weights == "demo":
        with importlib.resources.as_file(DEMO_TEACHER) as path:
            return read_tensors(path)
    if weights.startswith("package:"):
        return package_tensors(weights.removeprefix("package:"), _whole_model(settings))
    if settings.weights_uri is not None:
        raise WeightsError(f"{weights}: only a stage looks an MLflow address up; give the file itself here")
    return read_tensors(Path(weights))


def _whole_model(settings: EncoderSettings) -> nn.Module:
    """timm's model with its head, as a checkpoint would be of it; the global random state is left as it was."""
    options: dict[str, Any] = dict(settings.options)
    with torch.random.fork_rng(devices=[]):
        model: nn.Module = timm.create_model(settings.arch, **options)
    return model


def _hub_tensors(arch: str) -> dict[str, Tensor]:
    """The hub's weights on their own grid: timm would bring them to ours by its own method, not as `resize` says."""
    try:
        with torch.random.fork_rng(devices=[]):
            return dict(timm.create_model(arch, pretrained=True).state_dict())
    except (OSError, RuntimeError) as error:
        reason = one_line(error, 160)
        raise WeightsError(
            f"hub: no weights for {arch} ({reason}); connect to the internet once, or set weights to a file"
        ) from None
