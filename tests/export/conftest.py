"""Students of a few thousand weights that answer more than one class, and images to hold their programs against."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from gkd_core.export.program import Student
from gkd_core.models.segmentor import Segmentor as Network
from gkd_core.predict.bundle import write_bundle
from gkd_core.predict.manifest import View
from gkd_core.predict.pictures import Picture
from tests.predict.conftest import bundle_of, network_of, noise, segmentor_folder

VIEW = View(window=(64, 96), stride=(64, 96))
PHOTOS = [noise(130, 170, seed) for seed in range(4)]


def student_of(folder: Path, decoder: str = "linear", family: str = "vit", view: View = VIEW) -> Student:
    """A student as a command opens one, with real images."""
    found = segmentor_folder(folder / f"{decoder}-{family}", decoder, family)
    network: Network = copy.deepcopy(network_of(decoder, family))
    return Student(bundle_of(found, view), network, [Picture(pixels) for pixels in PHOTOS])


def bundle_folder(folder: Path, decoder: str = "linear", family: str = "vit") -> Path:
    """A bundle on disk."""
    found = segmentor_folder(folder / "segmentor", decoder, family)
    write_bundle(bundle_of(found, VIEW), found / "segmentor.safetensors", folder / "student.gkd")
    return folder / "student.gkd"


def photographs(folder: Path) -> Path:
    """A folder of images."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, pixels in enumerate(PHOTOS):
        Image.fromarray(pixels).save(folder / f"{index}.png")
    return folder


def expected(student: Student, images: np.ndarray) -> torch.Tensor:
    """PyTorch's logits for images (B, H, W, 3), uint8."""
    with torch.inference_mode():
        found: torch.Tensor = student.network(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255)
    return found
