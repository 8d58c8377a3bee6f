"""Programs against PyTorch, by runtimes that know nothing of us: each decoder and family, other batches, other sizes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from gkd_core.errors import GkdError, SettingsError
from gkd_core.export import onnx_file
from gkd_core.export.check import Bound, Figures
from gkd_core.export.onnx_file import OPSET
from gkd_core.export.program import export_file, export_into_bundle
from gkd_core.export.wanted import Sizes, Wanted, read_size
from gkd_core.models.decoders import DECODERS
from gkd_core.predict.bundle import open_bundle, read_bundle
from gkd_core.predict.card import CARD
from gkd_core.records import MANIFEST
from tests.export.conftest import VIEW, bundle_folder, expected, student_of
from tests.predict.conftest import CLASSES, noise

NEAR = 1e-5  # of a logit: tiny networks
ANY = [(64, 96), (96, 64), (128, 256)]

# Each program takes seconds to a minute to be made: one of a kind with every change, the others where all tests are run.
QUICK = {("linear", "vit"), ("segformer", "cnn")}
SLOW_PT2 = [pytest.param(*each, marks=pytest.mark.slow) for each in (("segformer", "cnn"), ("mask2former", "vit"))]
SLOW_HALF = [pytest.param(*each, marks=pytest.mark.slow) for each in (("onnx", "cnn"), ("pt2", "vit"))]


def sizes_of(student: object) -> Sizes:
    return Sizes.of(student.network, VIEW)  # type: ignore[attr-defined]


def images_of(batch: int, size: tuple[int, int]) -> np.ndarray:
    return np.stack([noise(*size, seed) for seed in range(20, 20 + batch)])


def floats_of(images: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2), dtype=np.float32) / np.float32(255)


def ran(path: Path, images: np.ndarray) -> np.ndarray:
    """What onnxruntime gives."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"images": images})
    return found


def ran_by_torch(path: Path, images: np.ndarray) -> np.ndarray:
    given: np.ndarray = torch.export.load(path).module()(torch.from_numpy(images)).numpy()
    return given


