"""What is noted of an image while it is answered: the tokens of its windows, whatever way it goes; and what that says."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

from gkd_core.cli.app import app
from gkd_core.errors import WeightsError
from gkd_core.evaluate.inference import window_corners
from gkd_core.predict import student as student_module
from gkd_core.predict.bundle import open_bundle, open_known, write_bundle
from gkd_core.predict.card import CARD
from gkd_core.predict.known import FILE, Known, Named, part_of
from gkd_core.predict.manifest import View
from gkd_core.predict.pictures import Picture
from gkd_core.predict.student import Segmentor
from tests.predict.conftest import VIEW, bundle_of, network_of, noise, segmentor_folder

DECODERS = [("linear", "vit"), ("segformer", "vit"), ("mask2former", "cnn")]


def fields(height: int, width: int, seed: int) -> np.ndarray:
    """A picture (height, width, 3) of two calm areas, as the known images are."""
    draws = np.random.default_rng(seed)
    picture = np.empty((height, width, 3), dtype=np.uint8)
    border = int(draws.integers(height // 4, 3 * height // 4))
    picture[:border], picture[border:] = draws.integers(120, 200, 3), draws.integers(40, 90, 3)
    return picture


def made(folder: Path, decoder: str = "linear", family: str = "vit", view: View = VIEW) -> Segmentor:
    """A student that knows pictures of `fields`, without its statistics."""
    bundle = bundle_of(segmentor_folder(folder, decoder, family), view)
    return Segmentor(bundle, network_of(decoder, family), torch.device("cpu"))


def knowing(student: Segmentor) -> Segmentor:
    def rows(first: int, count: int) -> list[torch.Tensor]:
        return [student.pooled(Picture(fields(40, 50, first + index))) for index in range(count)]

    part = part_of("source", Named("gta5/train", rows(0, 24)), Named("gta5/val", rows(100, 9)), student.pooled_dim)
    return Segmentor(student.bundle, network_of_student(student), torch.device("cpu"), Known({"source": part}))


def network_of_student(student: Segmentor) -> torch.nn.Module:
    return network_of(student.bundle.model.decoder, "cnn" if "resnet" in student.bundle.model.encoder.arch else "vit")


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A bundle with statistics."""
    student = knowing(made(tmp_path / "segmentor"))
    write_bundle(student.bundle, tmp_path / "segmentor/segmentor.safetensors", tmp_path / "student.gkd", student.known)
    return tmp_path / "student.gkd"


