"""A released checkpoint as one of our models, with an account of every tensor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gkd_core.distill.objective import QSDObjective
from gkd_core.errors import WeightsError
from gkd_core.interop.checkpoint import ReleasedCheckpoint
from gkd_core.interop.names import Renamed, Rule, rename, under
from gkd_core.interop.sizes import decoder_sizes, on_grid_of, tensor_of
from gkd_core.interop.tables import ASIDES, EVA, EVA_SEPARATE, HEADS, PIXEL_DECODER, QUERIES, TRANSFORMER, VIT
from gkd_core.models.build import build_encoder
from gkd_core.models.segmentor import Segmentor, build_segmentor
from gkd_core.models.weights import Coverage, load_into
from gkd_core.settings import EncoderSettings, FeatureNorm

STUDENT = "student.backbone."
# What their backbones hand to the head: raw outputs of the blocks.
RELEASED_NORM: FeatureNorm = "none"
# What stage two's checkpoints may lack, because stage two does not use it; the model keeps its own. The mask token; and EVA-02's
# final norm, which the authors' stage two has not, as its head sees the blocks' raw outputs.
OPTIONAL = ("encoder.mask_token", "encoder.backbone.fc_norm.weight", "encoder.backbone.fc_norm.bias")


@dataclass(frozen=True)
class Imported:
    """A released checkpoint in one of our models.

    Attributes:
        model: the student with its heads, or the segmentor; in evaluation mode.
        encoder: settings that build its encoder, on the checkpoint's own grid.
        renamed: what became of each of the authors' names.
        coverage: how the renamed tensors fit the model.
    """

    checkpoint: ReleasedCheckpoint
    model: QSDObjective | Segmentor
    encoder: EncoderSettings
    renamed: Renamed
    coverage: Coverage


def import_stage_one(checkpoint: ReleasedCheckpoint, arch: EncoderSettings) -> Imported:
    """The student and its three heads, on the grid that the checkpoint is laid out for.

    Raises:
        WeightsError: the model lacks a tensor, or the checkpoint has one for which the model has no place.
        SettingsError: timm has no such architecture.
    """
    encoder = on_grid_of(checkpoint, STUDENT, arch)
    teacher_dim = tensor_of(checkpoint, "fea_head.proj_q.1.weight").shape[0]
    model = QSDObjective(build_encoder(encoder, seed=0), teacher_dim)
    rules = (*under(backbone_rules(checkpoint, encoder.arch), STUDENT, "student."), *HEADS)
    return _fill(checkpoint, model, encoder, rules)


def import_stage_two(checkpoint: ReleasedCheckpoint, arch: EncoderSettings, classes: int) -> Imported:
    """The segmentor, on the grid, and with the decoder's sizes, of the checkpoint.

    Raises:
        WeightsError: as `import_stage_one`, or the head has another number of classes.
        SettingsError: timm has no such architecture.
    """
    found = tensor_of(checkpoint, "decode_head.cls_embed.weight").shape[0] - 1
    if found != classes:
        raise WeightsError(
            f"{checkpoint.path}: its head knows {found} classes and the benchmark has {classes}; give the benchmark that it was "
            "trained for (--benchmark P2R, say)"
        )
    encoder = on_grid_of(checkpoint, "backbone.", arch)
    decoder, width = decoder_sizes(checkpoint)
    model = build_segmentor(
        build_encoder(encoder, seed=0), "mask2former", classes, width, seed=0, mask2former=decoder, feature_norm=RELEASED_NORM
    )
    rules = (
        *under(backbone_rules(checkpoint, encoder.arch), "backbone.", "encoder."),
        *under(PIXEL_DECODER, "decode_head.pixel_decoder.", "decoder.pixel_decoder."),
        *under(TRANSFORMER, "decode_head.transformer_decoder.", "decoder.transformer."),
        *under(QUERIES, "decode_head.", "decoder."),
    )
    return _fill(checkpoint, model, encoder, rules)


def backbone_rules(checkpoint: ReleasedCheckpoint, arch: str) -> tuple[Rule, ...]:
    """Rules for the backbone of a checkpoint. EVA-02's two layouts differ in where their biases lie."""
    if not arch.startswith("eva02"):
        return VIT
    separate = any(name.endswith(".attn.q_proj.weight") for name in checkpoint.tensors)
    return (*(EVA_SEPARATE if separate else EVA), *VIT)


def _fill(
    checkpoint: ReleasedCheckpoint, model: QSDObjective | Segmentor, encoder: EncoderSettings, rules: Sequence[Rule]
) -> Imported:
    renamed = rename(checkpoint.tensors, rules, ASIDES)
    own = model.state_dict()
    kept = {name: own[name] for name in OPTIONAL if name in own and name not in renamed.tensors}
    coverage = load_into(model, {**kept, **renamed.tensors}, str(checkpoint.path))
    if coverage.unexpected:
        raise WeightsError(
            f"{checkpoint.path}: {encoder.arch} has no place for {len(coverage.unexpected)} of its tensors "
            f"({', '.join(coverage.unexpected[:3])}); choose the architecture of the checkpoint"
        )
    return Imported(checkpoint, model.eval(), encoder, renamed, coverage)
