"""The demo's teacher: its training can be repeated, and what it writes can be loaded."""

from __future__ import annotations

from pathlib import Path

import torch

from gkd_core.models.build import build_encoder
from gkd_core.task.demo_teacher import DEMO_TEACHER_ARCH, TeacherSettings, train_demo_teacher

TINY = TeacherSettings(updates=2, batch_size=3, side=32)


def test_training_again_writes_the_same_file_and_it_loads(tmp_path: Path) -> None:
    for name in ("a", "b"):
        train_demo_teacher(TINY, tmp_path / f"run-{name}", tmp_path / f"{name}.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    encoder = build_encoder(DEMO_TEACHER_ARCH.model_copy(update={"weights": str(tmp_path / "a.safetensors")}), 0)
    fresh = build_encoder(DEMO_TEACHER_ARCH, 0)
    assert any(not torch.equal(tensor, fresh.state_dict()[name]) for name, tensor in encoder.state_dict().items())
