"""What is written: ids, colours, probabilities and the table, each against numbers worked out here."""

from __future__ import annotations

import csv
import io
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
import torch
from PIL import Image

from gkd_core.errors import GkdError
from gkd_core.predict.answer import Answer, judged, overlaid, probabilities_of
from gkd_core.predict.manifest import OwnIds
from gkd_core.predict.outputs import (
    COLUMNS,
    TABLE,
    Outputs,
    Row,
    Table,
    Wanted,
    check_ids,
    confidence_bytes,
    no_formula,
    open_output,
    open_table,
    own_labels,
)
from gkd_core.predict.pictures import Picture
from tests.predict.conftest import CLASSES, COLORS, noise

LABELS = np.array([[0, 1, 2], [3, 4, 0]], np.uint8)


def answer_of(scores: torch.Tensor, additive: bool = False) -> Answer:
    strip = judged(scores, additive)
    return Answer(
        labels=strip.labels, confidence=strip.confidence, entropy=strip.entropy / strip.labels.size, classes=CLASSES,
        colors=COLORS, seconds=0.25, _picture=Picture(noise(*strip.labels.shape)), _scores=lambda: iter([(0, scores)]),
        _additive=additive,
    )  # fmt: skip


def test_ids_are_the_dataset_s_own() -> None:
    narrow = own_labels(LABELS, OwnIds(dataset="d", form="index", values=(7, 8, 26, 23, 21)))
    assert narrow.dtype == np.uint8
    assert narrow.tolist() == [[7, 8, 26], [23, 21, 7]]
    wide = own_labels(LABELS, OwnIds(dataset="d", form="index", values=(7, 300, 65535, 23, 21)))
    assert wide.dtype == np.uint16
    assert wide.tolist() == [[7, 300, 65535], [23, 21, 7]]
    colors = own_labels(LABELS, OwnIds(dataset="d", form="color", values=(0xFF8001, 0, 0x0000FF, 1, 2)))
    assert colors.tolist() == [[[255, 128, 1], [0, 0, 0], [0, 0, 255]], [[0, 0, 1], [0, 0, 2], [255, 128, 1]]]


def test_ids_that_are_not_known_are_refused() -> None:
    with pytest.raises(GkdError, match="are not known; give --ids train"):
        check_ids(None, CLASSES)
    with pytest.raises(GkdError, match="synthia has no id for 1 classes, such as 'car'"):
        check_ids(OwnIds(dataset="synthia", form="index", values=(1, 2, None, 4, 5)), CLASSES)


def test_an_overlay_is_half_image_and_half_colour() -> None:
    pixels = np.array([[[0, 0, 0], [255, 255, 255], [10, 20, 31]], [[1, 2, 3], [100, 100, 100], [255, 0, 255]]], np.uint8)
    golden = [[[64, 32, 64], [250, 145, 244], [5, 10, 87]], [[36, 66, 92], [104, 121, 68], [192, 32, 192]]]
    assert overlaid(pixels, LABELS, COLORS).tolist() == golden
    assert np.array_equal(overlaid(pixels, LABELS, COLORS, blend=0), pixels)
    assert overlaid(pixels, LABELS, COLORS, blend=1)[0, 2].tolist() == list(COLORS[2])


def test_probabilities_of_logits_and_of_sums() -> None:
    logits = torch.tensor([[[0.0]], [[1.0]], [[-2.0]]])
    exact = np.exp([0.0, 1.0, -2.0]) / np.exp([0.0, 1.0, -2.0]).sum()
    np.testing.assert_allclose(probabilities_of(logits, additive=False).flatten(), exact, rtol=1e-6)
    sums = torch.tensor([[[0.5, 0.0]], [[1.5, 0.0]], [[0.0, 0.0]]])
    assert probabilities_of(sums, additive=True)[:, 0, 0].tolist() == [0.25, 0.75, 0]
    np.testing.assert_allclose(probabilities_of(sums, additive=True)[:, 0, 1], 1 / 3, rtol=1e-6)


def test_a_confidence_map_is_in_255ths() -> None:
    assert confidence_bytes(np.array([[0.0, 0.5, 1.0, 0.2]], np.float32)).tolist() == [[0, 128, 255, 51]]


