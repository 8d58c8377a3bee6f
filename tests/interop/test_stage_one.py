"""The authors' stage-one checkpoints: what they hold ends up where it belongs, and every tensor is accounted for."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy
import pytest
import torch
from typer.testing import CliRunner

from gkd_core.cli import app
from gkd_core.distill.objective import QSDObjective
from gkd_core.errors import WeightsError
from gkd_core.interop.checkpoint import read_released
from gkd_core.interop.export import read_encoder
from gkd_core.interop.importing import Imported, import_stage_one
from gkd_core.interop.released import describe, write_encoder
from gkd_core.models.build import build_encoder
from gkd_core.models.encoder import Encoder
from gkd_core.models.tensor_files import read_tensors
from gkd_core.models.weights import load_into
from gkd_core.records import MANIFEST, EncoderCheckpoint
from gkd_core.settings import EncoderSettings

from .conftest import TEACHER_DIM, released_stage_one

Save = Callable[..., Path]


def imported(save: Save, state: object, arch: EncoderSettings) -> Imported:
    args = argparse.Namespace(lr=5e-4, model="vit_small")
    return import_stage_one(read_released(save({"model": state, "optimizer": {"state": {}}, "epoch": 99, "args": args})), arch)


@pytest.mark.parametrize("chunk", [None, 0])
def test_student_and_heads_give_the_same_outputs(
    save: Save, arch: EncoderSettings, objective: QSDObjective, chunk: int | None
) -> None:
    bare = arch.model_copy(update={"patch_size": None, "image_size": None})
    model = imported(save, released_stage_one(objective, chunk), bare).model
    assert isinstance(model, QSDObjective)
    images = torch.rand(2, 3, 32, 32)
    mask = torch.rand(2, 16) < 0.5
    teacher = torch.randn(2, 16, TEACHER_DIM)
    with torch.no_grad():
        ours, theirs = model.student.tokens(images, mask), objective.student.tokens(images, mask)
        assert torch.equal(ours.cls, theirs.cls)
        assert torch.equal(ours.patches, theirs.patches)
        for head in ("token", "fea", "patch"):
            left, right = getattr(model, head), getattr(objective, head)
            assert torch.equal(left(ours.patches, teacher), right(theirs.patches, teacher))


@pytest.mark.parametrize("case", ["a", "b"])
def test_heads_under_the_released_names_answer_as_the_released_code(
    save: Save, official: Path, arch: EncoderSettings, case: str
) -> None:
    """The golden file's weights, written as a checkpoint, through the import, against the golden answers."""
    golden = numpy.load(official / f"qsd_official_{case}.npz")
    tensors = {name: torch.from_numpy(golden[name]) for name in golden.files}
    dim, teacher_dim = tensors["in/student_patch"].shape[-1], tensors["in/teacher_patch"].shape[-1]
    sized = arch.model_copy(update={"options": arch.options | {"embed_dim": dim}})
    state = {
        name: value
        for name, value in released_stage_one(QSDObjective(build(sized), teacher_dim)).items()
        if name.startswith("student.")
    }
    for name, value in tensors.items():
        if name.startswith("weight/"):
            _, head, layer = name.split("/")
            state[f"{head}_head.{layer}"] = value
    model = imported(save, state, sized).model
    assert isinstance(model, QSDObjective)
    inputs = {
        "token": ("in/student_cls", "in/teacher_cls"),
        "fea": ("in/student_patch", "in/teacher_patch"),
        "patch": ("in/student_patch_masked", "in/teacher_patch"),
    }
    for head, (student, teacher) in inputs.items():
        ours = [tensors[name] if tensors[name].ndim == 3 else tensors[name].unsqueeze(1) for name in (student, teacher)]
        with torch.no_grad():
            answer = getattr(model, head)(*ours)
        torch.testing.assert_close(answer.reshape(tensors[f"out/{head}"].shape), tensors[f"out/{head}"], atol=1e-5, rtol=0)


def build(settings: EncoderSettings) -> Encoder:
    return build_encoder(settings, seed=0)


