"""A batch in parts: every sample once, what belongs together in one part."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from gkd_core.training.micro_batches import cut


class Pair(NamedTuple):
    image: Tensor
    name: list[str]


@dataclass(frozen=True)
class Batch:
    pair: Pair
    masks: Tensor
    extra: dict[str, Tensor]
    warm_up: bool


def batch() -> Batch:
    images = torch.arange(6).unsqueeze(1)
    return Batch(Pair(images, list("abcdef")), images[:3] * 10, {"slot": images.flatten() + 100}, warm_up=True)


def test_samples_stay_with_what_belongs_to_them() -> None:
    parts = cut(batch(), 3)
    assert [part.pair.image.flatten().tolist() for part in parts] == [[0, 3], [1, 4], [2, 5]]
    assert [part.pair.name for part in parts] == [["a", "d"], ["b", "e"], ["c", "f"]]
    assert [part.extra["slot"].tolist() for part in parts] == [[100, 103], [101, 104], [102, 105]]
    assert all(part.warm_up is True for part in parts)


def test_the_first_samples_stay_first_and_are_shared_out_evenly() -> None:
    """Masks belong to the first images of a batch, and so of each part."""
    for part in cut(batch(), 3):
        assert part.masks.flatten().tolist() == [10 * int(part.pair.image[0])]


def test_one_part_is_the_batch_itself() -> None:
    whole = batch()
    assert cut(whole, 1)[0] is whole
