"""Labelled views: the published random scale, crop and colours, each update's its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gkd_core.data.catalog.sources import Mix, whole
from gkd_core.data.catalog.taxonomy import IGNORE, LabelEncoding
from gkd_core.data.files.reading import LabelledImages, Pair
from gkd_core.settings import LearnTaskSettings
from gkd_core.task.views import LabelledViews, shortest_edge_scale

ENCODING = LabelEncoding(taxonomy="street", ids={0: 0, 1: 1, 2: IGNORE})


@pytest.fixture
def pairs(tmp_path: Path) -> list[Pair]:
    """An image of 40 × 80: left half black of class 0, right half white of class 1."""
    pixels = np.zeros((40, 80, 3), np.uint8)
    pixels[:, 40:] = 255
    Image.fromarray(pixels).save(tmp_path / "i.png")
    Image.fromarray((pixels[..., 0] // 255).astype(np.uint8)).save(tmp_path / "l.png")
    return [Pair(tmp_path / "i.png", tmp_path / "l.png")]


def views_of(settings: LearnTaskSettings, pairs: list[Pair], seed: int) -> LabelledViews:
    return LabelledViews(settings, [LabelledImages(pairs, ENCODING)], whole(len(pairs)), "t", seed)


def test_each_part_is_read_with_its_own_encoding(pairs: list[Pair]) -> None:
    """Both parts show the same files; only their tables differ. A batch of the mix has three of the one, one of the other."""
    swapped = LabelEncoding(taxonomy="street", ids={0: 5, 1: 5})
    settings = LearnTaskSettings(image_size=(16, 16), batch_size=8, colors="jitter", color_jitter=0)
    parts = [LabelledImages(pairs * 3, ENCODING), LabelledImages(pairs, swapped)]
    target = LabelledViews(settings, parts, Mix((3, 1), (3, 1)), "t", 0)(0).target
    fives = [bool((ids == 5).any()) for ids in target]
    assert fives.count(True) == 2
    for ids, of_swapped in zip(target, fives, strict=True):
        assert set(ids.unique().tolist()) <= ({5, IGNORE} if of_swapped else {0, 1, IGNORE})


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
    batch = views_of(settings, pairs, 0)(0)
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


def test_views_are_a_function_of_the_update(pairs: list[Pair]) -> None:
    settings = LearnTaskSettings(image_size=(16, 16), batch_size=2)
    batches, again = (views_of(settings, pairs, 3) for _ in range(2))
    batches(0)  # what came before makes no difference
    assert torch.equal(batches(5).images, again(5).images)
    assert torch.equal(batches(5).target, again(5).target)
    assert not torch.equal(batches(5).images, batches(6).images)


def test_colours_are_distorted_and_labels_are_not(pairs: list[Pair]) -> None:
    plain = LearnTaskSettings(image_size=(16, 16), batch_size=4, colors="jitter", color_jitter=0)
    bright = plain.model_copy(update={"colors": "distortion"})
    views = [views_of(settings, pairs, 0)(0) for settings in (plain, bright)]
    assert torch.equal(views[0].target, views[1].target)
    assert not torch.equal(views[0].images, views[1].images)
    assert views[1].images.min() >= 0
    assert views[1].images.max() <= 1


def test_the_files_of_an_update_are_those_of_its_views(pairs: list[Pair]) -> None:
    views = views_of(LearnTaskSettings(image_size=(16, 16), batch_size=3), pairs, 0)
    assert views.files(4) == [pairs[0].image] * 3
