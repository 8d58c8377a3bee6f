"""Licences of weights, as far as somebody states them."""

from __future__ import annotations

from gkd_core.settings import EncoderSettings
from gkd_core.settings.encoder import HUB

UNKNOWN_LICENCE = "not stated: find out before you share it"


def weights_licence(encoder: EncoderSettings, stated: str | None) -> str:
    """Licence of an encoder's weights: as stated, else as timm states it for hub weights, else that nobody has."""
    if stated is not None:
        return stated
    if encoder.weights != "hub" and not encoder.weights.startswith(HUB):
        return UNKNOWN_LICENCE
    from timm.models import get_pretrained_cfg

    known = get_pretrained_cfg(encoder.arch if encoder.weights == "hub" else encoder.weights.removeprefix(HUB))
    return f"{known.license} (as timm states it)" if known is not None and known.license else UNKNOWN_LICENCE