def test_every_output_is_what_the_answer_says(tmp_path: Path) -> None:
    answer = answer_of(torch.randn(5, 8, 12, generator=torch.Generator().manual_seed(0)) * 3)
    outputs = Outputs(tmp_path, Wanted(None, overlay=True, confidence=True, probabilities=True))
    assert outputs.write(PurePosixPath("day/a.b"), answer) == "labels/day/a.b.png"
    with Image.open(tmp_path / "labels/day/a.b.png") as labels:
        assert labels.mode == "L"
        assert np.array_equal(np.asarray(labels), answer.labels)
    with Image.open(tmp_path / "overlays/day/a.b.png") as overlay:
        assert np.array_equal(np.asarray(overlay), answer.overlay())
    with Image.open(tmp_path / "confidence/day/a.b.png") as confidence:
        np.testing.assert_allclose(np.asarray(confidence) / 255, answer.confidence, atol=0.5 / 255 + 1e-6)
    with np.load(tmp_path / "probabilities/day/a.b.npz", allow_pickle=False) as stored:
        assert tuple(stored["classes"]) == CLASSES
        np.testing.assert_allclose(stored["probabilities"] / 255, answer.probabilities(), atol=0.5 / 255 + 1e-6)
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["a.b.npz", "a.b.png", "a.b.png", "a.b.png"]


@pytest.mark.parametrize("additive", [False, True])
def test_the_table_is_what_numpy_makes_of_the_scores(additive: bool) -> None:
    scores = torch.rand(5, 7, 9, generator=torch.Generator().manual_seed(1)) * 4
    stream = io.StringIO()
    table = Table(stream, CLASSES)
    table.add(Row.of("a.png", "labels/a.png", answer_of(scores, additive)))
    (line,) = csv.DictReader(io.StringIO(stream.getvalue()))
    values = scores.double().numpy()
    exact = values / values.sum(axis=0) if additive else np.exp(values) / np.exp(values).sum(axis=0)
    assert (line["image"], line["height"], line["width"], line["labels"]) == ("a.png", "7", "9", "labels/a.png")
    assert float(line["seconds"]) == 0.25
    assert float(line["confidence"]) == pytest.approx(exact.max(axis=0).mean(), abs=1e-5)
    assert float(line["entropy"]) == pytest.approx(-(exact * np.log(exact)).sum(axis=0).mean(), abs=1e-5)
    for index, name in enumerate(CLASSES):
        assert float(line[f"share {name}"]) == pytest.approx((exact.argmax(axis=0) == index).mean(), abs=1e-7)


def test_no_name_becomes_a_formula() -> None:
    assert [no_formula(name) for name in ("=1+1.png", "@x", "-rf.png", "+1", "a=b.png")] == [
        "./=1+1.png", "./@x", "./-rf.png", "./+1", "a=b.png",
    ]  # fmt: skip


def test_a_table_of_a_run_that_ends_early_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), open_table(tmp_path, CLASSES):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_written_to_where_nothing_of_anybody_is_lost(tmp_path: Path) -> None:
    open_output(tmp_path / "new/er", replace=False)
    open_output(tmp_path / "new/er", replace=False)  # empty
    ours = tmp_path / "ours"
    (ours / "labels").mkdir(parents=True)
    (ours / TABLE).write_text(",".join(COLUMNS) + "\n")
    with pytest.raises(GkdError, match="holds 2 files or folders already, such as labels; .* or give --replace"):
        open_output(ours, replace=False)
    open_output(ours, replace=True)
    assert list(ours.iterdir()) == []


@pytest.mark.parametrize("content", [["photo.jpg"], ["labels/mine.png"], ["labels/mine.png", TABLE], [TABLE, "x"]])
def test_what_a_person_has_there_stays(tmp_path: Path, content: list[str]) -> None:
    for name in content:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("image,mine\n")
    for replace in (False, True):
        with pytest.raises(GkdError, match="choose a new folder"):
            open_output(tmp_path, replace)
    assert all((tmp_path / name).exists() for name in content)


def test_a_link_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(GkdError, match="a link or a file stands there"):
        open_output(tmp_path / "link", replace=True)
