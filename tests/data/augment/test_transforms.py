"""Random views: what they may contain, and that image and label stay together."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gkd_core.data.augment.transforms import jitter_colors, labelled_crop, middle, random_resized_crop, to_float
from gkd_core.data.catalog.taxonomy import IGNORE
from gkd_core.seeding import generator

CLASSES = 6


def blocks(seed: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """A label of 4-pixel blocks, and an image whose grey says the class: 40 · (class + 1)."""
    draws = np.random.default_rng(seed)
    coarse = draws.integers(0, CLASSES, (-(-height // 4), -(-width // 4)), dtype=np.uint8)
    label = coarse.repeat(4, axis=0).repeat(4, axis=1)[:height, :width].copy()
    return np.repeat((40 * (label + 1))[..., None], 3, axis=2), label


def test_to_float_orders_channels_and_scales() -> None:
    image = np.zeros((2, 3, 3), dtype=np.uint8)
    image[0, 1] = (255, 51, 0)
    tensor = to_float(image)
    assert tensor.shape == (3, 2, 3)
    assert tensor[:, 0, 1].tolist() == pytest.approx([1.0, 0.2, 0.0])


@pytest.mark.parametrize("size", [(4, 4), (4, 6), (8, 2), (20, 30), (1, 1)])
@pytest.mark.parametrize("height_width", [(4, 12), (9, 5), (4, 4), (1, 1), (31, 60)])
def test_the_middle_covers_its_size_and_keeps_the_centre(size: tuple[int, int], height_width: tuple[int, int]) -> None:
    """Of a ramp, the mean of a centred part is that of the whole, however it was scaled."""
    height, width = height_width
    ramp = (torch.arange(height).view(-1, 1) / height + torch.arange(width) / width).expand(1, -1, -1) / 2
    view = middle(ramp, size)
    assert tuple(view.shape) == (1, *size)
    step = 0.5 / min(view.shape[1:]) + 0.5 / min(height, width)
    assert float(view.mean()) == pytest.approx(float(ramp.mean()), abs=step)


def test_the_middle_of_an_image_that_covers_is_cut_out_as_it_is() -> None:
    image = torch.rand(3, 4, 10, generator=generator("middle"))
    assert torch.equal(middle(image, (4, 4)), image[:, :, 3:7])


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    height=st.integers(5, 30),
    width=st.integers(5, 30),
    low=st.floats(0.3, 1.0),
    high=st.floats(1.0, 3.0),
)
def test_a_labelled_crop_keeps_image_and_label_aligned(seed: int, height: int, width: int, low: float, high: float) -> None:
    """Where a pixel has the pure grey of a class, undiluted by resampling, its label must be that class."""
    image, label = blocks(seed, height, width)
    view, target = labelled_crop(image, label, (16, 20), (low, high), 0.75, generator("crop", seed))
    assert (view.shape, target.shape) == ((3, 16, 20), (16, 20))
    grey = view[0] * 255 / 40 - 1
    pure = (grey - grey.round()).abs() < 1e-3
    black = view[0] == 0
    assert (target[black] == IGNORE).all()
    assert (target[~black] != IGNORE).all()
    # A blend of two classes can have the grey of a third between them; a neighbourhood of one grey cannot.
    flat = torch.nn.functional.pad(grey[None, None], (1, 1, 1, 1), mode="replicate")
    same = (-torch.nn.functional.max_pool2d(-flat, 3, 1) - grey).abs().lt(1e-3) & (
        torch.nn.functional.max_pool2d(flat, 3, 1) - grey
    ).abs().lt(1e-3)
    inner = pure & ~black & same[0, 0]
    assert torch.equal(target[inner], grey[inner].round().long())


@pytest.mark.parametrize("factor", [0.6, 1.0, 1.4, 3.0])
def test_pixels_that_resampling_leaves_pure_keep_their_label(factor: float) -> None:
    """Two classes only, so that no blend can look like a third: every pure pixel counts, those at borders too."""
    label = np.random.default_rng(0).integers(0, 2, (30, 30), dtype=np.uint8)
    image = np.repeat((label * 200)[..., None], 3, axis=2)
    checked = 0
    for seed in range(10):
        view, target = labelled_crop(image, label, (16, 16), (factor, factor), 1.0, generator("crop", seed))
        grey, real = view[0] * 255 / 200, target != IGNORE
        for value in (0, 1):
            pure = real & ((grey - value).abs() < 1e-4)
            assert (target[pure] == value).all()
            checked += int(pure.sum())
    assert checked > 100


@settings(max_examples=40)
@given(seed=st.integers(0, 10**6), factor=st.floats(0.2, 3.0))
def test_labels_come_from_the_original_or_are_ignored(seed: int, factor: float) -> None:
    label = np.random.default_rng(seed).choice(np.array([3, 17, IGNORE], dtype=np.uint8), (20, 20))
    _, target = labelled_crop(np.full((20, 20, 3), 9, dtype=np.uint8), label, (24, 8), (factor, factor), 0.75, generator(seed))
    assert target.dtype == torch.int64
    assert set(target.unique().tolist()) <= {3, 17, IGNORE}


def test_a_crop_avoids_being_filled_by_one_class() -> None:
    """Nine tenths of the image is one class: a bounded crop shows the rest far more often than an unbounded one."""
    label = np.zeros((60, 60), dtype=np.uint8)
    label[:, 54:] = 1
    image = np.zeros((60, 60, 3), dtype=np.uint8)

    def varied(bound: float) -> int:
        crops = [labelled_crop(image, label, (12, 12), (1.0, 1.0), bound, generator("crop", seed))[1] for seed in range(60)]
        return sum(bool((crop == 1).float().mean() > 0.25) for crop in crops)

    any_crop_will_do = 2.0
    assert varied(0.75) > 2 * varied(any_crop_will_do) > 0


@settings(max_examples=40)
@given(seed=st.integers(0, 10**6), height=st.integers(1, 40), width=st.integers(1, 40), low=st.floats(0.01, 1.0))
def test_a_view_has_its_size_and_range_whatever_the_image(seed: int, height: int, width: int, low: float) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    view = random_resized_crop(image, (16, 24), (low, 1.0), generator("view", seed))
    assert view.shape == (3, 16, 24)
    assert view.min() >= 0
    assert view.max() <= 1


def test_views_show_parts_of_the_stated_area() -> None:
    """On a horizontal ramp a view's range of greys is the share of the width that it shows."""
    image = np.repeat(np.linspace(0, 250, 100).astype(np.uint8)[None, :, None], 100, axis=0).repeat(3, axis=2)
    for seed in range(40):
        view = random_resized_crop(image, (32, 32), (0.25, 0.25), generator("view", seed))
        share = float(view.max() - view.min()) * 255 / 250
        assert 0.5 * 0.8 < share < 0.5 * 1.25  # side 1/2, shapes from 3/4 to 4/3


