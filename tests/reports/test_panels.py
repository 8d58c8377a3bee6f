"""Panels: the images chosen, the prediction that is scored, and the colours that say so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from gkd_core.data.catalog.taxonomy import IGNORE, LabelEncoding, Taxonomy
from gkd_core.data.files.reading import Pair
from gkd_core.evaluate.confusion import class_iou, mean_iou
from gkd_core.evaluate.inference import image_logits
from gkd_core.evaluate.matrix import Prediction, ScoredImages, measure, predict
from gkd_core.reports.panels import RIGHT, WRONG, agreement, image_miou, panel_sheet, spaced
from gkd_core.reports.sheet import Cell, Row, Sheet, save_sheet
from gkd_core.settings import EvaluateSettings

TRIO = Taxonomy(name="trio", classes=("road", "car", "sky"), colors=((90, 90, 90), (0, 0, 142), (70, 130, 180)))
SETTINGS = EvaluateSettings(window=(32, 32), stride=(20, 20), flip=True)
CPU = torch.device("cpu")


class Colors(nn.Module):
    """Three classes by the strongest colour, blurred so that windows, views and sizes matter."""

    def forward(self, images: Tensor) -> Tensor:
        return functional.avg_pool2d(images, 5, stride=1, padding=2)


@pytest.fixture
def domain(tmp_path: Path) -> ScoredImages:
    """Five images of noise, 40 × 56, with labels of noise."""
    numbers = np.random.default_rng(1)
    pairs = []
    for index in range(5):
        pair = Pair(tmp_path / f"{index}.png", tmp_path / f"{index}-label.png")
        Image.fromarray(numbers.integers(0, 255, (40, 56, 3), dtype=np.uint8)).save(pair.image)
        Image.fromarray(numbers.choice([0, 1, 2, IGNORE], (40, 56)).astype(np.uint8)).save(pair.label)
        pairs.append(pair)
    return ScoredImages(pairs, LabelEncoding(taxonomy="trio", ids={0: 0, 1: 1, 2: 2, IGNORE: IGNORE}), None, 3)


@pytest.mark.parametrize(
    ("available", "count", "chosen"),
    [(10, 2, [2, 7]), (9, 3, [1, 4, 7]), (5, 1, [2]), (1, 4, [0]), (3, 3, [0, 1, 2]), (3, 99, [0, 1, 2]), (7, 0, [])],
)
def test_images_are_the_middles_of_equal_parts(available: int, count: int, chosen: list[int]) -> None:
    assert spaced(available, count) == chosen


def test_what_is_shown_is_what_is_scored(domain: ScoredImages) -> None:
    """The argmax of the evaluated logits, and confusions that add up to the domain's."""
    predictions = [predict(Colors(), pair, domain, SETTINGS, CPU) for pair in domain.pairs]
    for prediction in predictions:
        image = torch.from_numpy(np.array(Image.open(str(prediction.pair.image)))).permute(2, 0, 1) / 255
        assert torch.equal(prediction.answer, image_logits(Colors(), image, SETTINGS).argmax(dim=0))
        assert torch.equal(prediction.image, image)
    total = measure(Colors(), domain, SETTINGS, CPU, lambda done: None)
    assert torch.equal(sum(prediction.confusion(3) for prediction in predictions), total)
    cells = panel_sheet("", {"a": predictions[0]}, TRIO).rows[0].cells
    palette = torch.tensor(TRIO.colors, dtype=torch.uint8)
    assert np.array_equal(cells[2].pixels, palette[predictions[0].answer].numpy())


def _prediction(truth: list[list[int]], answer: list[list[int]]) -> Prediction:
    pair = Pair(Path("a.png"), Path("b.png"))
    return Prediction(pair, torch.zeros(3, 2, 2), torch.tensor(truth, dtype=torch.uint8), torch.tensor(answer))


def test_right_and_wrong_and_ignored() -> None:
    map_ = agreement(_prediction([[0, 1], [IGNORE, 2]], [[0, 2], [1, 2]]), TRIO)
    assert map_[[0, 0, 1], [0, 1, 1]].tolist() == [list(RIGHT), list(WRONG), list(RIGHT)]
    assert tuple(map_[1, 0]) in {(0, 0, 0), (255, 255, 255)}


def test_the_caption_has_the_images_own_miou() -> None:
    prediction = _prediction([[0, 0], [0, 1]], [[0, 0], [1, 1]])
    assert image_miou(prediction, 3) == pytest.approx((200 / 3 + 50) / 2)
    assert mean_iou(class_iou(prediction.confusion(3))) == image_miou(prediction, 3)
    sheet = panel_sheet("t", {"street.png": prediction}, TRIO)
    assert sheet.rows[0].caption == "street.png: mIoU 58.3 %, 75.0 % of pixels right"
    assert [patch.get_label() for patch in sheet.legend] == ["road", "car", "right", "wrong"]
    ignored = panel_sheet("t", {"a": _prediction([[IGNORE] * 2] * 2, [[0, 0], [0, 0]])}, TRIO)
    assert ignored.rows[0].caption == "a: nothing to score"


def test_long_names_are_shown_by_their_end() -> None:
    sheet = panel_sheet("t", {"x" * 80 + "end.png": _prediction([[0, 0]], [[0, 0]])}, TRIO)
    name = sheet.rows[0].caption.partition(":")[0]
    assert name.startswith("…") and name.endswith("xend.png") and len(name) == 42


def test_a_picture_has_its_cells_unmixed_and_the_same_bytes_again(tmp_path: Path) -> None:
    """Exact cells in colours that nothing else has: every pixel of theirs is one of them, and the areas are right."""
    checks = np.array([[[1, 2, 3], [250, 1, 90]], [[9, 200, 7], [1, 2, 3]]], dtype=np.uint8)
    sheet = Sheet("title", ("one", "two"), (Row("row", (Cell(checks, True), Cell(checks[:1], True, "below"))),), "note " * 60)
    for name in ("a.png", "b.png"):
        save_sheet(sheet, tmp_path / name, 100)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with Image.open(tmp_path / "a.png") as picture:
        assert not picture.info, "no time, no version"
        pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    # 100 × 100 and, half as high, 100 × 50 pixels.
    counts = {color: int((pixels == color).all(axis=1).sum()) for color in ((1, 2, 3), (250, 1, 90), (9, 200, 7))}
    assert counts == {(1, 2, 3): 2 * 2500 + 2500, (250, 1, 90): 2500 + 2500, (9, 200, 7): 2500}


def test_large_images_are_shrunk(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (900, 1600, 3), dtype=np.uint8)
    save_sheet(Sheet("t", ("image",), (Row("r", (Cell(noise, False),)),), "n"), tmp_path / "a.png", 192)
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.width == 640
        assert picture.height < 250
        assert picture.size[0] * picture.size[1] > (tmp_path / "a.png").stat().st_size, (
            "noise, of which six bits of eight are kept"
        )
