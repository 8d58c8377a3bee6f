"""Labelled batches: the published random scale, crop and colours, each update's its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gkd_core.data.catalog.sources import Mix
from gkd_core.data.catalog.taxonomy import IGNORE, LabelEncoding
from gkd_core.data.files.reading import LabelledImages, Pair
from gkd_core.data.order.samples import Reading
from gkd_core.settings import LearnTaskSettings
from gkd_core.task.batches import LabelledBatches, shortest_edge_scale

MEAN = torch.tensor([0.5, 0.25, 0.75])
ENCODING = LabelEncoding(taxonomy="street", ids={0: 0, 1: 1, 2: IGNORE})


@pytest.fixture
def pairs(tmp_path: Path) -> list[Pair]:
    """An image of 40 × 80: left half black of class 0, right half white of class 1."""
    pixels = np.zeros((40, 80, 3), np.uint8)
    pixels[:, 40:] = 255
    Image.fromarray(pixels).save(tmp_path / "i.png")
    Image.fromarray((pixels[..., 0] // 255).astype(np.uint8)).save(tmp_path / "l.png")
    return [Pair(tmp_path / "i.png", tmp_path / "l.png")]


def batches_of(settings: LearnTaskSettings, pairs: list[Pair], seed: int) -> LabelledBatches:
    return LabelledBatches(settings, [LabelledImages(pairs, ENCODING)], Reading("t", seed), MEAN)


def test_each_part_is_read_with_its_own_encoding(pairs: list[Pair]) -> None:
    """Both parts show the same files; only their tables differ. A batch of the mix has three of the one, one of the other."""
    swapped = LabelEncoding(taxonomy="street", ids={0: 5, 1: 5})
    settings = LearnTaskSettings(image_size=(16, 16), batch_size=8, colors="jitter", color_jitter=0)
    parts = [LabelledImages(pairs * 3, ENCODING), LabelledImages(pairs, swapped)]
    target = LabelledBatches(settings, parts, Reading("t", 0, Mix((3, 1), (3, 1))), MEAN)(0).target
    fives = [bool((ids == 5).any()) for ids in target]
    assert fives.count(True) == 2
    for ids, of_swapped in zip(target, fives, strict=True):
        assert set(ids.unique().tolist()) <= ({5, IGNORE} if of_swapped else {0, 1, IGNORE})


@pytest.mark.parametrize("colors", ["distortion", "jitter"])
def test_what_lies_beyond_an_image_is_the_mean_after_flip_and_colours(pairs: list[Pair], colors: str) -> None:
    """The image scaled to 16 × 32 in crops of 24 × 48: below and to the right, uncoloured, ignored, flipped or not."""
    settings = LearnTaskSettings.model_validate(
        {"image_size": (24, 48), "resize_range": (0.4, 0.4), "resize_of": "image", "colors": colors, "batch_size": 8}
    )
    images, target = batches_of(settings, pairs, 0)(0)
    beyond = torch.ones(24, 48, dtype=torch.bool)
    beyond[:16, :32] = False
    for image, ids in zip(images, target, strict=True):
        assert torch.equal(image[:, beyond], MEAN[:, None].expand(3, int(beyond.sum())))
        assert torch.equal(ids == IGNORE, beyond)
    assert {int(ids[0, 0]) for ids in target} == {0, 1}, "some are flipped"


def test_padding_black_comes_before_flip_and_colours(pairs: list[Pair]) -> None:
    settings = LearnTaskSettings.model_validate(
        {"image_size": (24, 48), "resize_range": (0.4, 0.4), "resize_of": "image", "padding": "black", "batch_size": 8}
    )
    left = {bool((ids[:16, :16] == IGNORE).all()) for ids in batches_of(settings, pairs, 0)(0).target}
    assert left == {True, False}, "on either side"


def test_the_shortest_edge_takes_the_sixteen_released_sizes() -> None:
    draws = torch.Generator().manual_seed(0)
    edges = {round(720 * shortest_edge_scale((720, 1280), 512, (0.5, 2.0), 2048, draws)) for _ in range(600)}
    assert edges == {512 * tenth // 10 for tenth in range(5, 21)}
    assert (min(edges), max(edges)) == (256, 1024)


def test_no_edge_becomes_longer_than_the_bound() -> None:
    draws = torch.Generator().manual_seed(0)
    wide = [1500 * shortest_edge_scale((400, 1500), 512, (0.5, 2.0), 2048, draws) for _ in range(200)]
    assert max(wide) == pytest.approx(2048)
    draws = torch.Generator().manual_seed(0)
    assert max(1500 * shortest_edge_scale((400, 1500), 512, (0.5, 2.0), None, draws) for _ in range(200)) == pytest.approx(3840)


@pytest.mark.parametrize(("resize_of", "side"), [("crop", 16), ("image", 40)])
def test_what_the_range_scales_is_the_settings_choice(pairs: list[Pair], resize_of: str, side: int) -> None:
    """At scale 1 the image's 40 rows become the crop's 16, or stay: the crop of 16 columns then shows 1 or 2.5 times as much."""
    settings = LearnTaskSettings.model_validate(
        {
            "image_size": (16, 16), "resize_range": (1.0, 1.0), "resize_of": resize_of, "cat_max_ratio": 1.0,
            "colors": "jitter", "color_jitter": 0, "batch_size": 8,
        }
    )  # fmt: skip
    batch = batches_of(settings, pairs, 0)(0)
    assert batch.images.shape == (8, 3, 16, 16)
    assert batch.target.shape == (8, 16, 16)
    steps = (batch.images[:, 0, 0, 1:] - batch.images[:, 0, 0, :-1]).abs()
    edge = steps.amax()
    # Shrunk by 2.5 without antialiasing or kept, the edge between black and white stays within two pixels.
    assert edge > 0.3
    agree = ((batch.images[:, 0] > 0.5).long() == batch.target).float().mean()
    assert agree > 0.95
    # Of the scaled width, twice `side`, crops of 16 columns start anywhere: all of one class, unless they meet the middle.
    mixed = ((batch.target == 0).any(-1).any(-1) & (batch.target == 1).any(-1).any(-1)).float().mean()
    assert mixed > (0.4 if side == 16 else 0)


def test_batches_are_a_function_of_the_update(pairs: list[Pair]) -> None:
    settings = LearnTaskSettings(image_size=(16, 16), batch_size=2)
    batches, again = (batches_of(settings, pairs, 3) for _ in range(2))
    batches(0)  # what came before makes no difference
    assert torch.equal(batches(5).images, again(5).images)
    assert torch.equal(batches(5).target, again(5).target)
    assert not torch.equal(batches(5).images, batches(6).images)


def test_colours_are_distorted_and_labels_are_not(pairs: list[Pair]) -> None:
    plain = LearnTaskSettings(image_size=(16, 16), batch_size=4, colors="jitter", color_jitter=0)
    bright = plain.model_copy(update={"colors": "distortion"})
    batches = [batches_of(settings, pairs, 0)(0) for settings in (plain, bright)]
    assert torch.equal(batches[0].target, batches[1].target)
    assert not torch.equal(batches[0].images, batches[1].images)
    assert batches[1].images.min() >= 0
    assert batches[1].images.max() <= 1


def test_the_files_of_an_update_are_those_of_its_batch(pairs: list[Pair]) -> None:
    batches = batches_of(LearnTaskSettings(image_size=(16, 16), batch_size=3), pairs, 0)
    assert batches.files(4) == [pairs[0].image] * 3
