"""Checkpoints in the authors' layout, written from models of ours by a naming of the tests' own."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

from gkd_core.distill.objective import QSDObjective
from gkd_core.models.build import build_encoder
from gkd_core.settings import EncoderSettings

TEACHER_DIM = 40


@pytest.fixture(scope="session")
def arch() -> EncoderSettings:
    """A small DINOv2-like ViT: layer scale, two blocks, patches of 8 pixels on 32 × 32."""
    options = {"embed_dim": 32, "depth": 2, "num_heads": 2, "init_values": 1e-5}
    return EncoderSettings(arch="vit_small_patch14_dinov2", patch_size=8, image_size=32, options=options)


@pytest.fixture
def objective(arch: EncoderSettings) -> QSDObjective:
    torch.manual_seed(0)
    model = QSDObjective(build_encoder(arch, seed=5), TEACHER_DIM).eval()
    torch.nn.init.normal_(model.student.mask_token)
    return model


def released_backbone(encoder: Mapping[str, Tensor], chunk: int | None = None) -> dict[str, Tensor]:
    """An encoder's tensors as DINOv2 names them; `chunk` writes `blocks.CHUNK.INDEX`, as with block_chunks."""
    out = {}
    for name, value in encoder.items():
        if name == "mask_token":
            out["mask_token"] = value.unsqueeze(0)
            continue
        plain = name.removeprefix("backbone.")
        if chunk is not None and plain.startswith("blocks."):
            plain = f"blocks.{chunk}." + plain.removeprefix("blocks.")
        out[plain] = value
    return out


def released_stage_one(model: QSDObjective, chunk: int | None = None) -> dict[str, Tensor]:
    """Student, a teacher, and the heads, by the authors' names."""
    state = model.state_dict()
    student = {name[len("student.") :]: value for name, value in state.items() if name.startswith("student.")}
    out = {f"student.backbone.{name}": value for name, value in released_backbone(student, chunk).items()}
    out["teacher.backbone.cls_token"] = torch.zeros(1, 1, TEACHER_DIM)
    out["teacher.backbone.norm.weight"] = torch.ones(TEACHER_DIM)
    for name, value in state.items():
        head, _, rest = name.partition(".")
        if head in ("token", "fea", "patch"):
            out[f"{head}_head.{rest}"] = value
    return out


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    """Write a checkpoint file and give its path."""

    def write(content: object, name: str = "checkpoint_100.pth") -> Path:
        path = tmp_path / name
        torch.save(content, path)
        return path

    return write


# mmdetection 3's names of the head, part by part, from ours: written out by hand, not derived from the tables under test.
LAYER = {
    "cross_attn": "cross_attn.attn",
    "self_attn.out_proj": "self_attn.attn.out_proj",
    "fc1": "ffn.layers.0.0",
    "fc2": "ffn.layers.1",
    "cross_attn_layer_norm": "norms.0",
    "self_attn_layer_norm": "norms.1",
    "final_layer_norm": "norms.2",
}
PIXEL_LAYER = {
    "self_attn": "self_attn",
    "fc1": "ffn.layers.0.0",
    "fc2": "ffn.layers.1",
    "self_attn_layer_norm": "norms.0",
    "final_layer_norm": "norms.1",
}
PIXEL = {
    "level_embed": "level_encoding.weight",
    "adapter_1.0": "lateral_convs.0.conv",
    "adapter_1.1": "lateral_convs.0.gn",
    "layer_1.0": "output_convs.0.conv",
    "layer_1.1": "output_convs.0.gn",
    "mask_projection": "mask_feature",
} | {f"input_projections.{i}.{j}": f"input_convs.{i}.{part}" for i in range(3) for j, part in enumerate(("conv", "gn"))}
TOP = {
    "transformer.queries_embedder": "query_embed",
    "transformer.queries_features": "query_feat",
    "transformer.level_embed": "level_embed",
    "transformer.decoder.layernorm": "transformer_decoder.post_norm",
    "classifier": "cls_embed",
} | {f"transformer.decoder.mask_predictor.mask_embedder.{i}.0": f"mask_embed.{2 * i}" for i in range(3)}


def released_head(decoder: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A Mask2Former decoder's tensors by mmdetection 3's names."""
    out: dict[str, Tensor] = {}
    packed: dict[str, dict[str, Tensor]] = {}
    for name, value in decoder.items():
        if match := re.fullmatch(r"transformer\.decoder\.layers\.(\d+)\.self_attn\.([qkv])_proj\.(weight|bias)", name):
            packed.setdefault(f"transformer_decoder.layers.{match[1]}.self_attn.attn.in_proj_{match[3]}", {})[match[2]] = value
        elif match := re.fullmatch(r"transformer\.decoder\.layers\.(\d+)\.(.+)", name):
            out[f"transformer_decoder.layers.{match[1]}.{_swap(match[2], LAYER)}"] = value
        elif match := re.fullmatch(r"pixel_decoder\.encoder\.layers\.(\d+)\.(.+)", name):
            out[f"pixel_decoder.encoder.layers.{match[1]}.{_swap(match[2], PIXEL_LAYER)}"] = value
        elif name.startswith("pixel_decoder."):
            out["pixel_decoder." + _swap(name.removeprefix("pixel_decoder."), PIXEL)] = value
        else:
            out[_swap(name, TOP)] = value
    out |= {name: torch.cat([parts["q"], parts["k"], parts["v"]]) for name, parts in packed.items()}
    return out


def as_mmdet_2(head: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same head as mmdetection 2 and mmcv 1 name it."""
    swaps = [
        (r"(transformer_decoder\..*)\.cross_attn\.attn", r"\1.attentions.0.attn"),
        (r"(transformer_decoder\..*)\.self_attn\.attn", r"\1.attentions.1.attn"),
        (r"(pixel_decoder\..*)\.self_attn\.", r"\1.attentions.0."),
        (r"\.ffn\.", r".ffns.0."),
    ]
    out = {}
    for name, value in head.items():
        for old, new in swaps:
            name = re.sub(old, new, name)
        out[name] = value
    return out


def _swap(name: str, table: Mapping[str, str]) -> str:
    """`name` with the longest known beginning replaced."""
    known = max((old for old in table if name == old or name.startswith(old + ".")), key=len)
    return table[known] + name[len(known) :]
