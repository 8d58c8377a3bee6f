"""Files of about the size and entropy of photographs, to measure with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

PHOTOGRAPH = (500, 375)  # width and height in pixels: the size of most of ImageNet


def write_photographs(folder: Path, count: int, size: tuple[int, int] = PHOTOGRAPH) -> tuple[Path, ...]:
    """JPEG files of `size` (width, height) pixels: smooth colours under a little noise."""
    random = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    paths = tuple(folder / f"{index:05d}.jpg" for index in range(count))
    for path in paths:
        coarse = Image.fromarray(random.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        smooth = coarse.resize(size, Image.Resampling.BICUBIC)
        noise = random.normal(0, 12, (size[1], size[0], 3))
        Image.fromarray(np.clip(np.asarray(smooth) + noise, 0, 255).astype(np.uint8)).save(path, quality=90)
    return paths
