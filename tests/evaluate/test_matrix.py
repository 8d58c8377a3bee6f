"""A model measured on a domain of image files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from gkd_core.data.entries import Protocol
from gkd_core.data.reading import Pair
from gkd_core.data.taxonomy import IGNORE, LabelEncoding
from gkd_core.evaluate.confusion import class_iou
from gkd_core.evaluate.matrix import Domain, measure
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


def domain(folder: Path, protocol: Protocol, size: tuple[int, int] = (40, 72)) -> Domain:
    """Two images whose left third is class 0, then 1, then 2; the top row of the label is ignored."""
    pairs = []
    for index in range(2):
        label = (np.arange(size[1]) * 3 // size[1]).astype(np.uint8)[None].repeat(size[0], axis=0)
        Image.fromarray(np.repeat((label * 80)[..., None], 3, axis=2)).save(folder / f"{index}.png")
        label[0] = 9
        Image.fromarray(label).save(folder / f"{index}_label.png")
        pairs.append(Pair(folder / f"{index}.png", folder / f"{index}_label.png"))
    return Domain(pairs, ENCODING, protocol, classes=3)


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
    # At half size the top row of labels, ignored, is still one row of 32.
    assert int(matrix.sum()) == (2 * 31 * 48 if resize_labels else 2 * 63 * 96)
    assert all(iou is not None and iou > 90 for iou in class_iou(matrix))


def test_the_image_is_shrunk_into_the_largest_size(tmp_path: Path) -> None:
    model = ReadsGrey()
    windows = EvaluateSettings(window=(512, 512), stride=(341, 341))
    measure(model, domain(tmp_path, Protocol(max_size=(32, 64)), (64, 64)), windows, torch.device("cpu"), lambda done: None)
    assert set(model.sizes) == {(32, 32)}
