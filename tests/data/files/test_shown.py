"""Images and labels at the sizes of a protocol, held against the steps of the release's scripts on files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from gkd_core.data.catalog.entries import Protocol
from gkd_core.data.files.shown import scored, shown

HALF = Protocol(scale=0.5, max_size=(20, 40), resize_labels=True)


def halved_on_disk(pixels: np.ndarray, path: Path, resample: Image.Resampling) -> np.ndarray:
    """As the release's converter: the file opened, its (width, height) divided by 2 downwards, saved; here as a PNG."""
    Image.fromarray(pixels).save(path)
    picture = Image.open(path)
    width, height = picture.size
    picture.resize((width // 2, height // 2), resample=resample).save(path)
    return np.array(Image.open(path))


@pytest.mark.parametrize("size", [(64, 96), (63, 97), (96, 64), (31, 30)])
def test_a_half_is_that_of_the_releases_converter(tmp_path: Path, size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    pixels, ids = rng.integers(0, 256, (*size, 3), dtype=np.uint8), rng.integers(0, 19, size, dtype=np.uint8)
    half = halved_on_disk(pixels, tmp_path / "image.png", Image.Resampling.BICUBIC)
    fitted = HALF.input_size(*size)
    fraction = torch.from_numpy(half).permute(2, 0, 1).float() / 255
    expected = functional.interpolate(fraction[None], size=fitted, mode="bilinear", align_corners=False)[0]
    torch.testing.assert_close(shown(pixels, HALF), expected, atol=1e-6, rtol=0)
    np.testing.assert_array_equal(scored(ids, HALF), halved_on_disk(ids, tmp_path / "label.png", Image.Resampling.NEAREST))
    assert scored(ids, HALF).shape == HALF.label_size(*size) == (size[0] // 2, size[1] // 2)


def test_the_first_step_does_not_alias() -> None:
    """A board of one-pixel fields is an even grey at a fifth of its size; every second pixel alone would be black or white."""
    board = (np.indices((60, 90)).sum(axis=0) % 2 * 255).astype(np.uint8)[..., None].repeat(3, axis=2)
    small = shown(board, Protocol(scale=0.2))
    assert small.shape == (3, 12, 18)
    assert float((small[:, 2:-2, 2:-2] - 0.5).abs().max()) < 0.05


def test_without_a_scale_nothing_is_resampled_but_to_fit() -> None:
    rng = np.random.default_rng(1)
    pixels, ids = rng.integers(0, 256, (40, 60, 3), dtype=np.uint8), rng.integers(0, 19, (40, 60), dtype=np.uint8)
    fraction = torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
    assert torch.equal(shown(pixels, Protocol()), fraction)
    bilinear = functional.interpolate(fraction[None], size=(20, 30), mode="bilinear", align_corners=False)[0]
    assert torch.equal(shown(pixels, Protocol(max_size=(20, 30), resize_labels=True)), bilinear)
    assert scored(ids, Protocol(max_size=(20, 30), resize_labels=True)) is ids


def test_a_tiny_image_keeps_a_pixel() -> None:
    assert Protocol(scale=0.25, resize_labels=True).label_size(3, 9) == (1, 2)
    assert shown(np.zeros((3, 9, 3), dtype=np.uint8), Protocol(scale=0.25)).shape == (3, 1, 2)
