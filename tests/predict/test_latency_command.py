"""`gkd latency` from end to end: every kind of model, table, record, and what a user can mend."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import safetensors.torch
from click.testing import Result
from typer.testing import CliRunner

from gkd_core.cli import app
from gkd_core.cli.latency import size_named
from gkd_core.errors import GkdError, SettingsError
from gkd_core.models.build import build_encoder, parameter_count
from gkd_core.predict import timing
from gkd_core.predict.bundle import read_bundle, write_bundle
from gkd_core.predict.latency import COLUMNS, read_latency
from gkd_core.predict.manifest import View
from gkd_core.records import MANIFEST, EncoderCheckpoint, sha256_of
from gkd_core.settings import EncoderSettings, load_settings
from tests.conftest import TINY_VIT
from tests.predict.conftest import CLASSES, bundle_of, network_of, segmentor_folder


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a bundle, a segmentor and an encoder, as the working directory; no process measures memory."""
    folder = segmentor_folder(tmp_path / "segmentor")
    view = View(window=(32, 64), stride=(32, 32), threads=1)
    write_bundle(bundle_of(folder, view), folder / "segmentor.safetensors", tmp_path / "student.gkd")
    weights = tmp_path / "encoder" / "encoder.safetensors"
    weights.parent.mkdir()
    encoder = EncoderSettings.model_validate(TINY_VIT)
    safetensors.torch.save_file(build_encoder(encoder, 1).state_dict(), weights)
    EncoderCheckpoint(
        encoder=encoder, weights=weights.name, sha256=sha256_of(weights), stage="distill-proxy", method="gkd", seed=0, updates=1
    ).write(tmp_path / "encoder" / MANIFEST)
    monkeypatch.setattr(timing, "peak_bytes", lambda job, network, device: 5 * 2**20)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def gkd(*arguments: str, command: str = "latency") -> Result:
    return CliRunner().invoke(app, [command, *arguments], env={"COLUMNS": "200"})


def test_a_bundle_is_measured_at_its_own_window_without_a_project(project: Path) -> None:
    result = gkd("student.gkd", "--device", "cpu", "--repeats", "2", "-o", "out/latency.json")
    assert result.exit_code == 0, result.exception
    assert "student.gkd" in result.output and "(vit_tiny_patch16_224, linear decoder)" in result.output
    assert "32 × 64 pixels; cpu (" in result.output and "1 thread; fp32;" in result.output and "ratio" not in result.output
    for column in COLUMNS:
        assert column in result.output
    found = read_latency(project / "out/latency.json")
    assert (found.size, found.batch, found.threads, found.repeats, found.against) == ((32, 64), 1, 1, 2, None)
    assert found.model.sha256 == read_bundle(project / "student.gkd").model.sha256
    assert found.model.parameters == parameter_count(network_of("linear", "vit"))
    assert found.model.peak_bytes == 5 * 2**20


@pytest.mark.parametrize(
    ("against", "known"), [("teacher", False), ("encoder", False), ("segmentor", True), ("student.gkd", True)]
)
def test_a_student_is_held_against_a_model_of_any_kind(project: Path, against: str, known: bool) -> None:
    options = ("--profile", "demo", "--device", "cpu", "--size", "32x32", "--batch", "2", "--threads", "1", "--repeats", "3")
    result = gkd("segmentor", "--against", against, *options, "--json")
    assert result.exit_code == 0, result.exception
    record = json.loads(result.stdout)
    assert (record["size"], record["batch"], record["against"]["decoder"]) == ([32, 32], 2, "linear")
    assert (record["against"]["sha256"] is not None) == known, "an encoder has the model's decoder, of random weights"
    assert str(project) not in result.stdout, "no folder of this machine is told"
    if against == "teacher":
        teacher = load_settings(None, "demo", []).teacher
        assert record["against"]["arch"] == teacher.arch
        encoder = build_encoder(teacher, 0)
        classifier = (encoder.dim + 1) * len(CLASSES)
        assert record["against"]["parameters"] == parameter_count(encoder) + classifier


def test_the_table_has_the_ratio(project: Path) -> None:
    result = gkd("student.gkd", "--against", "encoder", "--device", "cpu", "--repeats", "2")
    assert result.exit_code == 0, result.exception
    lines = result.output.splitlines()
    rows = {cells[1].strip(): cells[2:-1] for line in lines if len(cells := line.split("│")) == len(COLUMNS) + 3}
    assert rows["ratio, second to first"][3].strip() == "1 ×"
    assert [cell.strip()[-1] for cell in rows["ratio, second to first"]] == ["×"] * len(COLUMNS)
    assert "2 passes in turn after 3 to warm up" in result.output


def test_the_record_goes_into_the_bundle_of_its_student_alone(project: Path) -> None:
    assert gkd("student.gkd", "--against", "encoder", "--device", "cpu", "--repeats", "2", "-o", "latency.json").exit_code == 0
    made = gkd("segmentor", "-o", "told.gkd", "--profile", "demo", "--latency", "latency.json", command="bundle")
    assert made.exit_code == 0, made.exception
    assert read_bundle(project / "told.gkd").latency == read_latency(project / "latency.json")
    assert "| this student |" in (project / "told.gkd/MODEL_CARD.md").read_text()
    segmentor_folder(project / "other", "segformer")
    wrong = (("other", "latency.json", "latency of another student"), ("segmentor", "none.json", "no such file"))
    for folder, file, words in wrong:
        refused = gkd(folder, "-o", "refused.gkd", "--profile", "demo", "--latency", file, command="bundle").exception
        assert isinstance(refused, GkdError) and words in str(refused)
        assert not (project / "refused.gkd").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nowhere",), "nowhere"),
        (("encoder",), "not a SegmentorCheckpoint"),
        (("student.gkd", "--against", "nowhere"), "nowhere"),
        (("student.gkd", "--size", "512"), "--size: given '512'; expected HEIGHTxWIDTH in pixels, such as 512x1024"),
        (("student.gkd", "--size", "33x32"), "student.gkd: image of 33 × 32 pixels: both sides must be multiples of the patch"),
        (("student.gkd", "--device", "meta"), "latency is measured on cpu or cuda"),
    ],
)
def test_what_a_user_can_mend_is_one_line(project: Path, arguments: tuple[str, ...], words: str) -> None:
    result = gkd(*arguments, "--repeats", "2", "--profile", "demo", "-o", "latency.json")
    assert isinstance(result.exception, GkdError)
    assert words in str(result.exception) and "\n" not in str(result.exception)
    assert not (project / "latency.json").exists()


def test_a_teacher_wants_settings(project: Path) -> None:
    result = gkd("student.gkd", "--against", "teacher")
    assert "params.yaml: no such file; give --profile" in str(result.exception)


NO_SIZES = ["", "512", "x", "512x", "0x5", "5x0", "-1x5", "16385x1", "1e3x5", "5x5x5", "999999x1", "٣x٣", "5\nx5", "5x5\n"]


@pytest.mark.parametrize("text", NO_SIZES)
def test_a_size_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="expected HEIGHTxWIDTH"):
        size_named(text)


def test_a_size_is_height_by_width() -> None:
    assert size_named("512x1024") == size_named("512×1024") == (512, 1024)
