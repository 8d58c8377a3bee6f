"""The authors' stage-two checkpoints: mmdetection's names of the head, 3.x and 2.x, to a segmentor with the same outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from gkd_core.cli import app
from gkd_core.errors import WeightsError
from gkd_core.interop.checkpoint import read_released
from gkd_core.interop.importing import Imported, import_stage_two
from gkd_core.interop.released import describe
from gkd_core.interop.sizes import decoder_sizes
from gkd_core.models.build import build_encoder
from gkd_core.models.segmentor import Segmentor, build_segmentor, load_segmentor
from gkd_core.records import MANIFEST, SegmentorCheckpoint
from gkd_core.settings import EncoderSettings, Mask2FormerSettings

from .conftest import as_mmdet_2, released_backbone, released_head

CLASSES, WIDTH = 19, 64
SIZES = Mask2FormerSettings(queries=7, decoder_layers=3, pixel_layers=2, heads=4, feedforward=48, pixel_feedforward=40)
Save = Callable[..., Path]


@pytest.fixture(scope="module")
def segmentor(arch: EncoderSettings) -> Segmentor:
    """Random everywhere, so that no two tensors of one shape could be mistaken for each other unnoticed."""
    model = build_segmentor(build_encoder(arch, seed=1), "mask2former", CLASSES, WIDTH, seed=2, mask2former=SIZES)
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    return model.eval()


def released(segmentor: Segmentor, rename: Callable[[Mapping[str, Tensor]], dict[str, Tensor]] = dict) -> dict[str, Tensor]:
    head = rename(released_head(segmentor.decoder.state_dict()))
    backbone = released_backbone(segmentor.encoder.state_dict())
    return {f"backbone.{name}": value for name, value in backbone.items()} | {
        f"decode_head.{name}": value for name, value in head.items()
    }


def imported(save: Save, state: Mapping[str, Tensor], arch: EncoderSettings) -> Imported:
    return import_stage_two(read_released(save({"state_dict": dict(state), "meta": {"iter": 40_000}})), arch, CLASSES)


@pytest.mark.parametrize("rename", [dict, as_mmdet_2])
def test_round_trip_gives_equal_logits(
    save: Save, arch: EncoderSettings, segmentor: Segmentor, rename: Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
) -> None:
    state = released(segmentor, rename)
    result = imported(save, state, arch)
    assert set(result.renamed.tensors) == set(segmentor.state_dict())
    assert not result.renamed.unknown
    images = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(result.model(images), segmentor(images))


def test_sizes_are_read_off_the_checkpoint(save: Save, segmentor: Segmentor) -> None:
    assert decoder_sizes(read_released(save({"state_dict": released(segmentor)}))) == (SIZES, WIDTH)


def test_a_packed_projection_is_query_then_key_then_value(save: Save, arch: EncoderSettings, segmentor: Segmentor) -> None:
    """Against torch's own attention, which packs them so: mmdetection's layer holds one."""
    layer = segmentor.decoder.transformer.decoder.layers[1].self_attn
    packed = released_head(segmentor.decoder.state_dict())
    oracle = torch.nn.MultiheadAttention(WIDTH, SIZES.heads).eval()
    prefix = "transformer_decoder.layers.1.self_attn.attn."
    oracle.load_state_dict({name: packed[prefix + name] for name in oracle.state_dict()})
    tokens, positions = torch.randn(5, 2, WIDTH), torch.randn(5, 2, WIDTH)
    with torch.no_grad():
        expected, _ = oracle(tokens + positions, tokens + positions, tokens)
        answer, _ = layer(tokens, position_embeddings=positions)
    torch.testing.assert_close(answer, expected)


def test_missing_and_unknown_names_are_reported(save: Save, arch: EncoderSettings, segmentor: Segmentor) -> None:
    state = released(segmentor)
    del state["backbone.mask_token"]  # of no use after stage one
    text = "\n".join(describe(imported(save, state | {"decode_head.conv_seg.weight": torch.zeros(2)}, arch)))
    assert "unknown   decode_head.conv_seg.weight" in text
    assert "kept      encoder.mask_token: not in the checkpoint" in text
    assert "not read  meta" in text
    del state["decode_head.transformer_decoder.layers.2.self_attn.attn.in_proj_bias"]
    with pytest.raises(
        WeightsError, match=r"3 missing.*missing decoder\.transformer\.decoder\.layers\.2\.self_attn\.k_proj\.bias"
    ):
        imported(save, state, arch)


def test_another_number_of_classes_is_refused(save: Save, arch: EncoderSettings, segmentor: Segmentor) -> None:
    checkpoint = read_released(save({"state_dict": released(segmentor)}))
    with pytest.raises(WeightsError, match=r"its head knows 19 classes and the benchmark has 6; give the benchmark"):
        import_stage_two(checkpoint, arch, 6)


def test_the_whole_command_writes_what_stage_two_writes(save: Save, tmp_path: Path) -> None:
    """By way of an architecture that the command line can name."""
    encoder = build_encoder(EncoderSettings(arch="deit_tiny_patch16_224", image_size=32), seed=0)
    model = build_segmentor(encoder, "mask2former", CLASSES, WIDTH, seed=0, mask2former=SIZES).eval()
    path, folder = save({"state_dict": released(model), "meta": {"iter": 40_000}}), tmp_path / "citys"
    arguments = ["import-checkpoint", str(path), "--arch", "deit_tiny_patch16_224", "--benchmark", "C2A", "--output", str(folder)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    record = SegmentorCheckpoint.read(folder / MANIFEST)
    assert (record.source, record.updates, record.mask2former, record.encoder.image_size) == ("cityscapes", 40_000, SIZES, 32)
    images = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(load_segmentor(folder)(images), model(images))
