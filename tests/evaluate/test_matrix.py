"""A model measured on a domain of image files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from gkd_core.data.catalog.entries import Protocol
from gkd_core.data.catalog.taxonomy import IGNORE, LabelEncoding
from gkd_core.data.files.reading import Pair
from gkd_core.errors import DataError
from gkd_core.evaluate.confusion import class_iou
from gkd_core.evaluate.inference import image_logits
from gkd_core.evaluate.matrix import ScoredImages, measure
from gkd_core.settings import EvaluateSettings

ENCODING = LabelEncoding(taxonomy="street", ids={0: 0, 1: 1, 2: 2, 9: IGNORE})
WINDOWS = EvaluateSettings(window=(32, 32), stride=(20, 20), batch_size=3)


class ReadsGrey(nn.Module):
    """Knows the answer: the class is the grey of the pixel, 80 · class."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[tuple[int, int]] = []

    def forward(self, images: Tensor) -> Tensor:
        self.sizes.append((images.shape[-2], images.shape[-1]))
        greys = torch.arange(3).view(1, 3, 1, 1) * 80 / 255
        return -(images.mean(dim=1, keepdim=True) - greys).abs()


def domain(folder: Path, protocol: Protocol, size: tuple[int, int] = (40, 72)) -> ScoredImages:
    """Two images whose left third is class 0, then 1, then 2; the top row of the label is ignored."""
    pairs = []
    for index in range(2):
        label = (np.arange(size[1]) * 3 // size[1]).astype(np.uint8)[None].repeat(size[0], axis=0)
        Image.fromarray(np.repeat((label * 80)[..., None], 3, axis=2)).save(folder / f"{index}.png")
        label[0] = 9
        Image.fromarray(label).save(folder / f"{index}_label.png")
        pairs.append(Pair(folder / f"{index}.png", folder / f"{index}_label.png"))
    return ScoredImages(pairs, ENCODING, protocol, classes=3)


def test_a_perfect_model_scores_100_on_every_counted_pixel(tmp_path: Path) -> None:
    done: list[int] = []
    matrix = measure(ReadsGrey(), domain(tmp_path, Protocol()), WINDOWS, torch.device("cpu"), done.append)
    assert class_iou(matrix) == [100, 100, 100]
    assert int(matrix.sum()) == 2 * 39 * 72
    assert done == [1, 2]


@pytest.mark.parametrize("resize_labels", [False, True])
def test_scores_are_taken_at_the_size_that_the_protocol_says(tmp_path: Path, resize_labels: bool) -> None:
    protocol = Protocol(scale=0.5, resize_labels=resize_labels)
    matrix = measure(ReadsGrey(), domain(tmp_path, protocol, (64, 96)), WINDOWS, torch.device("cpu"), lambda done: None)
    # At half size each label is that of an odd row and column, so that the top row, ignored, is none of them.
    assert int(matrix.sum()) == (2 * 32 * 48 if resize_labels else 2 * 63 * 96)
    assert all(iou is not None and iou > 90 for iou in class_iou(matrix))


def test_the_image_is_shrunk_into_the_largest_size(tmp_path: Path) -> None:
    model = ReadsGrey()
    windows = EvaluateSettings(window=(512, 512), stride=(341, 341))
    measure(model, domain(tmp_path, Protocol(max_size=(32, 64)), (64, 64)), windows, torch.device("cpu"), lambda done: None)
    assert set(model.sizes) == {(32, 32)}


@pytest.mark.parametrize("shards", [1, 2, 3, 5])
def test_shards_add_up_exactly_and_count_no_image_twice(tmp_path: Path, shards: int) -> None:
    """Three images that differ; with five shards two are empty."""
    torch.manual_seed(0)
    model = nn.Conv2d(3, 3, 3, padding=1).eval()
    draws, pairs = np.random.default_rng(0), []
    for index in range(3):
        Image.fromarray(draws.integers(0, 256, (40, 72, 3), dtype=np.uint8)).save(tmp_path / f"{index}.png")
        Image.fromarray(draws.integers(0, 3, (40, 72), dtype=np.uint8)).save(tmp_path / f"{index}_label.png")
        pairs.append(Pair(tmp_path / f"{index}.png", tmp_path / f"{index}_label.png"))
    whole = ScoredImages(pairs, ENCODING, Protocol(), classes=3)
    parts = [whole.shard(index, shards) for index in range(shards)]
    assert sorted(pair.image.name for part in parts for pair in part.pairs) == ["0.png", "1.png", "2.png"]
    cpu = torch.device("cpu")
    total = sum(measure(model, part, WINDOWS, cpu, lambda done: None) for part in parts)
    assert torch.equal(total, measure(model, whole, WINDOWS, cpu, lambda done: None))  # type: ignore[arg-type]


def test_labels_of_another_taxonomy_are_named(tmp_path: Path) -> None:
    narrow = replace(domain(tmp_path, Protocol()), classes=2)
    with pytest.raises(DataError, match=r"0_label\.png: true train ids reach from 0 to 2; expected 0 to 1"):
        measure(ReadsGrey(), narrow, WINDOWS, torch.device("cpu"), lambda done: None)


def test_labels_may_be_larger_than_what_the_model_is_shown(tmp_path: Path) -> None:
    """As in Mapillary: labels at half size, the image at half size and then fitted into a bound."""
    model = ReadsGrey()
    protocol = Protocol(scale=0.5, max_size=(16, 24), resize_labels=True)
    windows = EvaluateSettings(window=(32, 32), stride=(32, 32))
    matrix = measure(model, domain(tmp_path, protocol, (64, 96)), windows, torch.device("cpu"), lambda done: None)
    assert int(matrix.sum()) == 2 * 32 * 48
    assert set(model.sizes) == {(32, 32)}, "16 x 24 pixels, padded to the next multiple of 32"


def test_bf16_scores_like_fp32_and_sums_in_single_precision(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Conv2d(3, 3, 1).eval()
    image = torch.rand(3, 40, 72)
    half = image_logits(model, image, WINDOWS.model_copy(update={"precision": "bf16"}))
    single = image_logits(model, image, WINDOWS)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, single, atol=0.02, rtol=0.02)
    assert not torch.equal(half, single)
