"""What a stage must know of the machine that it runs on."""

from __future__ import annotations

from pathlib import Path

import torch

from gkd_core.settings import EncoderSettings, Settings


def absolute_weights(encoder: EncoderSettings, workspace: Path) -> EncoderSettings:
    """A weights path as seen from anywhere: Ray's workers have a working directory of their own."""
    if not encoder.weights.endswith((".safetensors", ".pth")):
        return encoder
    return encoder.model_copy(update={"weights": str(workspace / encoder.weights)})


def device_of(settings: Settings) -> str:
    if settings.compute.device != "auto":
        return settings.compute.device
    return "cuda" if torch.cuda.is_available() else "cpu"
