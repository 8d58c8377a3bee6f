"""What stage two's decoder gets, against the authors' own backbones: weights by their names, features from their code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor

from gkd_core.interop.checkpoint import ReleasedCheckpoint
from gkd_core.interop.importing import import_stage_two
from gkd_core.models.build import build_encoder
from gkd_core.models.segmentor import Segmentor, build_segmentor
from gkd_core.settings import EncoderSettings, Mask2FormerSettings

from .conftest import released_head

CASES = ("dinov2", "eva02", "dinov2_resized")
CLASSES, WIDTH = 19, 64
FEW = Mask2FormerSettings(queries=7, decoder_layers=1, pixel_layers=1, heads=4, feedforward=16, pixel_feedforward=16)


class Golden:
    """One golden file: the authors' weights under their names, an image, and the maps that came out."""

    def __init__(self, path: Path) -> None:
        arrays = numpy.load(path)
        self.values = {name: torch.from_numpy(arrays[name]) for name in arrays.files if not name.startswith("meta/")}
        self.meta: dict[str, Any] = {
            name.removeprefix("meta/"): arrays[name] for name in arrays.files if name.startswith("meta/")
        }

    @property
    def state(self) -> dict[str, Tensor]:
        return {name.replace("weight/", "backbone."): value for name, value in self.values.items() if name.startswith("weight/")}

    @property
    def maps(self) -> list[Tensor]:
        return [self.values[f"out/map{index}"] for index in range(4)]

    @property
    def encoder(self) -> EncoderSettings:
        """On the grid of the weights."""
        grid = {"patch_size": int(self.meta["patch_size"]), "image_size": int(self.meta["img_size"])}
        return self.arch.model_copy(update=grid)

    @property
    def arch(self) -> EncoderSettings:
        sizes = {"embed_dim": int(self.meta["dim"]), "depth": int(self.meta["depth"]), "num_heads": int(self.meta["heads"])}
        if str(self.meta["kind"]) == "dinov2":
            return EncoderSettings(arch="vit_small_patch14_dinov2", options=sizes)
        # As EVA-02-L's: inner norms and a gate of separate projections. These rotations count in the network's own grid, as the
        # file's `rope.freqs_*` say; the true EVA-02's count in one of 16 × 16, which is timm's default.
        own_grid = int(self.meta["img_size"]) // int(self.meta["patch_size"])
        inner = {"mlp_ratio": float(self.meta["mlp_ratio"]), "ref_feat_shape": own_grid}
        return EncoderSettings(arch="eva02_large_patch14_224", options=sizes | inner)


@pytest.fixture(params=CASES)
def golden(request: pytest.FixtureRequest, official: Path) -> Golden:
    return Golden(official / f"maps_{request.param}_official.npz")


def imported(golden: Golden) -> Segmentor:
    """The authors' backbone with a head of random weights, through the import, on images that are normalised already."""
    drawn = build_segmentor(build_encoder(golden.encoder, seed=1), "mask2former", CLASSES, WIDTH, seed=2, mask2former=FEW)
    head = {f"decode_head.{name}": value for name, value in released_head(drawn.decoder.state_dict()).items()}
    checkpoint = ReleasedCheckpoint(Path("iter_40000.pth"), "stage-two", golden.state | head, 40_000, ())
    result = import_stage_two(checkpoint, golden.arch, CLASSES)
    assert not result.renamed.unknown
    assert isinstance(result.model, Segmentor)
    result.model.encoder.mean.zero_()
    result.model.encoder.std.fill_(1.0)
    return result.model


@torch.no_grad()
def test_the_decoder_gets_what_the_authors_decoder_got(golden: Golden) -> None:
    model = imported(golden)
    for ours, theirs in zip(model.decoder.features(model.encoder, golden.values["in/image"]), golden.maps, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


@torch.no_grad()
def test_normed_maps_are_seen_to_be_others(golden: Golden) -> None:
    model = imported(golden)
    for ours, theirs in zip(model.encoder.feature_maps(golden.values["in/image"], "final"), golden.maps, strict=True):
        assert (ours - theirs).abs().max() > 0.1


@torch.no_grad()
def test_a_table_is_resampled_as_released_only_where_asked(official: Path) -> None:
    golden = Golden(official / "maps_dinov2_resized_official.npz")
    image = golden.values["in/image"]
    theirs = golden.maps[2]
    other = build_encoder(golden.encoder.model_copy(update={"resize": "preserving"}), seed=0)
    other.load_state_dict(imported(golden).encoder.state_dict())
    other.mean.zero_()
    other.std.fill_(1.0)
    assert (other.eval().feature_maps(image)[2] - theirs).abs().max() > 1e-3
