"""Checkpoints on disk, whole and damaged."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest
import torch

from gkd_core.errors import TrainingError
from gkd_core.training.checkpoint import FolderStore, read_state, write_state

STATE = {
    "step": 3,
    "model": {"w": torch.arange(500.0)},
    "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]},
}


def test_a_state_comes_back_as_it_was(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "run")
    assert store.load() is None
    store.save(STATE)
    state = store.load()
    assert state is not None
    assert (state["step"], state["optimizer"]["param_groups"]) == (3, [{"lr": 0.1}])
    assert torch.equal(state["model"]["w"], STATE["model"]["w"])  # type: ignore[index]
    assert [path.name for path in store.path.parent.iterdir()] == [store.path.name]


def test_damaged_and_foreign_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "training.pt"
    write_state(STATE, path)
    whole = path.read_bytes()
    for share in (0.0, 0.1, 0.5, 0.99):
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(
            TrainingError, match=r"training\.pt: not a readable checkpoint .*; delete it to start this stage over"
        ):
            read_state(path)
    path.write_bytes(b"\x00 not a checkpoint")
    with pytest.raises(TrainingError, match="not a readable checkpoint"):
        read_state(path)
    torch.save({"weights": torch.ones(1)}, path)
    with pytest.raises(TrainingError, match="not a checkpoint of this program"):
        read_state(path)


def test_a_checkpoint_that_has_no_room_leaves_the_one_before(tmp_path: Path) -> None:
    write_state(STATE, tmp_path / "training.pt")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_state({**STATE, "step": 4, "model": {"w": torch.zeros(100_000)}}, tmp_path / "training.pt")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert read_state(tmp_path / "training.pt")["step"] == 3
    assert [path.name for path in tmp_path.iterdir()] == ["training.pt"]
