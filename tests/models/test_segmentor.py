"""Segmentors: shapes, seeds, and their form on disk."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor

from gkd_core.data.catalog.taxonomy import IGNORE
from gkd_core.errors import GkdError, SettingsError, WeightsError
from gkd_core.models.build import build_encoder
from gkd_core.models.decoders import DECODERS, build_decoder, segmentation_loss
from gkd_core.models.encoder import Encoder
from gkd_core.models.segmentor import Segmentor, build_segmentor, load_segmentor
from gkd_core.records import MANIFEST, SegmentorCheckpoint, sha256_of
from gkd_core.settings import EncoderSettings, Mask2FormerSettings

FEW = Mask2FormerSettings(queries=5, decoder_layers=1, pixel_layers=1, heads=2, feedforward=32, pixel_feedforward=32)


@pytest.mark.parametrize("decoder", DECODERS)
@torch.no_grad()
def test_logits_have_the_size_of_the_image(vit: Encoder, decoder: str) -> None:
    segmentor = build_segmentor(vit, decoder, classes=5, width=64, seed=0, mask2former=FEW).eval()
    assert segmentor(torch.rand(2, 3, 32, 48)).shape == (2, 5, 32, 48)


@pytest.mark.parametrize("decoder", DECODERS)
def test_decoders_are_a_function_of_the_seed(vit: Encoder, decoder: str) -> None:
    first, again, other = (build_segmentor(vit, decoder, 5, 64, seed, FEW).decoder.state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(tensor, first[name]) for name, tensor in again.items())
    assert any(not torch.equal(tensor, first[name]) for name, tensor in other.items())


def test_the_linear_decoder_classifies_each_token_in_its_place(vit: Encoder) -> None:
    segmentor = build_segmentor(vit, "linear", classes=5, width=8, seed=0).eval()
    images = torch.rand(1, 3, 16, 32)  # 2 x 4 patches
    weight, bias = segmentor.decoder.parameters()
    by_hand = vit.eval().tokens(images).patches @ weight.flatten(1).T + bias
    logits = segmentor.decoder(segmentor.decoder.features(vit, images))
    assert logits.shape == (1, 5, 2, 4)
    for index in range(8):
        torch.testing.assert_close(logits[0, :, index // 4, index % 4], by_hand[0, index])


def test_unknown_decoders_are_refused(vit: Encoder) -> None:
    with pytest.raises(SettingsError, match="unknown decoder 'unet'; allowed: linear, segformer, mask2former"):
        build_decoder("unet", vit, 5, 8)


def test_names_of_tensors_stay_so_that_written_segmentors_can_be_read(vit: Encoder) -> None:
    decoders = {name: set(build_decoder(name, vit, 5, 64, FEW).state_dict()) for name in DECODERS}
    assert decoders["linear"] == {"classifier.weight", "classifier.bias"}
    assert {"head.linear_fuse.weight", "head.linear_projections.3.proj.bias", "head.classifier.weight"} <= decoders["segformer"]
    assert {"pixel_decoder.level_embed", "transformer.queries_features.weight", "classifier.weight"} <= decoders["mask2former"]


@pytest.fixture(params=[("segformer", "none"), ("mask2former", "none"), ("mask2former", "final")])
def saved(request: pytest.FixtureRequest, vit_settings: EncoderSettings, tmp_path: Path) -> tuple[Segmentor, Path]:
    # Built with another seed than the record states, so that only loading can give these weights.
    decoder, norm = request.param
    segmentor = build_segmentor(build_encoder(vit_settings, 11), decoder, 3, 64, 11, FEW, norm).eval()
    safetensors.torch.save_file(segmentor.state_dict(), tmp_path / "w.safetensors")
    SegmentorCheckpoint(
        encoder=vit_settings, decoder=decoder, decoder_width=64, mask2former=FEW, feature_norm=norm, taxonomy="street",
        classes=("a", "b", "c"), source="gta5", weights="w.safetensors",
        sha256=sha256_of(tmp_path / "w.safetensors"), method="gkd", seed=0, updates=1, encoder_frozen=True,
    ).write(tmp_path / MANIFEST)  # fmt: skip
    return segmentor, tmp_path


@torch.no_grad()
def test_a_segmentor_comes_back_as_it_was(saved: tuple[Segmentor, Path]) -> None:
    segmentor, folder = saved
    loaded = load_segmentor(folder)
    assert not loaded.training
    images = torch.rand(1, 3, 64, 64)
    assert torch.equal(loaded(images), segmentor(images))


@torch.no_grad()
def test_records_from_before_the_setting_are_of_normed_maps(vit_settings: EncoderSettings, tmp_path: Path) -> None:
    segmentor = build_segmentor(build_encoder(vit_settings, 11), "segformer", 3, 64, 11, feature_norm="final").eval()
    safetensors.torch.save_file(segmentor.state_dict(), tmp_path / "w.safetensors")
    record = SegmentorCheckpoint(
        encoder=vit_settings, decoder="segformer", decoder_width=64, taxonomy="street", classes=("a", "b", "c"), source="gta5",
        weights="w.safetensors", sha256=sha256_of(tmp_path / "w.safetensors"), method="gkd", seed=0, updates=1,
        encoder_frozen=True,
    )  # fmt: skip
    (tmp_path / MANIFEST).write_text(record.model_dump_json(exclude={"feature_norm"}))
    images = torch.rand(1, 3, 64, 64)
    assert torch.equal(load_segmentor(tmp_path)(images), segmentor(images))


def test_tampered_missing_or_foreign_files_are_refused(saved: tuple[Segmentor, Path]) -> None:
    _, folder = saved
    weights = folder / "w.safetensors"
    changed = bytearray(weights.read_bytes())
    changed[-1] ^= 1
    weights.write_bytes(changed)
    with pytest.raises(WeightsError, match=r"its content is not what .*manifest\.json describes"):
        load_segmentor(folder)
    weights.unlink()
    with pytest.raises(WeightsError, match="cannot be read"):
        load_segmentor(folder)
    (folder / MANIFEST).write_text("{}")
    with pytest.raises(GkdError, match="not a SegmentorCheckpoint of this version"):
        load_segmentor(folder)
    (folder / MANIFEST).unlink()
    with pytest.raises(GkdError, match="no such file; run the stage that writes it first"):
        load_segmentor(folder)


def logits_and_target() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    target = torch.randint(0, 4, (2, 8, 8))
    target[torch.rand(2, 8, 8) < 0.4] = IGNORE
    return torch.randn(2, 4, 8, 8), target


def test_ignored_pixels_contribute_nothing() -> None:
    logits, target = logits_and_target()
    counted = target != IGNORE
    by_hand = -logits.log_softmax(dim=1).permute(0, 2, 3, 1)[counted][torch.arange(int(counted.sum())), target[counted]].mean()
    torch.testing.assert_close(segmentation_loss(logits, target), by_hand)
    leaf = logits.clone().requires_grad_()
    segmentation_loss(leaf, target).backward()
    assert leaf.grad is not None
    assert not leaf.grad.permute(0, 2, 3, 1)[~counted].any()
    assert leaf.grad.permute(0, 2, 3, 1)[counted].any()


def test_a_batch_without_counted_pixels_has_no_loss_and_no_nan() -> None:
    logits = torch.randn(1, 4, 8, 8, requires_grad=True)
    loss = segmentation_loss(logits, torch.full((1, 8, 8), IGNORE))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_the_loss_is_taken_at_the_labels_size() -> None:
    right = torch.zeros(1, 2, 2, 2)
    right[:, 0, :, 0] = right[:, 1, :, 1] = 10
    target = torch.zeros(1, 16, 16).long()
    target[..., 8:] = 1
    assert segmentation_loss(right, target) < 0.3 < segmentation_loss(right.flip(-1), target)
