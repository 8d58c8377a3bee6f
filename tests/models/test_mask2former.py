"""Mask2Former fed with an encoder's maps: initialisation, strides, size, semantic logits, export."""

from __future__ import annotations

import pytest
import torch

from gkd_core.errors import SettingsError
from gkd_core.models.build import build_encoder, parameter_count
from gkd_core.models.encoder import Encoder
from gkd_core.models.mask2former import Mask2FormerDecoder, semantic_logits
from gkd_core.models.segmentor import Segmentor, build_segmentor
from gkd_core.settings import EncoderSettings, Mask2FormerSettings

FEW = Mask2FormerSettings(
    queries=5, decoder_layers=2, pixel_layers=2, heads=2, feedforward=32, pixel_feedforward=32, points=64
)  # fmt: skip


@pytest.fixture
def segmentor(vit: Encoder) -> Segmentor:
    return build_segmentor(vit, "mask2former", classes=3, width=64, seed=0, mask2former=FEW).eval()


def decoder_of(segmentor: Segmentor) -> Mask2FormerDecoder:
    assert isinstance(segmentor.decoder, Mask2FormerDecoder)
    return segmentor.decoder


def test_level_and_query_embeddings_are_drawn_rather_than_left_as_memory(vit: Encoder) -> None:
    """Memory that is not initialised often holds zeros or the same values again: other seeds must give other values."""
    first, again, other = (
        decoder_of(build_segmentor(vit, "mask2former", 3, 64, seed, FEW)).pixel_decoder.level_embed for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.std().item() == pytest.approx(1, abs=0.2)
    transformer = decoder_of(build_segmentor(vit, "mask2former", 3, 64, 0, FEW)).transformer
    for embedding in (transformer.level_embed, transformer.queries_embedder, transformer.queries_features):
        assert embedding.weight.std().item() == pytest.approx(1, abs=0.2)


def test_deformable_attention_starts_by_looking_around(segmentor: Segmentor) -> None:
    """Each head looks its own way, point by point further away, whatever the features are (Deformable DETR)."""
    layers = decoder_of(segmentor).pixel_decoder.encoder.layers
    assert len(layers) == FEW.pixel_layers
    for layer in layers:
        offsets = layer.self_attn.sampling_offsets
        assert not offsets.weight.any()
        bias = offsets.bias.view(FEW.heads, 3, 4, 2)
        assert bias.abs().amax(dim=-1)[:, 0].tolist() == [[1, 2, 3, 4]] * FEW.heads
        directions = {tuple(row) for row in bias[:, 0, 0].round(decimals=3).tolist()}
        assert len(directions) == FEW.heads


@torch.no_grad()
def test_a_plain_vit_gets_its_pyramid_first_so_that_masks_come_out_at_stride_4(segmentor: Segmentor) -> None:
    images = torch.rand(1, 3, 64, 96)  # tokens at stride 8
    decoder = decoder_of(segmentor)
    maps = decoder.features(segmentor.encoder, images)
    assert [tuple(level.shape[-2:]) for level in maps] == [(16, 24), (8, 12), (4, 6), (2, 3)]
    layers = decoder.predict(maps)
    assert len(layers) == FEW.decoder_layers + 1, "the first guess, then every layer"
    assert {tuple(layer.masks.shape) for layer in layers} == {(1, 5, 16, 24)}
    assert {tuple(layer.classes.shape) for layer in layers} == {(1, 5, 4)}
    assert decoder(maps).shape == (1, 3, 64, 96)


def test_the_published_decoder_has_nine_layers_of_the_published_size() -> None:
    with torch.device("meta"):
        decoder = Mask2FormerDecoder([384] * 4, 19, 256, Mask2FormerSettings(), "none")
    layers = decoder.transformer.decoder.layers
    assert (len(layers), layers[0].fc1.out_features) == (9, 2048)
    pixels = decoder.pixel_decoder.encoder.layers
    assert (len(pixels), pixels[0].fc1.out_features) == (6, 1024)
    assert decoder.transformer.queries_features.weight.shape == (100, 256)


@pytest.mark.parametrize(("arch", "millions"), [("deit_small_patch16_224", 41.9), ("deit_base_patch16_224", 106.8)])
def test_student_and_decoder_have_the_papers_parameter_count(arch: str, millions: float) -> None:
    with torch.device("meta"):
        encoder = build_encoder(EncoderSettings(arch=arch, image_size=512), seed=0)
        segmentor = build_segmentor(encoder, "mask2former", classes=19, width=256, seed=0)
    assert parameter_count(segmentor) / 1e6 == pytest.approx(millions, rel=0.02)


def test_semantic_logits_by_hand() -> None:
    classes, masks = torch.randn(2, 5, 4), torch.randn(2, 5, 3, 6)
    by_hand = torch.zeros(2, 3, 3, 6)
    for query in range(5):
        for label in range(3):
            share = classes[:, query].exp()[:, label] / classes[:, query].exp().sum(dim=-1)
            by_hand[:, label] += share[:, None, None] / (1 + (-masks[:, query]).exp())
    torch.testing.assert_close(semantic_logits(classes, masks), by_hand)


@torch.no_grad()
def test_masks_are_resampled_before_they_become_probabilities(segmentor: Segmentor) -> None:
    images = torch.rand(2, 3, 32, 32)
    last = decoder_of(segmentor).predict(segmentor.encoder.feature_maps(images))[-1]
    masks = torch.nn.functional.interpolate(last.masks, size=(32, 32), mode="bilinear", align_corners=False)
    torch.testing.assert_close(segmentor(images), semantic_logits(last.classes, masks))


def test_training_and_evaluation_mode_give_the_same_logits(segmentor: Segmentor) -> None:
    """Nothing is dropped at random, so nothing but the points needs a seed."""
    maps = segmentor.encoder.feature_maps(torch.rand(1, 3, 64, 64))
    quiet = segmentor.decoder(maps)
    torch.testing.assert_close(segmentor.decoder.train()(maps), quiet)


def test_the_loss_reaches_every_parameter(segmentor: Segmentor) -> None:
    decoder = decoder_of(segmentor)
    target = torch.zeros(2, 32, 32, dtype=torch.int64)
    target[:, 16:] = 2
    losses = decoder.loss(decoder.features(segmentor.encoder, torch.rand(2, 3, 32, 32)), target)
    losses["loss"].backward()
    assert set(losses) == {"loss", "loss_class", "loss_mask", "loss_dice"}
    assert [name for name, parameter in decoder.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("width", [32, 72])
def test_widths_that_do_not_divide_are_refused(vit: Encoder, width: int) -> None:
    with pytest.raises(SettingsError, match=f"decoder_width: {width} channels do not make 32 groups of two or more"):
        build_segmentor(vit, "mask2former", 3, width, 0, FEW)


@pytest.mark.slow
@torch.no_grad()
def test_it_can_be_exported_with_a_free_batch(vit: Encoder) -> None:
    least = FEW.model_copy(update={"decoder_layers": 1, "pixel_layers": 1})
    segmentor = build_segmentor(vit, "mask2former", 3, 64, 0, least).eval()
    program = torch.export.export(
        segmentor, (torch.rand(2, 3, 32, 32),), dynamic_shapes={"images": {0: torch.export.Dim("batch", min=1, max=64)}}
    )
    images = torch.rand(3, 3, 32, 32)
    torch.testing.assert_close(program.module()(images), segmentor(images))
