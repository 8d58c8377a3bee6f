"""Students of a few thousand weights, of each family and decoder, as bundles."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from gkd_core.data.catalog.entries import Protocol
from gkd_core.models.build import build_encoder
from gkd_core.models.segmentor import Segmentor as Network
from gkd_core.models.segmentor import build_segmentor
from gkd_core.predict.bundle import described
from gkd_core.predict.manifest import Bundle, Licences, OwnIds, View
from gkd_core.predict.pictures import Picture
from gkd_core.predict.student import Segmentor
from gkd_core.records import MANIFEST, SegmentorCheckpoint, sha256_of
from gkd_core.settings import EncoderSettings, Mask2FormerSettings
from tests.conftest import TINY_VIT

FEW = Mask2FormerSettings(queries=5, decoder_layers=1, pixel_layers=1, heads=2, feedforward=32, pixel_feedforward=32)
CNN = {"arch": "resnet10t"}
CLASSES = ("road", "sidewalk", "car", "sky", "tree")
COLORS = ((128, 64, 128), (244, 35, 232), (0, 0, 142), (70, 130, 180), (107, 142, 35))
VIEW = View(window=(32, 32), stride=(21, 21), batch_size=3)


@cache
def network_of(decoder: str, family: str) -> Network:
    """A network of random weights; nobody changes it."""
    encoder = build_encoder(EncoderSettings.model_validate(TINY_VIT if family == "vit" else CNN), 11)
    return build_segmentor(encoder, decoder, len(CLASSES), 64, 11, FEW).eval()


class Lively(torch.nn.Module):
    """A network with its scores brought to one scale: of small random weights one class would win everywhere."""

    def __init__(self, network: Network, additive: bool) -> None:
        super().__init__()
        self.network = network
        with torch.inference_mode():
            scores = network(Picture(noise(64, 64, 9)).rows(0, 64).unsqueeze(0))
        mean, deviation = scores.mean(dim=(0, 2, 3)), scores.std(dim=(0, 2, 3))
        self.shift = (torch.zeros_like(mean) if additive else mean)[:, None, None].clone()
        self.factor = 1 / (mean if additive else deviation)[:, None, None].clone()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = (self.network(images) - self.shift) * self.factor
        return scores


@cache
def lively(decoder: str, family: str) -> Lively:
    """A network that answers more than one class."""
    return Lively(network_of(decoder, family), decoder == "mask2former")


def segmentor_folder(folder: Path, decoder: str = "linear", family: str = "vit") -> Path:
    """A segmentor as stage two leaves it."""
    folder.mkdir(parents=True, exist_ok=True)
    network = network_of(decoder, family)
    safetensors.torch.save_file(network.state_dict(), folder / "segmentor.safetensors")
    SegmentorCheckpoint(
        encoder=EncoderSettings.model_validate(TINY_VIT if family == "vit" else CNN), decoder=decoder, decoder_width=64,
        mask2former=FEW, feature_norm="none", taxonomy="street", classes=CLASSES, source="gta5",
        weights="segmentor.safetensors", sha256=sha256_of(folder / "segmentor.safetensors"), method="gkd", seed=0, updates=1,
        encoder_frozen=True,
    ).write(folder / MANIFEST)  # fmt: skip
    return folder


def bundle_of(folder: Path, view: View = VIEW, **changes: Any) -> Bundle:
    """What a bundle would say of a segmentor's folder."""
    record = SegmentorCheckpoint.read(folder / MANIFEST)
    encoder = network_of(record.decoder, "cnn" if record.encoder.arch == CNN["arch"] else "vit").encoder
    mean, std = (tuple(round(value, 6) for value in part.flatten().tolist()) for part in (encoder.mean, encoder.std))
    facts: dict[str, Any] = {
        "version": "0.1.0", "model": record, "colors": COLORS, "mean": mean, "std": std, "view": view,
        "ids": OwnIds(dataset="gta5", form="index", values=(7, 8, 26, 23, 21)),
        "licences": Licences(student="apache-2.0"), "files": (described(folder / record.weights),),
    }  # fmt: skip
    return Bundle.model_validate(facts | changes)


@pytest.fixture
def student(tmp_path: Path) -> Callable[..., Segmentor]:
    """Gives a student of a decoder and a family."""

    def make(decoder: str = "linear", family: str = "vit", view: View = VIEW, **changes: Any) -> Segmentor:
        folder = segmentor_folder(tmp_path / f"{decoder}-{family}", decoder, family)
        return Segmentor(bundle_of(folder, view, **changes), lively(decoder, family), torch.device("cpu"))

    return make


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    """An image (height, width, 3) of coarse blocks, uint8."""
    blocks = np.random.default_rng(seed).integers(0, 256, (-(-height // 5), -(-width // 5), 3), dtype=np.uint8)
    return np.ascontiguousarray(blocks.repeat(5, axis=0).repeat(5, axis=1)[:height, :width])


SHRINKING = Protocol(max_size=(40, 64))
