"""What a released checkpoint says about the model that it belongs to, read off the shapes of its tensors."""

from __future__ import annotations

import re

from torch import Tensor

from gkd_core.errors import WeightsError
from gkd_core.interop.checkpoint import ReleasedCheckpoint
from gkd_core.settings import EncoderSettings, Mask2FormerSettings

# Channels of a head's sampling offsets: 3 levels × 4 points × 2 coordinates.
OFFSETS_OF_A_HEAD = 24


def on_grid_of(checkpoint: ReleasedCheckpoint, prefix: str, arch: EncoderSettings) -> EncoderSettings:
    """The architecture with the patch and image sides that the checkpoint's kernel and position table are laid out for, and with
    a layer scale where it has one: the authors' DINO students do, and timm's ViT by default does not."""
    patch = tensor_of(checkpoint, f"{prefix}patch_embed.proj.weight").shape[-1]
    entries = tensor_of(checkpoint, f"{prefix}pos_embed").shape[1]
    side = round((entries - 1) ** 0.5)
    if side * side != entries - 1:
        raise WeightsError(
            f"{checkpoint.path}: {prefix}pos_embed has {entries} entries; one for the class token and a square of patches are "
            "expected"
        )
    scaled = any(re.match(rf"{re.escape(prefix)}blocks\..*\.ls1\.gamma", name) for name in checkpoint.tensors)
    options = ({"init_values": 1.0} if scaled else {}) | arch.options
    return arch.model_copy(update={"weights": "random", "patch_size": patch, "image_size": side * patch, "options": options})


def decoder_sizes(checkpoint: ReleasedCheckpoint) -> tuple[Mask2FormerSettings, int]:
    """Sizes of the decode head, and its width in channels."""
    layer = "decode_head.pixel_decoder.encoder.layers"
    queries, width = tensor_of(checkpoint, "decode_head.query_feat.weight").shape
    offsets = _matching(checkpoint, rf"{layer}\.0\..*sampling_offsets\.weight")
    hidden = _matching(checkpoint, rf"{layer}\.0\..*layers\.0\.0\.weight")
    sizes = Mask2FormerSettings(
        queries=queries,
        heads=offsets.shape[0] // OFFSETS_OF_A_HEAD,
        pixel_layers=_count(checkpoint, rf"{layer}\.(\d+)\."),
        pixel_feedforward=hidden.shape[0],
        decoder_layers=_count(checkpoint, r"decode_head.transformer_decoder.layers\.(\d+)\."),
        feedforward=_matching(checkpoint, r"decode_head.transformer_decoder.layers\.0\..*layers\.0\.0\.weight").shape[0],
    )
    return sizes, width


def tensor_of(checkpoint: ReleasedCheckpoint, name: str) -> Tensor:
    """A tensor by the authors' name; `WeightsError` where there is none."""
    if name not in checkpoint.tensors:
        raise WeightsError(f"{checkpoint.path}: {name} is missing; a whole checkpoint of {checkpoint.kind} is expected")
    return checkpoint.tensors[name]


def _matching(checkpoint: ReleasedCheckpoint, pattern: str) -> Tensor:
    found = next((name for name in checkpoint.tensors if re.fullmatch(pattern, name)), pattern)
    return tensor_of(checkpoint, found)


def _count(checkpoint: ReleasedCheckpoint, pattern: str) -> int:
    """Number of different values of the pattern's group among the names."""
    return len({match.group(1) for name in checkpoint.tensors if (match := re.match(pattern, name))})
