"""From settings to an encoder with its weights."""

from __future__ import annotations

import difflib
import importlib.resources
from functools import cache, partial
from pathlib import Path
from typing import Any

import timm
import torch
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn

from gkd_core.errors import SettingsError, WeightsError
from gkd_core.messages import one_line, shown
from gkd_core.models.cnn import CNNEncoder
from gkd_core.models.encoder import Encoder
from gkd_core.models.names import BACKBONE, encoder_names
from gkd_core.models.tensor_files import read_tensors
from gkd_core.models.vit import VIT_ADAPTERS, ViTAdapter, ViTEncoder, strip_head
from gkd_core.models.weights import DEMO_TEACHER, load_into, package_tensors
from gkd_core.settings import EncoderSettings
from gkd_core.settings.encoder import HUB

Channels = tuple[float, ...]


def build_encoder(settings: EncoderSettings, seed: int) -> Encoder:
    """Build an encoder and give it its weights.

    Random weights are a pure function of `seed`; the global random state is left as it was.

    Raises:
        SettingsError: timm has no such architecture, or refuses one of its options.
        WeightsError: the weights cannot be had or do not fit.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = _bare_encoder(settings)
    load_weights(encoder, settings)
    return encoder


def parameter_count(module: nn.Module) -> int:
    """Number of scalars in the parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


def _bare_encoder(settings: EncoderSettings) -> Encoder:
    adapters = VIT_ADAPTERS.get(timm.model_entrypoint(_known_arch(settings.arch, "arch")).__module__)
    try:
        return _cnn(settings) if adapters is None else _vit(settings, adapters[settings.resize])
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        raise SettingsError(f"options: {settings.arch} refuses {settings.options} ({one_line(error)})") from None


def _known_arch(name: str, key: str) -> str:
    """An architecture's name, with or without a tag; `SettingsError` where timm has no such model."""
    if not timm.is_model(name):
        close = difflib.get_close_matches(name, timm.list_models(), n=3)
        raise SettingsError(
            f"{key}: timm {timm.__version__} has no model '{shown(name)}'; try {', '.join(close) or 'timm.list_models()'}"
        )
    return name


def _vit(settings: EncoderSettings, adapter: ViTAdapter) -> Encoder:
    options: dict[str, Any] = {**adapter.options, **settings.options}
    if settings.patch_size is not None:
        options["patch_size"] = settings.patch_size
    if settings.image_size is not None:
        options["img_size"] = settings.image_size
    backbone: Any = timm.create_model(settings.arch, num_classes=0, **options)
    strip_head(backbone)
    return ViTEncoder(backbone, adapter, *_normalisation(settings, backbone.default_cfg["mean"], backbone.default_cfg["std"]))


def _cnn(settings: EncoderSettings) -> Encoder:
    options: dict[str, Any] = dict(settings.options)
    backbone: Any = timm.create_model(settings.arch, features_only=True, **options)
    config = timm.get_pretrained_cfg(settings.arch)
    if config is None:
        raise SettingsError(f"arch: timm states no input normalisation for '{settings.arch}'")
    return CNNEncoder(backbone, settings.token_strides, *_normalisation(settings, config.mean, config.std))


def _normalisation(settings: EncoderSettings, mean: Channels, std: Channels) -> tuple[Channels, Channels]:
    """Mean and deviation of the input: the architecture's, given here, or ImageNet's."""
    return (mean, std) if settings.normalisation == "own" else (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)


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
    if weights.startswith(HUB):
        return _hub_tensors(_known_arch(weights.removeprefix(HUB), "weights"))
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
