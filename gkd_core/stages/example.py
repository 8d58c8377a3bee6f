"""A small batch of a source's images, by which a model's page shows what it takes."""

from __future__ import annotations

from pathlib import Path

import torch

from gkd_core.data.augment.transforms import resized, to_float
from gkd_core.data.files.reading import read_image
from gkd_core.stages.recipe import Recipe

IMAGES = 2  # a batch of one would be exported as always one


def source_example(recipe: Recipe, source: str, workspace: Path) -> torch.Tensor:
    """The first images of the source's own validation split, each shrunk or stretched to the evaluation's window.

    Returns:
        (2, 3, H, W), float32 in 0..1.

    Raises:
        DataError: an image is missing or unreadable.
    """
    validation = recipe.measured_domains(source)[0]
    files = list(recipe.origin(workspace).images(validation)[:IMAGES])
    files = [files[index % len(files)] for index in range(IMAGES)]
    window = recipe.settings.evaluate.window
    return torch.stack([resized(to_float(read_image(file)), window) for file in files]).clamp(0, 1)
