"""A student as a plain timm model: the printed call builds it, the file fills it, and it gives the same tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors
import safetensors.torch
import timm
import torch
from torch import Tensor
from typer.testing import CliRunner

from gkd_core.cli import app
from gkd_core.errors import GkdError, WeightsError
from gkd_core.interop.export import as_timm, read_encoder, write_timm
from gkd_core.models.build import build_encoder
from gkd_core.models.encoder import Encoder
from gkd_core.models.segmentor import build_segmentor
from gkd_core.records import MANIFEST, EncoderCheckpoint, SegmentorCheckpoint, sha256_of
from gkd_core.settings import EncoderSettings

TINY = {"embed_dim": 48, "depth": 2, "num_heads": 2}
VITS = [
    EncoderSettings(arch="deit_tiny_patch16_224", patch_size=8, image_size=32, options=TINY),
    EncoderSettings(arch="vit_small_patch14_reg4_dinov2", patch_size=8, image_size=32, options=TINY),
    EncoderSettings(arch="eva02_tiny_patch14_224", patch_size=8, image_size=32, options=TINY),
]
CNN = EncoderSettings(arch="mobilenetv3_small_050", token_strides=(8, 16, 32))


def encoder_folder(folder: Path, encoder: Encoder, settings: EncoderSettings) -> Path:
    """What stage one writes, as far as an export reads it."""
    folder.mkdir()
    weights = folder / "encoder.safetensors"
    safetensors.torch.save_file({name: value.contiguous() for name, value in encoder.state_dict().items()}, weights)
    EncoderCheckpoint(
        encoder=settings, weights=weights.name, sha256=sha256_of(weights), stage="s", method="gkd", seed=0, updates=1
    ).write(folder / MANIFEST)
    return folder


def exported(folder: Path, output: Path) -> tuple[Any, dict[str, str], str]:
    """The model that the printed call builds, filled from the file; the metadata; what was printed."""
    result = CliRunner().invoke(app, ["export", str(folder), "--output", str(output)], env={"COLUMNS": "400"})
    assert result.exit_code == 0, result.output
    call = next(line for line in result.output.splitlines() if line.startswith("timm.create_model("))
    model = eval(call, {"timm": timm})  # the point of the line is to be pasted
    model.load_state_dict(safetensors.torch.load_file(output), strict=True)
    with safetensors.safe_open(output, "pt") as file:
        metadata = file.metadata()
    assert metadata["create_model"] == call
    return model.eval(), metadata, result.output


def normalised(images: Tensor, metadata: dict[str, str]) -> Tensor:
    mean, std = (torch.tensor(json.loads(metadata[key])).view(1, 3, 1, 1) for key in ("mean", "std"))
    return (images - mean) / std


@pytest.mark.parametrize("settings", VITS, ids=lambda settings: settings.arch)
@torch.no_grad()
def test_a_vit_gives_the_same_tokens_in_timm(tmp_path: Path, settings: EncoderSettings) -> None:
    encoder = build_encoder(settings, seed=3).eval()
    model, metadata, _ = exported(encoder_folder(tmp_path / "student", encoder, settings), tmp_path / "student.safetensors")
    images = torch.rand(2, 3, 32, 32)
    theirs = model.forward_features(normalised(images, metadata))
    ours = encoder.tokens(images)
    torch.testing.assert_close(theirs[:, 0], ours.cls)
    torch.testing.assert_close(theirs[:, model.num_prefix_tokens :], ours.patches)
    assert json.loads(metadata["options"])["patch_size"] == 8


@torch.no_grad()
def test_a_cnn_gives_the_same_maps_in_timm(tmp_path: Path) -> None:
    encoder = build_encoder(CNN, seed=3).eval()
    model, metadata, _ = exported(encoder_folder(tmp_path / "student", encoder, CNN), tmp_path / "student.safetensors")
    images = torch.rand(2, 3, 64, 64)
    theirs, ours = model(normalised(images, metadata)), encoder.backbone(encoder.normalise(images))
    assert len(theirs) == len(ours) == 5
    for left, right in zip(theirs, ours, strict=True):
        torch.testing.assert_close(left, right)


def test_a_segmentors_student_is_exported_alike(tmp_path: Path) -> None:
    settings = VITS[0]
    model = build_segmentor(build_encoder(settings, seed=3), "linear", 19, 8, seed=0)
    folder = tmp_path / "segmentor"
    folder.mkdir()
    weights = folder / "segmentor.safetensors"
    safetensors.torch.save_file({name: value.contiguous() for name, value in model.state_dict().items()}, weights)
    SegmentorCheckpoint(
        encoder=settings, decoder="linear", decoder_width=8, taxonomy="cityscapes-19", classes=tuple(map(str, range(19))),
        source="gta5", weights=weights.name, sha256=sha256_of(weights), method="gkd", seed=0, updates=1, encoder_frozen=True,
    ).write(folder / MANIFEST)  # fmt: skip
    student, _, _ = exported(folder, tmp_path / "student.safetensors")
    assert torch.equal(student.pos_embed, model.encoder.backbone.pos_embed)


def test_what_cannot_be_exported_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(GkdError, match=r"manifest\.json: no such file; give a folder that"):
        read_encoder(tmp_path)
    (tmp_path / MANIFEST).write_text('{"kind": "data"}')
    with pytest.raises(GkdError, match=r"describes data; give a folder of an encoder or a segmentor"):
        read_encoder(tmp_path)
    encoder = build_encoder(VITS[0], seed=0)
    folder = encoder_folder(tmp_path / "student", encoder, VITS[0])
    with pytest.raises(GkdError, match=r"out\.pth: an export is a \.safetensors file"):
        write_timm(as_timm(*read_encoder(folder)), tmp_path / "out.pth")
    changed = {name: value + 1 for name, value in encoder.state_dict().items()}
    safetensors.torch.save_file(changed, folder / "encoder.safetensors")
    with pytest.raises(WeightsError, match=r"its content is not what .*manifest\.json describes"):
        read_encoder(folder)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "student.safetensors"
    output.write_text("old")
    model = as_timm(build_encoder(VITS[0], seed=0), VITS[0])

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        write_timm(model, output)
    assert output.read_text() == "old"
    assert [item.name for item in tmp_path.iterdir()] == [output.name]
