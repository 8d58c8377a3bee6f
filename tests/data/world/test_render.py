"""Styles: one scene, many looks; and samples for the demo teacher."""

from __future__ import annotations

import numpy as np
import pytest

from gkd_core.data.catalog.taxonomy import IGNORE
from gkd_core.data.world.render import Family, render, render_labelled
from gkd_core.data.world.styles import STREET_STYLES

SIZE = (64, 128)


def looks(style: str) -> np.ndarray:
    return np.stack([render(style, seed, SIZE)[0] for seed in range(12)]).astype(float)


@pytest.mark.parametrize("style", sorted(STREET_STYLES))
def test_all_street_styles_show_the_same_scene(style: str) -> None:
    image, label = render(style, 5, SIZE)
    assert (image.shape, image.dtype.name) == ((*SIZE, 3), "uint8")
    assert (label == render("gta", 5, SIZE)[1]).all()


def test_weather_looks_like_weather() -> None:
    city = looks("cityscapes")
    assert looks("night").mean() < 0.4 * city.mean()
    assert looks("fog").std() < 0.75 * city.std()
    assert looks("snow").mean() > 1.1 * city.mean()
    assert looks("rain").mean() < 0.9 * city.mean()


@pytest.mark.parametrize(("family", "classes"), [("street", 19), ("aerial", 6)])
def test_labelled_samples_are_reproducible_and_varied(family: Family, classes: int) -> None:
    image, label = render_labelled(family, 1, (48, 64))
    again, _ = render_labelled(family, 1, (48, 64))
    other, _ = render_labelled(family, 2, (48, 64))
    assert (image == again).all() and (image != other).any()
    assert image.shape == (48, 64, 3) and label.shape == (48, 64)
    assert set(np.unique(label).tolist()) <= {*range(classes), IGNORE}


def test_a_bigger_picture_has_the_same_make_up() -> None:
    small = np.concatenate([render("gta", seed, (64, 128))[1].ravel() for seed in range(20)])
    large = np.concatenate([render("gta", seed, (128, 256))[1].ravel() for seed in range(20)])
    shares = [np.bincount(label, minlength=256) / label.size for label in (small, large)]
    assert np.abs(shares[0] - shares[1]).max() < 0.08
