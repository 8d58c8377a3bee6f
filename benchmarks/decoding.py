"""How fast one core here makes training images: megapixels a second of decoding, and of augmenting to a crop.

Decoding is counted in pixels of the file, augmenting in pixels of the crop: what `gkd plan --cluster` wants to know of a core
(`jpeg_megapixels`, `png_megapixels`, `released_megapixels`, `light_megapixels`). Example:

    python benchmarks/decoding.py
"""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
import typer
from photographs import write_photographs

from gkd_core.data.augment.augmentation import LightAugmentation, ReleasedAugmentation
from gkd_core.data.files.pictures import opened
from gkd_core.data.files.reading import read_image

# (width, height) of a photograph and the side of the crop that is taken of it: stages 1a and 1b of the paper's profiles.
STAGES = {"1a": ((500, 375), 224), "1b": ((1914, 1052), 512)}
CROP_SCALE, COLOR_JITTER = (0.08, 1.0), 0.3  # of the settings' defaults


def main(
    images: Annotated[int, typer.Option(help="Photographs to generate of each size.")] = 16,
    rounds: Annotated[int, typer.Option(help="Times that everything is measured; medians are shown.")] = 3,
) -> None:
    """Measure decoding and augmenting on one core."""
    torch.set_num_threads(1)
    for stage, (size, side) in STAGES.items():
        with tempfile.TemporaryDirectory() as folder:
            jpegs = write_photographs(Path(folder), images, size)
            _measure(stage, size, side, jpegs, rounds)


def _measure(stage: str, size: tuple[int, int], side: int, jpegs: Sequence[Path], rounds: int) -> None:
    decoded = [read_image(path) for path in jpegs]
    keys: list[tuple[int | str, ...]] = [("decoding", index) for index in range(len(decoded))]
    for suffix, paths in (("jpeg", jpegs), ("png", [_as_png(path) for path in jpegs])):
        rate = _rate(partial(_read, paths), len(paths) * math.prod(size), rounds)
        print(f"{stage} decode {suffix:<8}  {size[0]} × {size[1]}: {rate:6.1f} megapixels/s")
    for name, augmentation in (("released", ReleasedAugmentation), ("light", LightAugmentation)):
        augment = augmentation((side, side), CROP_SCALE, COLOR_JITTER)
        rate = _rate(partial(augment, decoded, keys), len(decoded) * side * side, rounds)
        print(f"{stage} augment {name:<8} to {side} × {side}: {rate:6.1f} megapixels/s")


def _read(paths: Sequence[Path]) -> None:
    for path in paths:
        read_image(path)


def _rate(work: Callable[[], object], pixels: int, rounds: int) -> float:
    """Megapixels a second of processor time, the median of the rounds: other work on the machine does not count."""
    seconds = []
    for _ in range(rounds):
        began = time.process_time()
        work()
        seconds.append(time.process_time() - began)
    return pixels / statistics.median(seconds) / 1e6


def _as_png(path: Path) -> Path:
    target = path.with_suffix(".png")
    with opened(path) as image:
        image.save(target)
    return target


if __name__ == "__main__":
    typer.run(main)