@pytest.mark.parametrize(
    ("decoder", "family"),
    [
        pytest.param(decoder, family, marks=[] if (decoder, family) in QUICK else pytest.mark.slow)
        for decoder in DECODERS
        for family in ("vit", "cnn")
    ],
)
def test_onnxruntime_gives_pytorchs_logits(tmp_path: Path, decoder: str, family: str) -> None:
    student = student_of(tmp_path, decoder, family)
    path = tmp_path / "student.onnx"
    exported = export_file(student, Wanted(format="onnx"), sizes_of(student), path)
    fixed = decoder == "mask2former"
    for size in [(64, 96)] if fixed else ANY:
        for batch in (1, 3):
            images = images_of(batch, size)
            given = torch.from_numpy(ran(path, floats_of(images)))
            torch.testing.assert_close(given, expected(student, images), atol=NEAR, rtol=NEAR)
    program = exported.program
    assert (program.opset, program.takes, program.precision) == (OPSET, "logits-of-floats", "fp32")
    assert (program.size, program.fixed_because is not None) == ((64, 96) if fixed else None, fixed)
    assert program.checked["argmax-agreement"] >= 0.999
    assert program.checked["largest-difference"] < NEAR and program.checked["images"] == 4
    model = onnx.load(path)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", OPSET)]
    names = [dim.dim_param or dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    assert names == (["batch", 3, 64, 96] if fixed else ["batch", 3, "height", "width"])
    (entry,) = (each for each in model.metadata_props if each.key == "gkd")
    assert json.loads(entry.value)["classes"] == list(CLASSES)
    assert json.loads(entry.value)["program"]["checked"] == program.checked


@pytest.mark.parametrize("format_", ["onnx", "pt2"])
def test_bytes_in_classes_out(tmp_path: Path, format_: str) -> None:
    student = student_of(tmp_path, "segformer", "cnn")
    path = tmp_path / f"student.{format_}"
    wanted = Wanted.model_validate({"format": format_, "takes": "classes-of-bytes"})
    exported = export_file(student, wanted, sizes_of(student), path)
    assert exported.figures.difference is None and "largest-difference" not in exported.program.checked
    for batch, size in ((1, (64, 96)), (3, (128, 64))):
        images = images_of(batch, size)
        given = ran(path, images) if format_ == "onnx" else ran_by_torch(path, images)
        assert given.dtype == np.uint8
        assert (given == expected(student, images).argmax(1).numpy()).mean() >= 0.999


@pytest.mark.parametrize(("decoder", "family"), [pytest.param("linear", "vit"), *SLOW_PT2])
def test_a_pt2_program_gives_pytorchs_logits(tmp_path: Path, decoder: str, family: str) -> None:
    student = student_of(tmp_path, decoder, family)
    path = tmp_path / "student.pt2"
    exported = export_file(student, Wanted(format="pt2"), sizes_of(student), path)
    facts = {"gkd.json": ""}
    module = torch.export.load(path, extra_files=facts).module()
    for size in [(64, 96)] if decoder == "mask2former" else ANY:
        for batch in (1, 3):
            images = images_of(batch, size)
            given = module(torch.from_numpy(floats_of(images)))
            torch.testing.assert_close(given, expected(student, images), atol=NEAR, rtol=NEAR)
    assert exported.program.opset is None
    assert json.loads(facts["gkd.json"])["program"]["checked"] == exported.program.checked


@pytest.mark.parametrize(("format_", "family"), [("onnx", "vit"), *SLOW_HALF])
def test_half_is_half_as_large_and_near(tmp_path: Path, format_: str, family: str) -> None:
    student = student_of(tmp_path, "linear", family)
    sizes, paths = sizes_of(student), [tmp_path / f"{name}.{format_}" for name in ("whole", "half")]
    for path, half in zip(paths, (False, True), strict=True):
        exported = export_file(
            student, Wanted.model_validate({"format": format_, "precision": "fp16" if half else "fp32"}), sizes, path
        )
        assert exported.program.precision == ("fp16" if half else "fp32")
    assert 0 < exported.figures.difference <= 0.03 * exported.figures.largest  # type: ignore[operator]
    if family == "cnn":  # in a tiny transformer, the graph is the larger part
        assert paths[1].stat().st_size < 0.7 * paths[0].stat().st_size


@pytest.mark.parametrize("takes", [pytest.param("logits-of-floats", marks=pytest.mark.slow), "classes-of-bytes"])
def test_eight_bits_are_a_quarter_as_large_and_near(tmp_path: Path, takes: str) -> None:
    student = student_of(tmp_path, "linear", "cnn")
    wanted = Wanted.model_validate({"format": "onnx", "precision": "int8", "takes": takes})
    exported = export_file(student, wanted, sizes_of(student), tmp_path / "student.onnx")
    assert exported.program.precision == "int8" and exported.figures.agreement >= 0.95
    assert (tmp_path / "student.onnx").stat().st_size < 2**21 < sum(each.nbytes for each in student.network.parameters()) / 2
    assert [each.name for each in tmp_path.glob("*.onnx")] == ["student.onnx"]


def test_pt2_has_no_eight_bits() -> None:
    with pytest.raises(SettingsError, match="--int8: onnxruntime quantises ONNX files alone"):
        Wanted.model_validate({"format": "pt2", "precision": "int8"})


@pytest.mark.parametrize("format_", ["onnx", "pt2"])
def test_a_program_beyond_its_bound_is_refused_and_leaves_nothing(tmp_path: Path, format_: str) -> None:
    student = student_of(tmp_path, "linear", "cnn")
    (tmp_path / "out").mkdir()
    path = tmp_path / "out" / f"student.{format_}"
    wanted = Wanted.model_validate({"format": format_, "precision": "fp16"})
    with pytest.raises(GkdError, match=r"is not what PyTorch computes: logits differ by .* on 4 images; expected at most"):
        export_file(student, wanted, sizes_of(student), path, Bound(difference=1e-9, agreement=0))
    path.write_text("old")
    with pytest.raises(GkdError, match="is not what PyTorch computes"):
        export_file(student, wanted, sizes_of(student), path, Bound(difference=1, agreement=1.1))
    assert [each.name for each in path.parent.iterdir()] == [path.name] and path.read_text() == "old"


def test_a_program_goes_into_its_bundle_or_the_bundle_stays(tmp_path: Path) -> None:
    folder = bundle_folder(tmp_path)
    bundle, network = open_bundle(folder)
    student = student_of(tmp_path)
    own = type(student)(bundle, network, student.pictures)
    sizes, wanted = sizes_of(own), Wanted(format="pt2")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(GkdError, match="is not what PyTorch computes"):
        export_into_bundle(own, wanted, sizes, folder, Bound(difference=1, agreement=1.1))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    exported = export_into_bundle(own, wanted, sizes, folder)
    written = read_bundle(folder)
    assert written.programs == (exported.program,)
    assert {file.name for file in written.files} == {"student.safetensors", CARD, "student.pt2"}
    assert "`student.pt2` (pt2, fp32): float32 (B, 3, H, W) in 0..1 to logits" in (folder / CARD).read_text()
    with pytest.raises(GkdError, match="was changed meanwhile"):
        export_into_bundle(own, wanted, sizes, folder)
    again = type(student)(written, network, student.pictures)
    export_into_bundle(again, wanted, sizes, folder)
    assert len(read_bundle(folder).programs) == 1
    assert sorted(path.name for path in folder.iterdir()) == sorted(["student.safetensors", CARD, "student.pt2", MANIFEST])


def test_numbers_that_are_none_are_beyond_every_bound() -> None:
    for broken in (
        Figures(1, 1, 1.0, float("nan"), 1.0),
        Figures(1, 1, float("nan"), 0.0, 1.0),
        Figures(1, 1, 1.0, 0.0, float("nan")),
    ):
        with pytest.raises(GkdError, match="is not what PyTorch computes"):
            broken.check(Bound(1, 0))


def test_sizes_that_a_student_cannot_see_are_refused(tmp_path: Path) -> None:
    network = student_of(tmp_path).network
    for size in ((64, 100), (32, 64), (0, 64), (2**14 + 32, 64)):
        with pytest.raises(SettingsError, match="take sides that are multiples of 32, from 64 to 16384"):
            Sizes.of(network, VIEW, size)
    assert Sizes.of(network, VIEW, (128, 64)).traced == (128, 64)
    assert read_size("512x1024") == (512, 1024)
    for text in ("512", "x", "1x2x3", "-1x64", "9999999x1", "a×b", "²x64"):
        with pytest.raises(SettingsError, match="is no size; give HEIGHTxWIDTH"):
            read_size(text)


def test_all_but_onnx_works_where_its_packages_are_absent() -> None:
    code = f"import sys; sys.modules.update(dict.fromkeys({onnx_file.PACKAGES}))\n"
    code += "import gkd_core.export.program, gkd_core.cli.export\nfrom gkd_core.export.onnx_file import check_packages\n"
    code += "check_packages()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=200, check=False)
    assert "the package onnx cannot be imported" in done.stderr.splitlines()[-1]


def test_a_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def absent(name: str) -> None:
        raise ModuleNotFoundError(f"No module named '{name}'")

    monkeypatch.setattr(onnx_file.importlib, "import_module", absent)
    student = student_of(tmp_path)
    with pytest.raises(GkdError, match="the package onnx cannot be imported .* pip install onnx onnxscript onnxruntime"):
        export_file(student, Wanted(format="onnx"), sizes_of(student), tmp_path / "student.onnx")
    with pytest.raises(GkdError, match=r"is a \.onnx file; choose such a name"):
        export_file(student, Wanted(format="onnx"), sizes_of(student), tmp_path / "student.pt2")
    assert not list(tmp_path.glob("*.onnx"))
