"""Training views of stage one: what timm makes of an image, and that nothing but its keys decides about a view."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.data.transforms_factory import create_transform

from gkd_core.data.augment.augmentation import Augmentation, LightAugmentation, ReleasedAugmentation
from gkd_core.seeding import seed_of

SIZE = (32, 48)


def image(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (40, 60, 3), dtype=np.uint8)


@pytest.fixture(params=["released", "light"])
def augment(request: pytest.FixtureRequest) -> Augmentation:
    kind = ReleasedAugmentation if request.param == "released" else LightAugmentation
    return kind(SIZE, (0.08, 1.0), 0.3)


def test_a_view_depends_on_its_image_and_keys_alone(augment: Augmentation) -> None:
    images, keys = [image(seed) for seed in range(6)], [("view", seed) for seed in range(6)]
    together = augment(images, keys)
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    alone = torch.cat([augment([one], [key]) for one, key in reversed(list(zip(images, keys, strict=True)))])
    assert together.shape == (6, 3, *SIZE)
    assert torch.equal(together, alone.flip(0))
    assert not torch.equal(augment([images[0]], [("view", 0)]), augment([images[0]], [("view", 1)]))


def test_global_streams_are_left_as_they_were(augment: Augmentation) -> None:
    def draws() -> tuple[float, float, float]:
        return random.random(), float(np.random.random()), float(torch.rand(()))

    random.seed(3), np.random.seed(3), torch.manual_seed(3)
    undisturbed = draws()
    random.seed(3), np.random.seed(3), torch.manual_seed(3)
    augment([image(0)], [("view",)])
    assert draws() == undisturbed


def test_released_views_are_timms_own_before_normalisation() -> None:
    transform = create_transform(
        (3, *SIZE), is_training=True, color_jitter=0.3, auto_augment="rand-m9-mstd0.5-inc1", interpolation="bicubic",
        re_prob=0.25, re_mode="pixel", re_count=1
    )  # fmt: skip
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD))
    for seed in range(8):
        keys = seed_of("view", seed)
        random.seed(keys), np.random.seed(keys % 2**32), torch.manual_seed(keys)
        expected = transform(Image.fromarray(image(seed)))
        view = ReleasedAugmentation(SIZE, (0.08, 1.0), 0.3)([image(seed)], [("view", seed)])[0]
        torch.testing.assert_close((view - mean) / std, expected, atol=1e-5, rtol=0)


def test_colour_jitter_plays_no_part_beside_rand_augment() -> None:
    weak, strong = (ReleasedAugmentation(SIZE, (0.3, 1.0), strength) for strength in (0.0, 0.9))
    keys = [("view", seed) for seed in range(4)]
    assert torch.equal(weak([image(0)] * 4, keys), strong([image(0)] * 4, keys))
    flat = [LightAugmentation(SIZE, (0.3, 1.0), strength)([image(0)] * 4, keys) for strength in (0.0, 0.9)]
    assert not torch.allclose(flat[0], flat[1], atol=0.05)


def test_a_quarter_of_released_views_has_erased_pixels_of_a_standard_normal() -> None:
    """Those alone leave 0..1: about one in twenty of them lies more than two deviations from the mean."""
    views = ReleasedAugmentation(SIZE, (1.0, 1.0), 0.3)([image(0)] * 200, [("view", seed) for seed in range(200)])
    erased = ((views < -1e-5) | (views > 1 + 1e-5)).flatten(1).any(dim=1)
    assert 0.15 < erased.float().mean() < 0.35
    assert views.min() > 0.4 - 6 * 0.23
    assert views.max() < 0.5 + 6 * 0.23


def test_rand_augment_at_its_strongest_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its noise reaches magnitude 10 now and then; posterize then keeps no bit, and Pillow refuses."""
    monkeypatch.setattr(random, "gauss", lambda mean, deviation: 10.0)
    views = ReleasedAugmentation(SIZE, (1.0, 1.0), 0.3)([image(0)] * 60, [("view", seed) for seed in range(60)])
    black = (views.abs() < 1e-5).flatten(1).float().mean(dim=1) > 0.5
    assert 0 < black.sum() < 15
