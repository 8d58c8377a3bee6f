"""Several views of one image: scales and mirroring, each against what it means."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from gkd_core.evaluate.sliding import sliding_logits
from gkd_core.evaluate.views import view_logits
from gkd_core.settings import EvaluateSettings

PLAIN = EvaluateSettings(window=(32, 32), stride=(21, 21), batch_size=4)


def views(**changes: object) -> EvaluateSettings:
    return EvaluateSettings.model_validate(PLAIN.model_dump() | changes)


class LeftToRight(nn.Module):
    """Logits that grow with the column of the window: mirroring shows."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[tuple[int, int]] = []

    def forward(self, images: Tensor) -> Tensor:
        self.sizes.append((images.shape[-2], images.shape[-1]))
        columns = torch.arange(images.shape[-1], dtype=images.dtype) / images.shape[-1]
        return images[:, :2] + columns


@torch.no_grad()
def test_one_view_is_that_of_the_windows_alone_bit_for_bit() -> None:
    image = torch.rand(3, 40, 72)
    assert torch.equal(view_logits(LeftToRight(), image, PLAIN), sliding_logits(LeftToRight(), image, (32, 32), (21, 21), 4))


@torch.no_grad()
def test_mirroring_averages_the_image_and_its_mirror_image() -> None:
    image = torch.rand(3, 40, 72)
    model = LeftToRight()
    mirrored = sliding_logits(model, image.flip(-1), (32, 32), (21, 21), 4).flip(-1)
    expected = (sliding_logits(model, image, (32, 32), (21, 21), 4) + mirrored) / 2
    torch.testing.assert_close(view_logits(model, image, views(flip=True)), expected)
    flat = view_logits(model, image * 0, views(flip=True, window=(64, 96), stride=(64, 96)))
    torch.testing.assert_close(flat, torch.full_like(flat, flat[0, 0, 0].item())), "what grows to the right cancels out"


@torch.no_grad()
def test_scales_average_logits_at_the_images_size() -> None:
    image, model = torch.rand(3, 40, 72), LeftToRight()
    expected = []
    for size in ((30, 54), (40, 72), (50, 90)):
        view = functional.interpolate(image[None], size=size, mode="bilinear", align_corners=False)[0]
        logits = sliding_logits(model, view, (32, 32), (21, 21), 4)
        expected.append(functional.interpolate(logits[None], size=(40, 72), mode="bilinear", align_corners=False)[0])
    found = view_logits(model, image, views(scales=(0.75, 1.0, 1.25)))
    assert found.shape == (2, 40, 72)
    torch.testing.assert_close(found, torch.stack(expected).mean(dim=0))


@torch.no_grad()
def test_each_scale_is_seen_through_windows_of_the_same_size() -> None:
    model = LeftToRight()
    view_logits(model, torch.rand(3, 64, 64), views(scales=(0.5, 2.0)))
    assert set(model.sizes) == {(32, 32)}


@pytest.mark.parametrize("scales", [(), (0.0,), (-1.0, 1.0)])
def test_impossible_scales_are_refused(scales: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="scales"):
        views(scales=scales)
