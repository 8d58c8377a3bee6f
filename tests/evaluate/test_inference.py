"""Logits of whole images: from windows, and from several scales and mirroring, each against what it means."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from gkd_core.evaluate.confusion import class_iou, confusion, mean_iou
from gkd_core.evaluate.inference import image_logits, sliding_logits
from gkd_core.models.build import build_encoder
from gkd_core.models.encoder import Encoder
from gkd_core.models.segmentor import build_segmentor
from gkd_core.settings import EncoderSettings, EvaluateSettings


class Pointwise(nn.Module):
    """Each pixel's logits depend on that pixel alone, so that windows can make no difference."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Conv2d(3, 4, kernel_size=1)
        self.seen: list[tuple[int, ...]] = []

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(tuple(images.shape))
        out: Tensor = self.layer(images)
        return out


class WindowMean(nn.Module):
    """Every pixel of a window gets the window's mean: overlaps then show how they were averaged."""

    def forward(self, images: Tensor) -> Tensor:
        return images.mean(dim=(1, 2, 3), keepdim=True).expand(-1, 1, *images.shape[-2:])


@settings(max_examples=40)
@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    window=st.sampled_from([(32, 32), (64, 32), (512, 512)]),
    step=st.floats(0.1, 1.0),
    batch_size=st.integers(1, 5),
)
@torch.no_grad()
def test_windows_cover_every_pixel_and_make_no_difference_to_a_pointwise_model(
    height: int, width: int, window: tuple[int, int], step: float, batch_size: int
) -> None:
    model, image = Pointwise(), torch.rand(3, height, width)
    stride = (max(1, int(window[0] * step)), max(1, int(window[1] * step)))
    logits = sliding_logits(model, image, window, stride, batch_size)
    assert logits.shape == (4, height, width)
    torch.testing.assert_close(logits, model.layer(image.unsqueeze(0))[0], atol=1e-5, rtol=1e-5)
    for shape in model.seen:
        assert shape[0] <= batch_size
        assert shape[2] % 32 == shape[3] % 32 == 0, "the coarsest feature map must tile every window"


@pytest.mark.parametrize("batch_size", [1, 2, 7])
@torch.no_grad()
def test_batch_size_changes_nothing(batch_size: int) -> None:
    image = torch.rand(3, 70, 130)
    reference = sliding_logits(WindowMean(), image, (32, 64), (21, 43), 3)
    torch.testing.assert_close(sliding_logits(WindowMean(), image, (32, 64), (21, 43), batch_size), reference)


@torch.no_grad()
def test_overlaps_are_averaged_and_the_last_window_ends_at_the_last_pixel() -> None:
    """A row of 80 pixels, windows of 32 at 0, 32 and 48: pixels 48 to 63 lie in two windows."""
    image = torch.zeros(3, 32, 80)
    image[..., :32], image[..., 32:64], image[..., 64:] = 1, 2, 4
    logits = sliding_logits(WindowMean(), image, (32, 32), (32, 32), 8)[0, 0]
    last = (16 * 2 + 16 * 4) / 32
    assert logits[:32].unique().tolist() == [1]
    assert logits[32:48].unique().tolist() == [2]
    assert logits[48:64].unique().tolist() == [(2 + last) / 2]
    assert logits[64:].unique().tolist() == [last]


@torch.no_grad()
def test_an_image_of_the_windows_size_is_seen_once() -> None:
    model = Pointwise()
    sliding_logits(model, torch.rand(3, 64, 64), (64, 64), (43, 43), 8)
    assert model.seen == [(1, 3, 64, 64)]


@pytest.mark.parametrize("kind", ["vit", "cnn"])
@torch.no_grad()
def test_batched_windows_give_the_logits_and_the_miou_of_windows_one_by_one(vit: Encoder, kind: str) -> None:
    encoder = vit if kind == "vit" else build_encoder(EncoderSettings(arch="resnet10t"), 0)
    model = build_segmentor(encoder, "linear", classes=4, width=8, seed=0).eval()
    torch.manual_seed(0)
    image, target = torch.rand(3, 70, 130), torch.randint(0, 4, (70, 130))
    scores = []
    one_by_one = sliding_logits(model, image, (64, 64), (43, 43), 1)
    for batch_size in (1, 3, 8):
        logits = sliding_logits(model, image, (64, 64), (43, 43), batch_size)
        torch.testing.assert_close(logits, one_by_one, atol=1e-5, rtol=0)
        scores.append(mean_iou(class_iou(confusion(logits.argmax(dim=0), target, 4))))
    assert scores[1:] == scores[:1] * 2
    assert one_by_one.std() > 1e-3, "logits that differ from pixel to pixel"


PLAIN = EvaluateSettings(window=(32, 32), stride=(21, 21), batch_size=4)


def changed(**changes: object) -> EvaluateSettings:
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
def test_one_scale_is_that_of_the_windows_alone_bit_for_bit() -> None:
    image = torch.rand(3, 40, 72)
    assert torch.equal(image_logits(LeftToRight(), image, PLAIN), sliding_logits(LeftToRight(), image, (32, 32), (21, 21), 4))


@torch.no_grad()
def test_mirroring_averages_the_image_and_its_mirror_image() -> None:
    image = torch.rand(3, 40, 72)
    model = LeftToRight()
    mirrored = sliding_logits(model, image.flip(-1), (32, 32), (21, 21), 4).flip(-1)
    expected = (sliding_logits(model, image, (32, 32), (21, 21), 4) + mirrored) / 2
    torch.testing.assert_close(image_logits(model, image, changed(flip=True)), expected)
    flat = image_logits(model, image * 0, changed(flip=True, window=(64, 96), stride=(64, 96)))
    torch.testing.assert_close(flat, torch.full_like(flat, flat[0, 0, 0].item())), "what grows to the right cancels out"


@torch.no_grad()
def test_scales_average_logits_at_the_images_size() -> None:
    image, model = torch.rand(3, 40, 72), LeftToRight()
    expected = []
    for size in ((30, 54), (40, 72), (50, 90)):
        scaled = functional.interpolate(image[None], size=size, mode="bilinear", align_corners=False)[0]
        logits = sliding_logits(model, scaled, (32, 32), (21, 21), 4)
        expected.append(functional.interpolate(logits[None], size=(40, 72), mode="bilinear", align_corners=False)[0])
    found = image_logits(model, image, changed(scales=(0.75, 1.0, 1.25)))
    assert found.shape == (2, 40, 72)
    torch.testing.assert_close(found, torch.stack(expected).mean(dim=0))


@torch.no_grad()
def test_each_scale_is_seen_through_windows_of_the_same_size() -> None:
    model = LeftToRight()
    image_logits(model, torch.rand(3, 64, 64), changed(scales=(0.5, 2.0)))
    assert set(model.sizes) == {(32, 32)}


@pytest.mark.parametrize("scales", [(), (0.0,), (-1.0, 1.0)])
def test_impossible_scales_are_refused(scales: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="scales"):
        changed(scales=scales)
