"""What fewer bits cost in mIoU: against scores counted pixel by pixel, and where it cannot be told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from gkd_core.data.catalog.taxonomy import IGNORE
from gkd_core.data.files.origin import train_id_encoding
from gkd_core.data.files.reading import Pair
from gkd_core.errors import GkdError, SettingsError
from gkd_core.evaluate.matrix import ScoredImages
from gkd_core.export import cost
from gkd_core.export.cost import cost_of
from gkd_core.export.program import export_file
from gkd_core.export.wanted import Sizes, Wanted
from tests.export.conftest import VIEW, student_of
from tests.predict.conftest import CLASSES, noise

SIZES = Sizes(traced=(64, 96), multiple=32, smallest=64)


def labelled(folder: Path, count: int = 3, size: tuple[int, int] = (70, 100), ids: int | None = None) -> ScoredImages:
    """Images of noise whose labels are noise too, or one class."""
    folder.mkdir(parents=True, exist_ok=True)
    pairs = []
    for index in range(count):
        truth = noise(*size, 50 + index)[..., 0] % (len(CLASSES) + 1)
        truth = np.where(truth == len(CLASSES), IGNORE, truth) if ids is None else np.full_like(truth, ids)
        Image.fromarray(noise(*size, index)).save(folder / f"{index}.png")
        Image.fromarray(truth.astype(np.uint8)).save(folder / f"{index}-ids.png")
        pairs.append(Pair(folder / f"{index}.png", folder / f"{index}-ids.png"))
    return ScoredImages(pairs, train_id_encoding("street", len(CLASSES)), None, len(CLASSES))


def counted(truths: Sequence[np.ndarray], answers: Sequence[np.ndarray]) -> float:
    """mIoU in percent, by sets of pixels."""
    found = []
    for number in range(len(CLASSES)):
        true = [truth == number for truth in truths]
        said = [(answer == number) & (truth != IGNORE) for truth, answer in zip(truths, answers, strict=True)]
        union = sum(int((one | other).sum()) for one, other in zip(true, said, strict=True))
        if union:
            found.append(100 * sum(int((one & other).sum()) for one, other in zip(true, said, strict=True)) / union)
    return sum(found) / len(found)


def by_brightness(images: Tensor) -> Tensor:
    """Classes (B, H, W) of images (B, H, W, 3), uint8: by the green of a pixel."""
    return (images[..., 1] % len(CLASSES)).byte()


def logits_by_brightness(images: Tensor) -> Tensor:
    classes = by_brightness((images * 255).round().byte().permute(0, 2, 3, 1)).long()
    return torch.nn.functional.one_hot(classes, len(CLASSES)).permute(0, 3, 1, 2).float()


@pytest.mark.parametrize(("takes", "program"), [("logits-of-floats", logits_by_brightness), ("classes-of-bytes", by_brightness)])
@pytest.mark.parametrize("size", [(64, 96), (70, 100), (33, 200)])
def test_it_is_the_miou_of_what_the_program_answers(
    tmp_path: Path, takes: str, program: Callable[[Tensor], Tensor], size: tuple[int, int]
) -> None:
    student, domain = student_of(tmp_path), labelled(tmp_path / "data", size=size)
    found = cost_of(program, student.network, domain, VIEW, SIZES, takes)  # type: ignore[arg-type]
    truths = [np.asarray(Image.open(pair.label)) for pair in domain.pairs]  # type: ignore[arg-type]
    answers = [np.asarray(Image.open(pair.image))[..., 1] % len(CLASSES) for pair in domain.pairs]  # type: ignore[arg-type]
    assert found.program == pytest.approx(counted(truths, answers), abs=1e-9)
    assert found.network != found.program and found.images == 3


def test_what_computes_the_same_costs_nothing(tmp_path: Path) -> None:
    student, domain = student_of(tmp_path, "segformer", "cnn"), labelled(tmp_path / "data")
    fixed = SIZES.model_copy(update={"traced": (96, 128), "fixed_because": "of this test"})  # windows are padded alike
    for sizes in (SIZES, fixed):
        found = cost_of(student.network, student.network, domain, VIEW, sizes, "logits-of-floats")
        assert found.program == found.network > 0
        assert found.line.endswith("on 3 of the source's validation images, +0.00 against PyTorch in single precision")


def test_of_many_images_some_are_measured_evenly_spaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "MOST_IMAGES", 3)
    student, domain = student_of(tmp_path), labelled(tmp_path / "data", count=7)
    some = ScoredImages(domain.pairs[::3], domain.encoding, None, domain.classes)
    found = cost_of(logits_by_brightness, student.network, domain, VIEW, SIZES, "logits-of-floats")
    assert found == cost_of(logits_by_brightness, student.network, some, VIEW, SIZES, "logits-of-floats")
    assert found.images == 3


def test_where_it_cannot_be_told_it_is_said(tmp_path: Path) -> None:
    student = student_of(tmp_path)
    with pytest.raises(GkdError, match="no pixel of the source's validation labels counts"):
        ignored = labelled(tmp_path / "ignored", count=1, ids=IGNORE)
        cost_of(logits_by_brightness, student.network, ignored, VIEW, SIZES, "logits-of-floats")
    small = SIZES.model_copy(update={"traced": (64, 64), "fixed_because": "of this test"})
    with pytest.raises(SettingsError, match="--size: 64x64 pixels alone .* windows of 64x96 do not fit; give --size 64x96"):
        cost_of(logits_by_brightness, student.network, labelled(tmp_path / "data"), VIEW, small, "logits-of-floats")


def test_a_program_of_fewer_bits_says_what_it_costs(tmp_path: Path) -> None:
    student = student_of(tmp_path, "linear", "cnn")
    known = type(student)(student.bundle, student.network, student.pictures, labelled(tmp_path / "data"))
    wanted = Wanted(format="onnx", precision="int8")
    exported = export_file(known, wanted, Sizes.of(student.network, VIEW), tmp_path / "student.onnx")
    assert exported.cost is not None
    checked = exported.program.checked
    assert (checked["miou"], checked["miou-of-pytorch"]) == (exported.cost.program, exported.cost.network)
    assert checked["scored-images"] == 3 and abs(exported.cost.program - exported.cost.network) < 10
