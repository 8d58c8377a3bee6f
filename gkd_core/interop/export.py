"""A student of ours as a plain timm state dict, for people who have timm and not this package."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
from torch import Tensor, nn

from gkd_core.errors import GkdError, WeightsError
from gkd_core.messages import one_line
from gkd_core.models.build import build_encoder
from gkd_core.models.encoder import Channels, Encoder
from gkd_core.models.segmentor import load_segmentor
from gkd_core.models.tensor_files import read_checked, write_tensors
from gkd_core.models.vit import VIT_ADAPTERS
from gkd_core.models.weights import load_into
from gkd_core.predict.bundle import open_bundle
from gkd_core.records import MANIFEST, EncoderCheckpoint, SegmentorCheckpoint, kind_of
from gkd_core.settings import EncoderSettings


@dataclass(frozen=True)
class TimmModel:
    """An encoder's backbone as timm builds it.

    Attributes:
        options: arguments of `timm.create_model` beside the architecture.
        tensors: its state dict, which `load_state_dict(strict=True)` takes.
        mean, std: normalisation that images in 0..1 need, by channel.
    """

    arch: str
    options: dict[str, Any]
    tensors: dict[str, Tensor]
    mean: Channels
    std: Channels

    @property
    def call(self) -> str:
        """The Python expression that builds the model."""
        arguments = "".join(f", {key}={value!r}" for key, value in self.options.items())
        return f"timm.create_model({self.arch!r}{arguments})"


def read_encoder(folder: Path) -> tuple[Encoder, EncoderSettings]:
    """The encoder of a folder that stage one, stage two, an import or `gkd bundle` wrote, in evaluation mode.

    Raises:
        GkdError: the folder holds no manifest of an encoder, a segmentor or a bundle.
        WeightsError: the weights are missing, damaged, or not those that the manifest describes.
    """
    manifest = folder / MANIFEST
    kind = kind_of(folder)
    if kind is None and not manifest.exists():
        raise GkdError(f"{manifest}: no such file; give a folder that distil, learn-task or import-checkpoint wrote")
    if kind == "segmentor":
        return load_segmentor(folder).encoder, SegmentorCheckpoint.read(manifest).encoder
    if kind == "bundle":
        bundle, network = open_bundle(folder)
        return network.encoder, bundle.model.encoder
    if kind != "encoder":
        raise GkdError(f"{manifest}: describes {kind or 'nothing known'}; give a folder of an encoder or a segmentor")
    record = EncoderCheckpoint.read(manifest)
    weights = folder / record.weights
    tensors = read_checked(weights, record.sha256, str(manifest))
    encoder = build_encoder(record.encoder.model_copy(update={"weights": "random"}), record.seed)
    load_into(encoder, tensors, str(weights))
    return encoder.eval(), record.encoder


def as_timm(encoder: Encoder, settings: EncoderSettings) -> TimmModel:
    """The backbone under timm's own names, as a model whose `forward_features` gives the encoder's tokens.

    Raises:
        WeightsError: timm does not take the state dict whole.
    """
    options = _options(encoder, settings)
    tensors = {_plain(name, encoder): value.contiguous() for name, value in encoder.backbone.state_dict().items()}
    model: nn.Module = timm.create_model(settings.arch, **options)
    try:
        model.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        reason = one_line(error)
        raise WeightsError(f"{settings.arch}: timm {timm.__version__} refuses the state dict ({reason})") from None
    return TimmModel(settings.arch, options, tensors, *encoder.normalisation)


def write_timm(model: TimmModel, path: Path) -> None:
    """Write the state dict as safetensors, with all that is needed to use it in the file's metadata.

    Raises:
        GkdError: the path does not end in .safetensors.
    """
    if path.suffix != ".safetensors":
        raise GkdError(f"{path}: an export is a .safetensors file; choose such a name")
    metadata = {
        "arch": model.arch,
        "options": json.dumps(model.options),
        "create_model": model.call,
        "mean": json.dumps(model.mean),
        "std": json.dumps(model.std),
        "timm": timm.__version__,
    }
    write_tensors(model.tensors, path, metadata)


def _options(encoder: Encoder, settings: EncoderSettings) -> dict[str, Any]:
    adapters = VIT_ADAPTERS.get(timm.model_entrypoint(settings.arch).__module__)
    if adapters is None:
        return {"features_only": True, **settings.options}
    grid = {"patch_size": settings.patch_size, "img_size": settings.image_size}
    known = {key: value for key, value in grid.items() if value is not None}
    # Without pooling, no model of timm's has layers behind the tokens.
    return {"num_classes": 0, "global_pool": "", **adapters[settings.resize].options, **settings.options, **known}


def _plain(name: str, encoder: Encoder) -> str:
    """timm calls the final norm `fc_norm` in a model that pools, and `norm` in one that does not."""
    moved = isinstance(getattr(encoder.backbone, "norm", None), nn.Identity)
    return name.replace("fc_norm.", "norm.", 1) if moved and name.startswith("fc_norm.") else name