def test_every_tensor_is_accounted_for(save: Save, arch: EncoderSettings, objective: QSDObjective) -> None:
    state = released_stage_one(objective) | {"student.backbone.head.weight": torch.zeros(10, 32), "neck.weight": torch.zeros(3)}
    result = imported(save, state, arch)
    renamed = result.renamed
    assert set(renamed.mapped) | {name for names in renamed.aside.values() for name in names} | set(renamed.unknown) == set(state)
    assert set(renamed.tensors) == set(objective.state_dict())
    assert renamed.mapped["fea_head.proj_q.1.weight"] == ("fea.proj_q.1.weight",)
    text = "\n".join(describe(result))
    assert f"stage-one, {len(state)} tensors" in text
    assert f"mapped    {len(objective.state_dict())} tensors" in text
    assert "left out  2: the teacher, which has weights of its own (teacher.backbone.cls_token, teacher.backbone.norm" in text
    assert "left out  1: a classifier, which features do not pass (student.backbone.head.weight)" in text
    assert "unknown   neck.weight" in text
    assert "not read  optimizer, epoch, args" in text


def test_a_missing_tensor_is_named(save: Save, arch: EncoderSettings, objective: QSDObjective) -> None:
    state = released_stage_one(objective)
    del state["student.backbone.blocks.1.mlp.fc1.bias"]
    with pytest.raises(WeightsError, match=r"1 missing.*missing student\.backbone\.blocks\.1\.mlp\.fc1\.bias"):
        imported(save, state, arch)
    del state["fea_head.proj_q.1.weight"]
    with pytest.raises(WeightsError, match=r"fea_head\.proj_q\.1\.weight is missing; a whole checkpoint of stage-one"):
        imported(save, state, arch)


def test_another_architecture_is_refused(save: Save, arch: EncoderSettings, objective: QSDObjective) -> None:
    """A network of fewer blocks would be filled whole, and still be another function."""
    fewer = arch.model_copy(update={"options": arch.options | {"depth": 1}})
    with pytest.raises(WeightsError, match=r"has no place for \d+ of its tensors .*blocks\.1\."):
        imported(save, released_stage_one(objective), fewer)


def test_written_as_what_stage_one_writes(save: Save, tmp_path: Path, arch: EncoderSettings, objective: QSDObjective) -> None:
    folder = tmp_path / "out"
    write_encoder(imported(save, released_stage_one(objective), arch), folder)
    record = EncoderCheckpoint.read(folder / MANIFEST)
    assert (record.encoder.patch_size, record.encoder.image_size) == (8, 32)
    encoder, _ = read_encoder(folder)
    images = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(encoder.tokens(images).patches, objective.student.tokens(images).patches)
    # The objective's file is what stage 1b goes on from.
    again = QSDObjective(build(arch), TEACHER_DIM)
    assert load_into(again, read_tensors(folder / "objective.safetensors"), "objective").share == 1.0


def test_the_whole_command(save: Save, tmp_path: Path, objective: QSDObjective) -> None:
    model = QSDObjective(build(EncoderSettings(arch="deit_tiny_patch16_224", patch_size=16, image_size=64)), TEACHER_DIM)
    path = save({"model": released_stage_one(model)})
    dry = CliRunner().invoke(app, ["import-checkpoint", str(path), "--arch", "deit_tiny_patch16_224"])
    assert dry.exit_code == 0, dry.output
    assert "patch 16, laid out for 64 × 64 pixels" in dry.output
    assert "nothing written: give --output" in dry.output
    assert [item.name for item in tmp_path.iterdir()] == [path.name]
    kept = CliRunner().invoke(
        app, ["import-checkpoint", str(path), "--arch", "deit_tiny_patch16_224", "--output", str(tmp_path / "deit")]
    )
    assert kept.exit_code == 0, kept.output
    assert {item.name for item in (tmp_path / "deit").iterdir()} == {MANIFEST, "encoder.safetensors", "objective.safetensors"}
