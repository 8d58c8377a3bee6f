"""`gkd export` from end to end: a file, a bundle, what cannot be, and the ten lines of docs/export.md."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors
import safetensors.torch
import torch
from click.testing import Result
from typer.testing import CliRunner

from gkd_core.cli import app
from gkd_core.errors import GkdError
from gkd_core.predict.bundle import open_bundle, read_bundle
from gkd_core.records import SegmentorCheckpoint
from tests.export.conftest import bundle_folder, photographs

DOCS = Path(__file__).parents[2] / "docs" / "export.md"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a bundle and photographs, as the working directory; no params.yaml, no catalog."""
    bundle_folder(tmp_path, "linear", "cnn")
    photographs(tmp_path / "photographs")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def gkd(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["export", "student.gkd", *arguments], env={"COLUMNS": "400"})


def test_the_ten_lines_of_the_docs_read_what_was_written(project: Path) -> None:
    result = gkd("--format", "onnx", "--classes", "--images", "photographs", "-o", "student.onnx")
    assert result.exit_code == 0, result.output
    assert "wrote student.onnx: onnx, opset 18, fp32, uint8 (B, H, W, 3) to classes; any batch, sides that are" in result.output
    assert "% of pixels get the same class, on 4 images" in result.output
    (script,) = re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    assert "gkd_core" not in script and len(script.splitlines()) <= 12
    (project / "use.py").write_text(script.replace("photograph.jpg", "photographs/0.png"))
    done = subprocess.run([sys.executable, "use.py"], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert (project / "labels.png").is_file()


def test_a_program_without_output_goes_into_the_bundle(project: Path) -> None:
    result = gkd("--format", "pt2", "--half", "--images", "photographs")
    assert result.exit_code == 0, result.output
    assert "wrote student.gkd/student-fp16.pt2" in result.output
    (program,) = read_bundle(project / "student.gkd").programs
    assert (program.file, program.precision) == ("student-fp16.pt2", "fp16")
    open_bundle(project / "student.gkd")


def test_without_labelled_images_it_is_said_that_the_cost_of_fewer_bits_is_not_measured(project: Path) -> None:
    result = gkd("--format", "onnx", "--int8", "--images", "photographs", "-o", "student.onnx")
    assert result.exit_code == 0, result.output
    assert "not measured: what it costs in mIoU, as there is no params.yaml here" in result.output


def test_all_weights_as_safetensors(project: Path) -> None:
    result = gkd("--format", "safetensors", "-o", "all.safetensors")
    assert result.exit_code == 0, result.output
    bundle, network = open_bundle(project / "student.gkd")
    found = safetensors.torch.load_file("all.safetensors")
    assert found.keys() == network.state_dict().keys()
    assert all(torch.equal(found[name], value) for name, value in network.state_dict().items())
    with safetensors.safe_open("all.safetensors", "pt") as file:
        assert SegmentorCheckpoint.model_validate_json(file.metadata()["gkd"]) == bundle.model


def test_a_bundles_backbone_for_timm(project: Path) -> None:
    result = gkd("-o", "backbone.safetensors")
    assert result.exit_code == 0 and "timm.create_model('resnet10t'" in result.output, result.output


REFUSED = {
    "torchscript": (["--format", "torchscript", "-o", "a.pt"], "has deprecated TorchScript in favour of torch.export"),
    "no images": (["--format", "pt2"], "no images to check the program on: there is no params.yaml here"),
    "an image that is none": (["--format", "pt2", "--images", "photographs/none.png"], "none.png"),
    "no output": (["--format", "safetensors"], "needs the name of a file"),
    "another suffix": (["--format", "pt2", "-o", "a.onnx", "--images", "photographs"], "is a .pt2 file; choose such a name"),
    "half of a state dict": (["--half", "-o", "a.safetensors"], "--half: is for programs, --format onnx or pt2; leave it out"),
    "two precisions": (["--format", "onnx", "--half", "--int8", "-o", "a.onnx"], "--half is given beside it"),
    "int8 of pt2": (["--format", "pt2", "--int8", "-o", "a.pt2"], "give --format onnx, or --half"),
    "a size that is none": (["--format", "pt2", "--size", "64", "-o", "a.pt2"], "is no size; give HEIGHTxWIDTH"),
    "a size of no multiple": (["--format", "pt2", "--size", "64x65", "-o", "a.pt2"], "sides that are multiples of 32"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_is_one_line_and_leaves_nothing(project: Path, kind: str) -> None:
    before = sorted(project.rglob("*"))
    arguments, message = REFUSED[kind]
    result = gkd(*arguments)
    assert isinstance(result.exception, GkdError), result.output
    assert message in str(result.exception) and str(result.exception).isprintable()
    assert sorted(project.rglob("*")) == before
