"""A bundle on disk: it says what it takes to use a student, opens as data alone, and whatever was changed in it is found."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from gkd_core.errors import GkdError, WeightsError
from gkd_core.models.decoders import DECODERS
from gkd_core.predict import bundle as bundles
from gkd_core.predict.bundle import check_replaceable, open_bundle, read_bundle, write_bundle
from gkd_core.predict.card import CARD
from gkd_core.records import MANIFEST, sha256_of
from tests.predict.conftest import CLASSES, VIEW, bundle_of, network_of, noise, segmentor_folder


@pytest.fixture
def written(tmp_path: Path) -> Path:
    folder = segmentor_folder(tmp_path / "segmentor")
    write_bundle(bundle_of(folder), folder / "segmentor.safetensors", tmp_path / "student.gkd")
    return tmp_path / "student.gkd"


def changed(written: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """The bundle with its manifest changed, as whoever hands one on can."""
    tree = json.loads((written / MANIFEST).read_text())
    change(tree)
    (written / MANIFEST).write_text(json.dumps(tree))
    return written


@pytest.mark.parametrize("family", ["vit", "cnn"])
@pytest.mark.parametrize("decoder", DECODERS)
def test_a_student_comes_back_as_it_was(tmp_path: Path, decoder: str, family: str) -> None:
    folder = segmentor_folder(tmp_path / "segmentor", decoder, family)
    given = bundle_of(folder)
    stated = write_bundle(given, folder / "segmentor.safetensors", tmp_path / "student.gkd")
    bundle, network = open_bundle(tmp_path / "student.gkd")
    assert bundle == stated
    assert (bundle.view, bundle.colors, bundle.classes) == (VIEW, given.colors, CLASSES)
    images = torch.rand(2, 3, 32, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(network(images), network_of(decoder, family)(images))
    assert sorted(path.name for path in (tmp_path / "student.gkd").iterdir()) == [CARD, MANIFEST, bundles.WEIGHTS]


def test_its_manifest_states_every_file(written: Path) -> None:
    bundle = read_bundle(written)
    assert {file.name: (file.size, file.sha256) for file in bundle.files} == {
        path.name: (path.stat().st_size, sha256_of(path)) for path in written.iterdir() if path.name != MANIFEST
    }
    assert bundle.model.sha256 == sha256_of(written / bundle.model.weights)


def test_its_card_has_classes_colours_ids_and_licences(written: Path) -> None:
    card = (written / CARD).read_text()
    for part in ("| train id | class | colour | id in gta5 |", "| 2 | car | #00008e | 26 |", "- this student: apache-2.0",
                 "windows of 32 × 32 every 21 × 21 pixels", "there was no teacher"):  # fmt: skip
        assert part in card, part


@pytest.mark.parametrize("name", [bundles.WEIGHTS, CARD])
def test_a_file_that_is_changed_cut_gone_or_a_link_is_named(written: Path, name: str) -> None:
    file, content = written / name, (written / name).read_bytes()
    for damaged in (content[:-1] + bytes([content[-1] ^ 1]), content[:-1], content + b"x", b""):
        file.write_bytes(damaged)
        with pytest.raises(WeightsError, match=f"{name}: its content is not what manifest.json describes"):
            open_bundle(written)
    file.unlink()
    with pytest.raises(WeightsError, match=f"{name}: no such file, but the manifest lists it"):
        open_bundle(written)
    (written.parent / "elsewhere").write_bytes(content)
    file.symlink_to(written.parent / "elsewhere")
    with pytest.raises(WeightsError, match="a link, folder or device and no file"):
        open_bundle(written)
    file.unlink()
    os.mkfifo(file)  # would be waited for without end
    with pytest.raises(WeightsError, match="a link, folder or device and no file"):
        open_bundle(written)


def put(*keys: str | int, value: object) -> Callable[[dict[str, Any]], None]:
    def change(tree: dict[str, Any]) -> None:
        place: Any = tree
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = value

    return change


HOSTILE = {
    "name that leads out": put("files", 0, "name", value="../../w.safetensors"),
    "absolute name": put("files", 0, "name", value="/etc/passwd"),
    "name of an option": put("files", 0, "name", value="-rf"),
    "weights elsewhere": put("model", "weights", value="../w.safetensors"),
    "weights that are not listed": put("model", "weights", value="other.safetensors"),
    "a digest that is none": put("files", 0, "sha256", value="0" * 63 + "G"),
    "a size below zero": put("files", 0, "size", value=-1),
    "a size beyond any file": put("files", 0, "size", value=2**60),
    "a class that is a formula": put("model", "classes", value=["=cmd()", *CLASSES[1:]]),
    "a class with markup": put("model", "classes", value=["<script>", *CLASSES[1:]]),
    "a class with a control character": put("model", "classes", value=["a\x1b[2J", *CLASSES[1:]]),
    "one class twice": put("model", "classes", value=["car", "car", *CLASSES[2:]]),
    "more classes than ids": put("model", "classes", value=[f"c{index}" for index in range(256)]),
    "fewer colours than classes": put("colors", value=[[0, 0, 0]]),
    "a colour beyond white": put("colors", 0, value=[256, 0, 0]),
    "fewer ids than classes": put("ids", "values", value=[1]),
    "an id beyond 16 bits": put("ids", "values", value=[70_000, 1, 2, 3, 4]),
    "a scale without end": put("view", "scales", value=[1e9]),
    "no scale": put("view", "scales", value=[]),
    "gaps between windows": put("view", "stride", value=[64, 64]),
    "a window of nothing": put("view", "window", value=[0, 32]),
    "more threads than there are": put("view", "threads", value=10**9),
    "a size of nothing": put("view", "protocol", value={"max_size": [0, 5]}),
    "an unknown key": put("run", value="rm -rf ~"),
    "another form": put("form", value=2),
    "a path as checkpoint": put("model", "encoder", "options", value={"checkpoint_path": "student.pth"}),
    "weights from the net": put("model", "encoder", "options", value={"pretrained": True}),
    "a program that is not there": put(
        "programs", value=[{"format": "onnx", "file": "student.onnx", "takes": "logits-of-floats"}]
    ),
    "not a number": put("mean", value=[float("nan"), 0, 0]),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_manifest_is_one_line(written: Path, kind: str) -> None:
    with pytest.raises(GkdError) as refused:
        open_bundle(changed(written, HOSTILE[kind]))
    message = str(refused.value)
    assert message.isprintable() and len(message) < 700
    assert str(written / MANIFEST) in message


def test_a_network_larger_than_its_weights_gets_no_room(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[torch.device] = []
    build = bundles.recorded_segmentor

    def noted(record: Any) -> Any:
        made.append(torch.get_default_device())
        return build(record)

    monkeypatch.setattr(bundles, "recorded_segmentor", noted)
    changed(written, put("model", "encoder", "options", "embed_dim", value=60_000))
    with pytest.raises(WeightsError, match=r"numbers, the network of manifest.json has \d{10,}"):
        open_bundle(written)
    assert made == [torch.device("meta")]


@pytest.mark.parametrize("decoder", ["linear", "mask2former"])
def test_more_layers_than_tensors_are_refused_before_they_are_made(tmp_path: Path, decoder: str) -> None:
    folder = segmentor_folder(tmp_path / "segmentor", decoder)
    write_bundle(bundle_of(folder), folder / "segmentor.safetensors", tmp_path / "student.gkd")
    keys = ("encoder", "options", "depth") if decoder == "linear" else ("mask2former", "decoder_layers")
    changed(tmp_path / "student.gkd", put("model", *keys, value=10**9))
    with pytest.raises(WeightsError, match=rf"tensors, manifest.json has {keys[-1]} 1000000000; fetch the bundle again"):
        open_bundle(tmp_path / "student.gkd")


def test_an_architecture_that_timm_has_not_is_one_line(written: Path) -> None:
    for arch in ("hf-hub:somebody/model", "local-dir:/tmp", "no_such_model"):
        changed(written, put("model", "encoder", "arch", value=arch))
        with pytest.raises(GkdError, match="has no model"):
            open_bundle(written)


def test_a_normalisation_that_is_not_the_network_s_is_refused(written: Path) -> None:
    with pytest.raises(WeightsError, match="normalises by"):
        open_bundle(changed(written, put("mean", value=[0.1, 0.2, 0.3])))


def test_what_is_written_can_be_opened_or_is_not_there(tmp_path: Path) -> None:
    folder = segmentor_folder(tmp_path / "segmentor")
    with pytest.raises(WeightsError, match="normalises by"):
        write_bundle(bundle_of(folder, mean=(0.0, 0.0, 0.0)), folder / "segmentor.safetensors", tmp_path / "student.gkd")
    other = segmentor_folder(tmp_path / "other", "segformer")
    with pytest.raises(WeightsError, match="its content is not what the manifest beside it describes"):
        write_bundle(bundle_of(folder), other / "segmentor.safetensors", tmp_path / "student.gkd")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "segmentor"]


def test_only_a_bundle_is_replaced(written: Path, tmp_path: Path) -> None:
    check_replaceable(written)
    check_replaceable(tmp_path / "new")
    (tmp_path / "empty").mkdir()
    check_replaceable(tmp_path / "empty")
    (tmp_path / "photographs").mkdir()
    Image.fromarray(noise(4, 4)).save(tmp_path / "photographs/a.png")
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(written)
    for name in ("photographs", "file", "link", "segmentor"):
        with pytest.raises(GkdError, match="is there already and is no bundle"):
            check_replaceable(tmp_path / name)


def test_a_local_path_of_weights_is_refused_nowhere_and_told_nowhere(tmp_path: Path) -> None:
    """Records are validated as they are built, too: what cannot be read back is not written."""
    folder = segmentor_folder(tmp_path / "segmentor")
    with pytest.raises(ValidationError, match="expected a colour and an id of each"):
        bundle_of(folder, colors=((0, 0, 0),))
    assert np.allclose(network_of("linear", "vit").encoder.mean.flatten(), bundle_of(folder).mean)
