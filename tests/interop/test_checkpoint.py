"""Reading what others wrote: data passes, code does not."""

from __future__ import annotations

import argparse
import os
import sys
import types
from collections.abc import Callable
from pathlib import Path

import numpy
import pytest
import torch

from gkd_core.errors import WeightsError
from gkd_core.interop.checkpoint import read_released

Save = Callable[..., Path]
STUDENT = {"student.backbone.cls_token": torch.ones(1, 1, 4)}
HEAD = {"decode_head.cls_embed.weight": torch.ones(3, 4)}


class Hostile:
    """Makes a file when it is unpickled by a reader that runs what it reads."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.target),)


class HostileState(argparse.Namespace):
    """A bag of attributes that would hide a call among them."""


@pytest.mark.parametrize("place", ["args", "model"])
def test_a_hostile_pickle_is_refused_and_runs_nothing(save: Save, tmp_path: Path, place: str) -> None:
    target = tmp_path / "ran"
    content = {"model": dict(STUDENT), "args": None}
    content[place] = argparse.Namespace(hook=Hostile(target)) if place == "args" else {**STUDENT, "x": Hostile(target)}
    path = save(content)
    with pytest.raises(WeightsError, match=r"checkpoint_100\.pth: refused, nothing in it was run: .*\(.*mkdir\)"):
        read_released(path)
    assert not target.exists()
    torch.load(path, weights_only=False)  # a reader that trusts it does run it: the test would notice
    assert target.exists()


def test_any_other_class_is_refused(save: Save) -> None:
    with pytest.raises(WeightsError, match=r"refused.*HostileState"):
        read_released(save({"model": dict(STUDENT), "args": HostileState(a=1)}))


def test_what_the_authors_files_hold_beside_tensors_is_read(save: Save, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("mmengine.logging.history_buffer")

    class HistoryBuffer:
        def __init__(self) -> None:
            self._log_history = numpy.array([1.0, 2.0])
            self._count_history = numpy.array([1, 1])

    HistoryBuffer.__module__, HistoryBuffer.__qualname__ = module.__name__, "HistoryBuffer"
    module.HistoryBuffer = HistoryBuffer  # type: ignore[attr-defined]
    content = {
        "state_dict": HEAD,
        "meta": {"iter": 40_000, "best": numpy.float64(52.02)},
        "message_hub": {"log_scalars": {"loss": HistoryBuffer()}},
    }
    # Present only while the file is written: mmengine need not be installed to read it.
    with monkeypatch.context() as patch:
        for name in ("mmengine", "mmengine.logging"):
            patch.setitem(sys.modules, name, types.ModuleType(name))
        patch.setitem(sys.modules, module.__name__, module)
        path = save(content)
    read = read_released(path)
    assert (read.kind, read.updates, read.unread) == ("stage-two", 40_000, ("meta", "message_hub"))
    assert torch.equal(read.tensors["decode_head.cls_embed.weight"], torch.ones(3, 4))


def test_reading_leaves_torchs_own_list_as_it_was(save: Save) -> None:
    before = set(torch.serialization.get_safe_globals())
    read_released(save({"model": dict(STUDENT), "args": argparse.Namespace(lr=1)}))
    assert set(torch.serialization.get_safe_globals()) == before


def test_parallel_wrappers_do_not_matter(save: Save) -> None:
    read = read_released(save({"module." + name: value for name, value in STUDENT.items()}))
    assert (read.kind, list(read.tensors), read.unread) == ("stage-one", list(STUDENT), ())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"blocks.0.norm1.weight": torch.ones(1)}, "neither student.backbone.* (stage one) nor decode_head.* (stage two)"),
        ({"epoch": 3}, "but no tensors"),
        ([1, 2], "expected a mapping with 'model' or 'state_dict', found a list"),
    ],
)
def test_other_files_are_named_for_what_they_are(save: Save, content: object, message: str) -> None:
    with pytest.raises(WeightsError) as caught:
        read_released(save(content))
    assert message in str(caught.value)


def test_missing_and_damaged_files(tmp_path: Path, save: Save) -> None:
    with pytest.raises(WeightsError, match="no such checkpoint file"):
        read_released(tmp_path / "none.pth")
    path = save({"model": dict(STUDENT)})
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(WeightsError, match="cannot be read as a checkpoint"):
        read_released(path)
