"""Photometric distortion: each change against its definition, and how often it comes."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest
import torch
from torch import Tensor

from gkd_core.data.augment import photometric
from gkd_core.data.augment.photometric import distort_colors


def image() -> Tensor:
    return torch.rand(3, 6, 5, generator=torch.Generator().manual_seed(1))


def by_pixel(picture: Tensor, change: object) -> Tensor:
    """An image with each pixel's (hue, saturation, value) changed, by Python's own colorsys."""
    flat = picture.permute(1, 2, 0).reshape(-1, 3).double().numpy()
    out = [colorsys.hsv_to_rgb(*change(*colorsys.rgb_to_hsv(*pixel))) for pixel in flat]  # type: ignore[operator]
    return torch.from_numpy(np.array(out)).float().view(*picture.shape[1:], 3).permute(2, 0, 1)


def always(monkeypatch: pytest.MonkeyPatch, amount: float) -> None:
    monkeypatch.setattr(photometric, "_drawn", lambda low, high, still, generator: amount)


@pytest.mark.parametrize("factor", [0.5, 1.5])
def test_saturation_is_that_of_hsv(monkeypatch: pytest.MonkeyPatch, factor: float) -> None:
    always(monkeypatch, factor)
    changed = photometric._saturation(torch.Generator())(image())
    expected = by_pixel(image(), lambda h, s, v: (h, min(1.0, s * factor), v))
    torch.testing.assert_close(changed, expected, atol=1e-5, rtol=0)


def test_grey_has_no_saturation_to_change(monkeypatch: pytest.MonkeyPatch) -> None:
    always(monkeypatch, 1.5)
    grey = torch.rand(1, 4, 4).expand(3, 4, 4)
    assert torch.equal(photometric._saturation(torch.Generator())(grey), grey)


@pytest.mark.parametrize("turn", [-0.1, 0.07])
def test_hue_turns_the_colour_wheel(monkeypatch: pytest.MonkeyPatch, turn: float) -> None:
    always(monkeypatch, turn)
    changed = photometric._hue(torch.Generator())(image())
    torch.testing.assert_close(changed, by_pixel(image(), lambda h, s, v: ((h + turn) % 1, s, v)), atol=1e-5, rtol=0)


def test_brightness_shifts_and_contrast_scales_from_black(monkeypatch: pytest.MonkeyPatch) -> None:
    always(monkeypatch, 0.125)
    torch.testing.assert_close(photometric._brightness(torch.Generator())(image()), (image() + 0.125).clamp(max=1))
    always(monkeypatch, 1.5)
    torch.testing.assert_close(photometric._contrast(torch.Generator())(image()), (image() * 1.5).clamp(max=1))


def test_amounts_lie_within_the_published_bounds_and_half_of_them_change_nothing() -> None:
    draws = torch.Generator().manual_seed(0)
    brightness = [photometric._drawn(-photometric.BRIGHTNESS, photometric.BRIGHTNESS, 0.0, draws) for _ in range(2000)]
    assert max(map(abs, brightness)) <= 32 / 255
    assert max(map(abs, brightness)) > 30 / 255
    assert sum(amount == 0 for amount in brightness) == pytest.approx(1000, abs=100)
    assert photometric.CONTRAST == photometric.SATURATION == (0.5, 1.5)
    assert pytest.approx(18 / 180) == photometric.HUE


def test_contrast_comes_before_or_after_the_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    for step in ("brightness", "contrast", "saturation", "hue"):
        monkeypatch.setattr(photometric, f"_{step}", lambda draws, step=step: lambda picture: order.append(step) or picture)
    for seed in range(20):
        distort_colors(image(), torch.Generator().manual_seed(seed))
    orders = {tuple(order[first : first + 4]) for first in range(0, 80, 4)}
    assert orders == {("brightness", "contrast", "saturation", "hue"), ("brightness", "saturation", "hue", "contrast")}


def test_it_is_a_function_of_the_generator_and_stays_in_range() -> None:
    views = [distort_colors(image(), torch.Generator().manual_seed(seed)) for seed in (0, 0, *range(1, 30))]
    assert torch.equal(views[0], views[1])
    assert any(not torch.equal(view, views[0]) for view in views)
    assert all(view.min() >= 0 and view.max() <= 1 and view.shape == (3, 6, 5) for view in views)
