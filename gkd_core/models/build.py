"""From settings to an encoder with its weights."""

from __future__ import annotations

import difflib
from typing import Any

import timm
import torch
from torch import nn

from gkd_core.errors import SettingsError
from gkd_core.messages import one_line
from gkd_core.models.cnn import CNNEncoder
from gkd_core.models.encoder import Encoder
from gkd_core.models.sources import load_weights
from gkd_core.models.vit import ViTEncoder
from gkd_core.models.vit_adapters import ANATOMIES, Anatomy, strip_head
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
    load_weights(encoder, settings)
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
    anatomy = ANATOMIES.get(timm.model_entrypoint(settings.arch).__module__)
    try:
        return _cnn(settings) if anatomy is None else _vit(settings, anatomy)
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        raise SettingsError(
            f"options: {settings.arch} refuses {settings.options} ({one_line(error)})"
        ) from None


def _vit(settings: EncoderSettings, anatomy: Anatomy) -> Encoder:
    options: dict[str, Any] = {**anatomy.options, **settings.options}
    if settings.patch_size is not None:
        options["patch_size"] = settings.patch_size
    if settings.image_size is not None:
        options["img_size"] = settings.image_size
    backbone: Any = timm.create_model(settings.arch, num_classes=0, **options)
    strip_head(backbone)
    return ViTEncoder(backbone, anatomy, backbone.default_cfg["mean"], backbone.default_cfg["std"])


def _cnn(settings: EncoderSettings) -> Encoder:
    options: dict[str, Any] = dict(settings.options)
    backbone: Any = timm.create_model(settings.arch, features_only=True, **options)
    config = timm.get_pretrained_cfg(settings.arch)
    if config is None:
        raise SettingsError(f"arch: timm states no input normalisation for '{settings.arch}'")
    return CNNEncoder(backbone, settings.token_strides, config.mean, config.std)
