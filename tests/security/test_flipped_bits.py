"""A flipped bit in what a stage goes on from is found before it is used: weights, heads, checkpoints."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gkd_core.errors import GkdError, TrainingError, WeightsError
from gkd_core.models.tensor_files import read_checked
from gkd_core.records import MANIFEST, EncoderCheckpoint, sha256_of
from gkd_core.settings import EncoderSettings
from gkd_core.stages.distill import OBJECTIVE, STUDENT
from gkd_core.stages.machine import distilled_encoder, held
from gkd_core.training.checkpoint import read_state, write_state

STATE = {"step": 3, "model": {"w": torch.arange(64.0)}, "optimizer": {"m": torch.ones(64)}}


def flipped(path: Path, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[bit // 8 % len(content)] ^= 1 << bit % 8
    path.write_bytes(content)


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("state") / "training.pt"
    write_state(STATE, path)
    return path.read_bytes()


@given(st.integers(0, 2**20))
@settings(max_examples=150)
def test_a_training_state_with_a_flipped_bit_is_refused(state: bytes, tmp_path_factory: pytest.TempPathFactory, bit: int) -> None:
    path = tmp_path_factory.getbasetemp() / "flipped.pt"
    path.write_bytes(state)
    flipped(path, bit)
    with pytest.raises(TrainingError, match="delete it to start this stage over"):
        read_state(path)


@given(st.integers(1, 2**16))
@settings(max_examples=50)
def test_a_training_state_that_was_cut_off_is_refused(state: bytes, tmp_path_factory: pytest.TempPathFactory, lost: int) -> None:
    path = tmp_path_factory.getbasetemp() / "cut.pt"
    path.write_bytes(state[: max(0, len(state) - lost)])
    with pytest.raises(TrainingError, match="delete it to start this stage over"):
        read_state(path)


def test_a_training_state_comes_back_and_so_does_one_of_the_version_before(tmp_path: Path) -> None:
    write_state(STATE, tmp_path / "new.pt")
    torch.save(STATE, tmp_path / "old.pt")
    for name in ("new.pt", "old.pt"):
        found = read_state(tmp_path / name)
        assert found["step"] == 3 and torch.equal(found["model"]["w"], STATE["model"]["w"])  # type: ignore[index]


def student_folder(folder: Path) -> Path:
    folder.mkdir()
    for name in (STUDENT, OBJECTIVE):
        safetensors.torch.save_file({"w": torch.arange(256.0)}, folder / name)
    EncoderCheckpoint(
        encoder=EncoderSettings(arch="vit_tiny_patch16_224"), weights=STUDENT, sha256=sha256_of(folder / STUDENT),
        stage="distill-proxy", method="gkd", seed=0, updates=1, objective_sha256=sha256_of(folder / OBJECTIVE),
    ).write(folder / MANIFEST)  # fmt: skip
    return folder


def start(folder: Path) -> Path:
    record = EncoderCheckpoint.read(folder / MANIFEST)
    return held(folder / OBJECTIVE, str(record.objective_sha256), folder / MANIFEST)


@pytest.mark.parametrize("bit", [0, 7, 80, 500, 2000, 8000])
def test_a_student_with_a_flipped_bit_is_refused(tmp_path: Path, bit: int) -> None:
    folder = student_folder(tmp_path / "student")
    assert distilled_encoder(folder).weights == str(folder / STUDENT) and start(folder) == folder / OBJECTIVE
    flipped(folder / STUDENT, bit)
    with pytest.raises(WeightsError, match=rf"{STUDENT}: its content is not what .*{MANIFEST} describes"):
        distilled_encoder(folder)
    flipped(folder / OBJECTIVE, bit)
    with pytest.raises(WeightsError, match=rf"{OBJECTIVE}: its content is not what .*{MANIFEST} describes"):
        start(folder)


@given(st.integers(0, 2**14))
@settings(max_examples=60)
def test_weights_whose_digest_is_known_are_looked_at_before_they_are_read(
    tmp_path_factory: pytest.TempPathFactory, bit: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "w.safetensors"
    safetensors.torch.save_file({"w": torch.arange(64.0)}, path)
    digest = sha256_of(path)
    assert torch.equal(read_checked(path, digest, "the manifest")["w"], torch.arange(64.0))
    flipped(path, bit)
    with pytest.raises(GkdError, match="its content is not what the manifest describes"):
        read_checked(path, digest, "the manifest")
