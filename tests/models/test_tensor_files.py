"""Checkpoints of training runs as weights: what is data is read; what would run code is named, and never run."""

from __future__ import annotations

import argparse
import datetime
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gkd_core.errors import WeightsError
from gkd_core.models.tensor_files import read_tensors

TENSORS = {"blocks.0.weight": torch.arange(4.0), "norm.bias": torch.ones(2)}


class Schedule:
    """As a training script has it."""


class Trap:
    """Makes a file where it is unpickled by pickle itself."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return Path.touch, (self.place,)


@pytest.mark.parametrize(
    "content",
    [
        TENSORS,
        {"state_dict": TENSORS, "args": argparse.Namespace(lr=1e-3, name="x", sizes=[1, 2])},
        {"model": TENSORS, "epoch": np.int64(7), "best": np.float64(0.5)},
        {"model": TENSORS, "best": np.float32(0.5), "done": np.bool_(True), "args": argparse.Namespace(lr=np.float64(1))},
        {"model_state_dict": TENSORS, "optimizer": {"state": {}, "param_groups": [{"lr": 1.0}]}},
        {"teacher": TENSORS, "student": {"x": torch.zeros(1)}, "args": argparse.Namespace()},
        {"model": {f"_orig_mod.{name}": value for name, value in TENSORS.items()}},
        {"model": {"blocks.0._orig_mod.weight": TENSORS["blocks.0.weight"], "norm.bias": TENSORS["norm.bias"]}},
        {f"_fsdp_wrapped_module.{name}": value for name, value in TENSORS.items()},
    ],
)
def test_what_training_code_saves_beside_its_tensors_is_no_obstacle(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "x.pth")
    found = read_tensors(tmp_path / "x.pth")
    assert set(found) == set(TENSORS)
    assert all(torch.equal(found[name], value) for name, value in TENSORS.items())


@pytest.mark.parametrize(
    ("beside", "name"),
    [
        (Schedule(), "Schedule"),
        (datetime.timedelta(1), r"datetime\.timedelta"),
        (Path("x"), "Path"),
        (np.array([1, None], dtype=object), "numpy"),
    ],
)
def test_what_only_code_could_read_is_named(beside: object, name: str, tmp_path: Path) -> None:
    torch.save({"model": TENSORS, "beside": beside}, tmp_path / "x.pth")
    with pytest.raises(WeightsError, match=rf"x\.pth: .*{name}.* (save the weights alone|export it again)") as error:
        read_tensors(tmp_path / "x.pth")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("wrapped", [True, False])
def test_nothing_of_a_file_is_run(wrapped: bool, tmp_path: Path) -> None:
    trap: object = Trap(tmp_path / "sprung")
    torch.save({"model": TENSORS, "args": argparse.Namespace(trap=trap) if wrapped else trap}, tmp_path / "x.pth")
    with pytest.raises(WeightsError):
        read_tensors(tmp_path / "x.pth")
    assert not (tmp_path / "sprung").exists()


def test_a_pickle_of_another_program_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "x.pth").write_bytes(pickle.dumps({"model": Schedule}))
    with pytest.raises(WeightsError) as error:
        read_tensors(tmp_path / "x.pth")
    assert "\n" not in str(error.value)


def test_names_that_would_fall_together_stay_apart(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(1), "_orig_mod.w": torch.zeros(1)}, tmp_path / "x.pth")
    assert set(read_tensors(tmp_path / "x.pth")) == {"w", "_orig_mod.w"}
