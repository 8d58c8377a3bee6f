"""From settings to an encoder with its weights."""

from __future__ import annotations

import difflib
import importlib.resources
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import deit, vision_transformer
from torch import nn

from gkd_core.errors import SettingsError, WeightsError
from gkd_core.models.cnn import CNNEncoder
from gkd_core.models.encoder import Encoder
from gkd_core.models.vit import ViTEncoder
from gkd_core.models.weights import DEMO_TEACHER, load_into, package_tensors, read_tensors
from gkd_core.settings import EncoderSettings


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
    _load_weights(encoder, settings)
    return encoder


def parameter_count(module: nn.Module) -> int:
    """Number of scalars in the parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


def _bare_encoder(settings: EncoderSettings) -> Encoder:
    if not timm.is_model(settings.arch):
        close = difflib.get_close_matches(settings.arch, timm.list_models(), n=3)
        raise SettingsError(
            f"arch: timm {timm.__version__} has no model '{settings.arch}'; try {', '.join(close) or 'timm.list_models()'}"
        )
    try:
        if _is_vit(settings.arch):
            return _vit(settings)
        return _cnn(settings)
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        raise SettingsError(
            f"options: {settings.arch} refuses {settings.options} ({' '.join(str(error).split())[:200]})"
        ) from None


def _is_vit(arch: str) -> bool:
    return timm.model_entrypoint(arch).__module__ in (vision_transformer.__name__, deit.__name__)


def _create(settings: EncoderSettings, **options: Any) -> Any:
    """The timm model, with the hub's weights where the settings ask for them."""
    try:
        return timm.create_model(settings.arch, pretrained=settings.weights == "hub", **options)
    except (OSError, RuntimeError) as error:
        if settings.weights != "hub":
            raise
        reason = " ".join(str(error).split())[:160]
        raise WeightsError(
            f"hub: no weights for {settings.arch} ({reason}); connect to the internet once, or set weights to a file"
        ) from None


def _vit(settings: EncoderSettings) -> Encoder:
    options: dict[str, Any] = dict(settings.options)
    if settings.patch_size is not None:
        options["patch_size"] = settings.patch_size
    if settings.image_size is not None:
        options["img_size"] = settings.image_size
    backbone = _create(settings, num_classes=0, dynamic_img_size=True, **options)
    return ViTEncoder(backbone, backbone.default_cfg["mean"], backbone.default_cfg["std"])


def _cnn(settings: EncoderSettings) -> Encoder:
    options: dict[str, Any] = dict(settings.options)
    backbone = _create(settings, features_only=True, **options)
    config = timm.get_pretrained_cfg(settings.arch)
    if config is None:
        raise SettingsError(f"arch: timm states no input normalisation for '{settings.arch}'")
    return CNNEncoder(backbone, settings.token_strides, config.mean, config.std)


def _load_weights(encoder: Encoder, settings: EncoderSettings) -> None:
    if settings.weights in ("random", "hub"):
        return
    if settings.weights == "demo":
        with importlib.resources.as_file(DEMO_TEACHER) as path:
            load_into(encoder, _as_float32(read_tensors(path)), "demo", settings.min_coverage, settings.resize)
        return
    if settings.weights.startswith("package:"):
        options: dict[str, Any] = dict(settings.options)
        reference = timm.create_model(settings.arch, pretrained=False, **options)
        tensors = package_tensors(settings.weights.removeprefix("package:"), reference)
        load_into(encoder.get_submodule("backbone"), tensors, settings.weights, settings.min_coverage, settings.resize)
        return
    _load_file(encoder, Path(settings.weights), settings)


def _load_file(encoder: Encoder, path: Path, settings: EncoderSettings) -> None:
    """Files that we wrote name the whole encoder's tensors; files from elsewhere name the backbone's alone."""
    tensors = read_tensors(path)
    if not tensors:
        raise WeightsError(f"{path}: holds no tensors")
    ours = any(name.startswith("backbone.") for name in tensors)
    target = encoder if ours else encoder.get_submodule("backbone")
    load_into(target, _as_float32(tensors), str(path), settings.min_coverage, settings.resize)


def _as_float32(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}