def test_pooled_tokens_are_mean_and_deviation_over_places_and_windows(tmp_path: Path) -> None:
    student, picture = made(tmp_path), Picture(noise(40, 50))
    shown = picture.rows(0, 40)
    network = network_of("linear", "vit")
    corners = window_corners(40, 50, VIEW.window, VIEW.stride)
    windows = torch.stack([shown[:, top : top + 32, left : left + 32] for top, left in corners])
    with torch.inference_mode():
        tokens = network.encoder.tokens(windows).patches.flatten(0, 1).double().numpy()
    expected = np.concatenate([tokens.mean(axis=0), tokens.std(axis=0)])
    np.testing.assert_allclose(student.pooled(picture)[0].numpy(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("decoder", "family"), DECODERS)
def test_an_answer_s_distance_is_that_of_its_pooled_tokens_and_its_classes_are_untouched(
    tmp_path: Path, decoder: str, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = View(window=(32, 32), stride=(21, 21), batch_size=3, scales=(0.75, 1.0), flip=True)
    bare = made(tmp_path, decoder, family, view)
    student = knowing(bare)
    assert student.known is not None
    pictures = [noise(40, 50, seed) for seed in range(3)]
    expected = [student.known.distances(student.pooled(Picture(picture)))[0]["source"].value for picture in pictures]
    alone = [student.predict(picture) for picture in pictures]
    together = student.predict_all(pictures)
    monkeypatch.setattr(student_module, "MOST_WHOLE", 1)
    by_strips = [student.predict(picture) for picture in pictures]
    for answers in (alone, together, by_strips):
        assert [answer.distances["source"].value for answer in answers] == pytest.approx(expected, rel=1e-2)
    monkeypatch.undo()
    for picture, answer in zip(pictures, alone, strict=True):
        plain = bare.predict(picture)
        assert np.array_equal(plain.labels, answer.labels) and np.array_equal(plain.confidence, answer.confidence)
        assert plain.distances == {}


def test_what_is_known_is_nearer_than_noise(tmp_path: Path) -> None:
    student = knowing(made(tmp_path))
    near = [student.predict(fields(40, 50, 200 + seed)).distances["source"] for seed in range(5)]
    far = [student.predict(noise(40, 50, seed)).distances["source"] for seed in range(5)]
    assert max(each.value for each in near) < min(each.value for each in far)
    assert {each.percentile for each in far} == {100.0}


def test_a_bundle_with_statistics_opens_with_them_and_says_so(written: Path, tmp_path: Path) -> None:
    student = Segmentor.open(written, "cpu")
    assert student.known is not None and list(student.known.parts) == ["source"]
    assert student.predict(fields(40, 50, 3)).distances["source"].value == pytest.approx(1, abs=1)
    assert "| source | gta5/train | 24 | gta5/val | 9 |" in (written / CARD).read_text()
    content = (written / FILE).read_bytes()
    (written / FILE).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(WeightsError, match=f"{FILE}: its content is not what manifest.json describes"):
        Segmentor.open(written, "cpu")


def test_statistics_of_another_network_are_refused(tmp_path: Path) -> None:
    known = knowing(made(tmp_path / "vit")).known
    folder = segmentor_folder(tmp_path / "cnn", "linear", "cnn")
    with pytest.raises(WeightsError, match=r"source\.\w+ is torch.float64 .*expected torch.float64"):
        write_bundle(bundle_of(folder), folder / "segmentor.safetensors", tmp_path / "student.gkd", known)
    assert not (tmp_path / "student.gkd").exists()


def test_a_bundle_without_statistics_has_none(tmp_path: Path) -> None:
    folder = segmentor_folder(tmp_path / "segmentor")
    write_bundle(bundle_of(folder), folder / "segmentor.safetensors", tmp_path / "student.gkd")
    assert open_known(tmp_path / "student.gkd", *open_bundle(tmp_path / "student.gkd")) is None


def gkd(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["predict", "student.gkd", *arguments, "--device", "cpu"])


HOSTILE = "<script>alert(1)&amp;.png"


@pytest.fixture
def project(written: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The bundle beside photographs, one of noise under a hostile name, as the working directory."""
    photos = written.parent / "photos"
    photos.mkdir()
    for seed in range(3):
        Image.fromarray(fields(40, 50, 300 + seed)).save(photos / f"near-{seed}.png")
    Image.fromarray(noise(40, 50)).save(photos / HOSTILE)
    Image.fromarray(noise(40, 50, 1)).save(photos / "=far,\n\"1\".png")
    monkeypatch.chdir(written.parent)
    return written.parent


def test_the_table_and_the_report_say_how_far_each_image_is(project: Path) -> None:
    result = gkd("photos", "-o", "out", "--report")
    assert result.exit_code == 0, result.output
    with (project / "out/predictions.csv").open(newline="") as stream:
        lines = {line["image"]: line for line in csv.DictReader(stream)}
    student = Segmentor.open("student.gkd", "cpu")
    for name, line in lines.items():
        distance = student.predict(Path(name)).distances["source"]
        assert float(line["distance source"]) == pytest.approx(distance.value, abs=1e-3)
        assert float(line["percentile source"]) == pytest.approx(distance.percentile, abs=1e-2)
        assert "distance proxy" not in line
    page = (project / "out/report.html").read_text()
    assert "<script" not in page and "&lt;script&gt;alert(1)&amp;amp;.png" in page
    rows = [row for row in page.split("<tr>") if "photos/" in row]
    assert len(rows) == 5
    order = sorted(lines.values(), key=lambda line: -float(line["distance source"]))
    assert f"{float(order[0]['distance source']):.2f}" in rows[0] and "100.0" in rows[0]
    assert student.known is not None
    held_out = student.known.parts["source"].held_out.numpy()
    limit = np.percentile(held_out, 95) / np.sort(held_out)[len(held_out) // 2]
    far = sum(float(line["distance source"]) > limit for line in lines.values())
    assert far >= 2 and f"{far} of 5 images ({far / 5:.0%}) are farther than 95 % of the images of gta5/val" in page
    assert "data:image/png;base64," in page and "default-src 'none'" in page
    assert gkd("photos/near-0.png", "-o", "out", "--replace").exit_code == 0
    assert not (project / "out/report.html").exists(), "what an earlier call wrote goes"


def test_without_statistics_there_is_no_column_and_no_report(project: Path) -> None:
    folder = project / "segmentor"
    write_bundle(bundle_of(folder), folder / "segmentor.safetensors", project / "student.gkd")
    refused = gkd("photos", "-o", "out", "--report")
    assert "--report: student.gkd has no statistics of the images that it knows" in str(refused.exception)
    assert not (project / "out").exists()
    assert gkd("photos/near-0.png", "-o", "out").exit_code == 0
    assert "distance" not in (project / "out/predictions.csv").read_text()