@pytest.mark.parametrize("transform", ["view", "crop", "jitter"])
def test_a_seed_decides_everything(transform: str) -> None:
    image, label = blocks(0, 24, 24)

    def draw(seed: int) -> torch.Tensor:
        if transform == "view":
            return random_resized_crop(image, (16, 16), (0.3, 1.0), generator(seed))
        if transform == "crop":
            return labelled_crop(image, label, (16, 16), (0.5, 2.0), 0.75, generator(seed))[0]
        return jitter_colors(to_float(image).unsqueeze(0), 0.3, generator(seed))

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))


def test_views_are_flipped_half_the_time() -> None:
    image = np.repeat(np.linspace(0, 250, 32).astype(np.uint8)[None, :, None], 32, axis=0).repeat(3, axis=2)
    flipped = sum(
        bool(v[0, 0, 0] > v[0, 0, -1]) for v in (random_resized_crop(image, (8, 8), (1.0, 1.0), generator(s)) for s in range(200))
    )
    assert 70 < flipped < 130


def test_jitter_stays_in_range_and_within_its_strength() -> None:
    grey = torch.full((64, 3, 4, 4), 0.5)
    jittered = jitter_colors(grey, 0.3, generator("jitter"))
    assert jittered.min() >= 0.35 - 1e-6
    assert jittered.max() <= 0.65 + 1e-6
    assert jittered.amax(dim=(1, 2, 3)).sub(jittered.amin(dim=(1, 2, 3))).max() < 1e-6, "a flat grey image stays flat and grey"
    assert len(jittered[:, 0, 0, 0].unique()) > 32, "each image has its own"
    colourful = jitter_colors(torch.rand(16, 3, 8, 8), 2.0, generator("jitter"))
    assert (colourful.min(), colourful.max()) == (0, 1)


def test_no_jitter_is_no_change() -> None:
    images = torch.rand(2, 3, 4, 4)
    assert torch.equal(jitter_colors(images, 0.0, generator("jitter")), images)
