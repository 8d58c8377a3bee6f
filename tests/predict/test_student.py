"""A student in use: what it answers is what its scores count, whatever it is given, at any size, at once or strip by strip."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import gkd_core
from gkd_core.data.catalog.entries import Protocol
from gkd_core.data.files.origin import train_id_encoding
from gkd_core.data.files.reading import Pair
from gkd_core.errors import DataError, GkdError, SettingsError
from gkd_core.evaluate.inference import image_logits, sliding_logits
from gkd_core.evaluate.matrix import ScoredImages, predict
from gkd_core.models.decoders import DECODERS
from gkd_core.predict import student as student_module
from gkd_core.predict.bundle import write_bundle
from gkd_core.predict.manifest import View
from gkd_core.predict.pictures import Picture
from gkd_core.predict.student import Segmentor, device_named
from gkd_core.predict.windows import Resized, Windowed
from tests.predict.conftest import CLASSES, SHRINKING, VIEW, bundle_of, lively, network_of, noise, segmentor_folder

Make = Callable[..., Segmentor]
FULL_VIEW = VIEW.model_copy(update={"protocol": SHRINKING, "scales": (0.75, 1.0), "flip": True})


def scored(network: torch.nn.Module, pixels: np.ndarray, view: View, folder: Path) -> np.ndarray:
    """The classes that the score counts of an image, (H, W), by the code that measures."""
    Image.fromarray(pixels).save(folder / "image.png")
    Image.fromarray(np.zeros(pixels.shape[:2], np.uint8)).save(folder / "label.png")
    pair = Pair(folder / "image.png", folder / "label.png")
    domain = ScoredImages([pair], train_id_encoding("street", len(CLASSES)), view.protocol, len(CLASSES))
    answer: np.ndarray = predict(network, pair, domain, view.settings(), torch.device("cpu")).answer.numpy()
    return answer


@pytest.mark.parametrize("view", [VIEW, FULL_VIEW], ids=["plain", "full"])
@pytest.mark.parametrize("family", ["vit", "cnn"])
@pytest.mark.parametrize("decoder", DECODERS)
def test_its_classes_are_those_that_the_score_counts(
    student: Make, tmp_path: Path, decoder: str, family: str, view: View
) -> None:
    pixels = noise(70, 90)
    answer = student(decoder, family, view).predict(pixels)
    expected = scored(lively(decoder, family), pixels, view, tmp_path)
    assert np.array_equal(answer.labels, expected)
    assert len(np.unique(expected)) > 1, "a student that answers one class everywhere would show nothing"
    assert answer.labels.dtype == np.uint8


@pytest.mark.parametrize("decoder", DECODERS)
def test_several_images_at_once_and_large_ones_by_strips_are_answered_alike(
    student: Make, monkeypatch: pytest.MonkeyPatch, decoder: str
) -> None:
    made, images = student(decoder, view=FULL_VIEW), [noise(50, 64, seed) for seed in range(3)]
    one_by_one = [made.predict(image) for image in images]
    together = made.predict_all(images)
    monkeypatch.setattr(student_module, "MOST_WHOLE", 1)
    monkeypatch.setattr(student_module, "STRIP", 7 * 64 * len(CLASSES) * 4)
    by_strips = made.predict_all(images)
    for whole, *others in zip(one_by_one, together, by_strips, strict=True):
        top_two = np.sort(whole.probabilities(), axis=0)[-2:]
        clear = top_two[1] - top_two[0] > 1e-5
        assert clear.mean() > 0.9
        for other in others:
            assert np.array_equal(other.labels[clear], whole.labels[clear])
            np.testing.assert_allclose(other.probabilities(), whole.probabilities(), atol=2e-5)
            np.testing.assert_allclose(other.confidence, whole.confidence, atol=2e-5)
            assert other.entropy == pytest.approx(whole.entropy, abs=1e-5)


@settings(max_examples=25)
@given(
    height=st.integers(1, 150), width=st.integers(1, 100), batch_size=st.integers(1, 5), step=st.integers(1, 40),
    window=st.sampled_from([(32, 32), (64, 32), (32, 64)]), stride=st.sampled_from([(32, 32), (21, 17), (9, 30)]),
)  # fmt: skip
@torch.inference_mode()
def test_strips_have_the_logits_of_sliding_windows_bit_for_bit(
    height: int, width: int, batch_size: int, step: int, window: tuple[int, int], stride: tuple[int, int]
) -> None:
    network, picture = network_of("linear", "vit"), Picture(noise(height, width))
    view = View(window=window, stride=stride, batch_size=batch_size)
    rows = Windowed(network, picture, view.settings())
    strips = [rows.rows(top, min(top + step, height)) for top in range(0, height, step)]
    expected = sliding_logits(network, picture.rows(0, height), window, stride, batch_size)
    assert torch.equal(torch.cat(strips, dim=1), expected)


@settings(max_examples=40)
@given(
    height=st.integers(1, 60), width=st.integers(1, 60), to_height=st.integers(1, 90), to_width=st.integers(1, 90),
    step=st.integers(1, 30),
)  # fmt: skip
def test_rows_are_resized_as_torch_resizes_the_whole(height: int, width: int, to_height: int, to_width: int, step: int) -> None:
    picture = Picture(noise(height, width))
    rows = Resized(picture, (to_height, to_width))
    found = torch.cat([rows.rows(top, min(top + step, to_height)) for top in range(0, to_height, step)], dim=1)
    whole = picture.rows(0, height).unsqueeze(0)
    expected = torch.nn.functional.interpolate(whole, size=(to_height, to_width), mode="bilinear", align_corners=False)[0]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_a_band_of_windows_does_not_grow_with_the_height() -> None:
    rows = Windowed(network_of("linear", "vit"), Picture(noise(2000, 32)), VIEW.settings())
    highest = 0
    with torch.inference_mode():
        for top in range(0, 2000, 10):
            rows.rows(top, top + 10)
            assert rows._total is not None
            highest = max(highest, rows._total.shape[1])
    # The windows of one pass, and what was asked for: 32 + 2 × 21 + 10 rows.
    assert highest <= 84


@settings(max_examples=30)
@given(
    height=st.integers(1, 80), width=st.integers(1, 80), images=st.integers(1, 4), absent=st.integers(0, 4),
    decoder=st.sampled_from(DECODERS), family=st.sampled_from(["vit", "cnn"]),
)  # fmt: skip
def test_an_image_of_any_size_gets_whole_numbers_of_every_pixel(
    tmp_path_factory: pytest.TempPathFactory, height: int, width: int, images: int, absent: int, decoder: str, family: str
) -> None:
    folder = tmp_path_factory.getbasetemp() / f"{decoder}-{family}"
    if not folder.exists():
        segmentor_folder(folder, decoder, family)
    made = Segmentor(bundle_of(folder), Without(lively(decoder, family), absent, decoder == "mask2former"), torch.device("cpu"))
    for answer in made.predict_all([noise(height, width, seed) for seed in range(images)]):
        assert answer.labels.shape == answer.confidence.shape == (height, width)
        assert not (answer.labels == absent).any()
        assert answer.shares[absent] == 0
        assert answer.shares.sum() == pytest.approx(1)
        shares = answer.probabilities()
        assert shares.shape == (len(CLASSES), height, width)
        np.testing.assert_allclose(shares.sum(axis=0), 1, atol=1e-5)
        np.testing.assert_allclose(shares.max(axis=0), answer.confidence, atol=1e-6)
        entropy = -(shares.astype(np.float64) * np.log(np.maximum(shares, 1e-30))).sum(axis=0).mean()
        assert answer.entropy == pytest.approx(entropy, abs=1e-5)
        assert 0 <= answer.entropy <= np.log(len(CLASSES)) + 1e-6


class Without(torch.nn.Module):
    """A network that never answers one class."""

    def __init__(self, network: torch.nn.Module, absent: int, additive: bool) -> None:
        super().__init__()
        self.network, self.absent, self.additive = network, absent, additive

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.network(images).clone()
        logits[:, self.absent] = 0 if self.additive else -1e4
        return logits


def test_one_image_as_path_picture_array_and_tensor_is_one_image(student: Make, tmp_path: Path) -> None:
    made, pixels = student(), noise(40, 50)
    Image.fromarray(pixels).save(tmp_path / "i.png")
    wide = pixels.astype(np.uint16) * 257
    same: list[Any] = [
        tmp_path / "i.png", str(tmp_path / "i.png"), Image.fromarray(pixels), Image.open(tmp_path / "i.png"), pixels, wide,
        pixels.astype(np.float32) / np.float32(255), torch.from_numpy(pixels).permute(2, 0, 1),
        torch.from_numpy(pixels).permute(2, 0, 1).float() / 255, np.dstack([pixels, pixels[..., :1]]), np.asfortranarray(pixels),
        wide.astype(">u2"),
    ]  # fmt: skip
    expected = made.predict(pixels)
    for image in same:
        answer = made.predict(image)
        assert np.array_equal(answer.labels, expected.labels)
        assert np.array_equal(answer.confidence, expected.confidence)
        assert np.array_equal(answer.overlay(), expected.overlay())


def test_a_grey_image_is_one_of_three_equal_channels(student: Make) -> None:
    made, grey = student(), noise(40, 50)[..., 0]
    expected = made.predict(np.dstack([grey] * 3)).labels
    for image in (grey, grey[..., None], Image.fromarray(grey), torch.from_numpy(grey)[None]):
        assert np.array_equal(made.predict(image).labels, expected)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((3, 4, 5, 6), np.uint8), "an array (3, 4, 5, 6)"),
        (np.zeros((0, 4, 3), np.uint8), "an array (0, 4, 3)"),
        (np.zeros((4, 4, 7), np.uint8), "an array (4, 4, 7)"),
        (np.zeros((4, 4, 3), np.int64), "numbers of kind int64"),
        (np.full((4, 4, 3), 1.5), "floats from 1.5 to 1.5"),
        (np.full((4, 4, 3), np.nan), "floats from nan to nan"),
        (torch.zeros(4, 4), "a tensor (4, 4)"),
        (b"bytes", "a bytes; expected a path"),
        ("/nowhere/image.png", "no such file"),
    ],
)
def test_what_is_no_image_is_one_line(student: Make, image: object, message: str) -> None:
    with pytest.raises(DataError) as refused:
        student().predict(image)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_scaling_counts_in_grey_levels_as_in_the_score(student: Make, tmp_path: Path) -> None:
    view = VIEW.model_copy(update={"protocol": Protocol(scale=0.5, max_size=(30, 40))})
    pixels = noise(81, 99)
    answer = student("linear", "vit", view).predict(pixels)
    assert np.array_equal(answer.labels, scored(lively("linear", "vit"), pixels, view, tmp_path))


def test_a_bundle_opens_by_the_package_s_own_name(tmp_path: Path) -> None:
    folder = segmentor_folder(tmp_path / "s")
    write_bundle(bundle_of(folder), folder / "segmentor.safetensors", tmp_path / "student.gkd")
    made = gkd_core.Segmentor.open(tmp_path / "student.gkd", device="cpu")
    pixels = noise(33, 65)
    with torch.inference_mode():
        logits = image_logits(network_of("linear", "vit"), Picture(pixels).rows(0, 33), VIEW.settings())
    answer = made.predict(pixels)
    assert np.array_equal(answer.labels, logits.argmax(dim=0).numpy())
    np.testing.assert_allclose(answer.probabilities(), logits.softmax(dim=0).numpy(), atol=1e-6)
    assert answer.classes == made.classes == CLASSES
    assert answer.seconds > 0


def test_another_name_of_the_package_is_refused() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Student'"):
        gkd_core.Student  # noqa: B018


@pytest.mark.parametrize("name", ["cuda:77", "gpu", "cpu cpu", ""])
def test_a_device_that_is_not_here_is_one_line(name: str) -> None:
    with pytest.raises(SettingsError, match="cannot be used here") as refused:
        device_named(name)
    assert "\n" not in str(refused.value)


def test_what_is_no_bundle_is_one_line(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none", segmentor_folder(tmp_path / "s")):
        with pytest.raises(GkdError, match="is no bundle; give a folder that `gkd bundle` wrote"):
            Segmentor.open(path)
