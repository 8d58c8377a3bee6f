"""A model of the registry is opened once every file of it is seen to be the one that was logged, and its program harms nobody."""

from __future__ import annotations

import io
import json
import shutil
import socket
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import safetensors.torch
import torch
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from gkd_core.errors import PlatformError, WeightsError
from gkd_core.models.build import build_encoder
from gkd_core.models.segmentor import build_segmentor
from gkd_core.records import MANIFEST, SegmentorCheckpoint, sha256_of
from gkd_core.registry.logged_model import log_segmentor
from gkd_core.registry.sandboxed_program import program_logits
from gkd_core.registry.sandboxed_serving import served_answer
from gkd_core.registry.serving_check import check_served, fetch_checked
from gkd_core.registry.signatures import SIGNATURE, verify
from gkd_core.registry.versions import MODEL_TAG, SHA256_TAG, UNSIGNED, Registry
from gkd_core.settings import EncoderSettings, Settings, settings_from_tree
from gkd_core.stages import Recipe
from gkd_core.stages.bundle import describe
from gkd_core.storage.mlflow_weights import fetch_segmentor, fetch_weights
from gkd_core.storage.model_files import FILE_TAG, check_files, digests_of, recorded, tags_of
from gkd_core.tracking.flow_runs import Tracking

NAME = "gkd-student-toy"
EXAMPLE = torch.arange(2 * 3 * 32 * 32).remainder(17).div(16).reshape(2, 3, 32, 32)


class Keys(NamedTuple):
    private: Path
    public: Path


class Store(NamedTuple):
    """A registry of one signed student, and the folder that its files lie in."""

    registry: Registry
    files: Path


def keys_in(folder: Path) -> Keys:
    key = ec.generate_private_key(ec.SECP256R1())
    keys = Keys(folder / "private.pem", folder / "public.pem")
    keys.private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    pem = serialization.PublicFormat.SubjectPublicKeyInfo
    keys.public.write_bytes(key.public_key().public_bytes(serialization.Encoding.PEM, pem))
    return keys


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return keys_in(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory, vit_settings: EncoderSettings, keys: Keys) -> Iterator[Store]:
    project = tmp_path_factory.mktemp("project")
    folder = project / "student"
    folder.mkdir()
    state = build_segmentor(build_encoder(vit_settings, seed=0), "linear", 3, 8, seed=0).state_dict()
    safetensors.torch.save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / "w.safetensors")
    digest = sha256_of(folder / "w.safetensors")
    SegmentorCheckpoint(
        encoder=vit_settings, decoder="linear", decoder_width=8, taxonomy="toy", classes=("a", "b", "c"), source="toy",
        method="gkd", weights="w.safetensors", sha256=digest, seed=0, updates=4, encoder_frozen=True,
    ).write(folder / MANIFEST)  # fmt: skip
    settings = settings_from_tree({"evaluate": {"window": [32, 32], "stride": [32, 32]}})
    bundle = describe(folder, Recipe.of(settings), folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        tracking = Tracking(Settings(), project)
        with tracking.run("learn-task", {}) as run_id:
            model_id = log_segmentor(tracking.client, tracking.experiment, run_id, folder, bundle, EXAMPLE, keys.private)
        model = tracking.client.get_logged_model(model_id)
        tracking.client.create_registered_model(NAME)
        tags = {MODEL_TAG: model_id, SHA256_TAG: digest, **tags_of(recorded(model.tags))}
        tracking.client.create_model_version(NAME, str(model.artifact_location), run_id, tags)
        files = Path(str(model.artifact_location).removeprefix("file://"))
        yield Store(Registry(tracking.client, tracking.address), files)


@pytest.fixture
def store(logged: Store, tmp_path: Path) -> Iterator[Store]:
    """The store, whose files are as they were logged again after each test."""
    shutil.copytree(logged.files, tmp_path / "as-logged")
    yield logged
    shutil.rmtree(logged.files)
    shutil.copytree(tmp_path / "as-logged", logged.files)


def scratch(tmp_path: Path) -> Path:
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


def program_that_runs(code: str, program: bytes) -> bytes:
    """The attack: a pt2 program in whose symbolic sizes stands an expression, which torch evaluates when it loads it."""
    origin, target = zipfile.ZipFile(io.BytesIO(program)), io.BytesIO()
    replaced = 0
    with zipfile.ZipFile(target, "w") as written:
        for item in origin.infolist():
            content = origin.read(item)
            if item.filename.endswith("models/model.json"):
                tree = json.loads(content)
                replaced += _replace_expressions(tree, code)
                content = json.dumps(tree).encode()
            written.writestr(item, content)
    assert replaced, "the program has no symbolic size: the attack would not be one"
    return target.getvalue()


def _replace_expressions(tree: object, code: str) -> int:
    count = 0
    if isinstance(tree, dict):
        for key, value in tree.items():
            if key == "expr_str" and isinstance(value, str):
                tree[key] = code
                count += 1
            else:
                count += _replace_expressions(value, code)
    elif isinstance(tree, list):
        count = sum(_replace_expressions(value, code) for value in tree)
    return count


def test_every_file_of_a_logged_model_is_on_record(store: Store) -> None:
    version = store.registry.version(NAME, "1")
    assert recorded(version.tags) == digests_of(store.files)
    loaded = {"MLmodel", "data/model.pt2", "serve.py", "bundle.json", "checkpoint/manifest.json", "checkpoint/w.safetensors"}
    assert loaded <= recorded(version.tags).keys()


def test_a_program_with_code_in_it_is_refused_before_it_is_loaded(store: Store, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    program = store.files / "data" / "model.pt2"
    program.write_bytes(program_that_runs(f"__import__('pathlib').Path({str(mark)!r}).touch()", program.read_bytes()))
    with pytest.raises(WeightsError, match=r"data/model\.pt2: changed since it was logged"):
        check_served(store.registry, NAME, "1", scratch(tmp_path))
    assert not mark.exists()


def test_a_script_with_code_in_it_is_refused_before_it_is_run(store: Store, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    with (store.files / "serve.py").open("a") as script:
        script.write(f"\n__import__('pathlib').Path({str(mark)!r}).touch()\n")
    with pytest.raises(WeightsError, match=r"serve\.py: changed since it was logged"):
        check_served(store.registry, NAME, "1", scratch(tmp_path))
    assert not mark.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="Landlock and seccomp are Linux's")
def test_a_script_of_a_forged_record_gets_no_key_no_network_and_no_file(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "canary")
    folder, outside = scratch(tmp_path), tmp_path / "outside"
    shutil.copytree(store.files, tmp_path / "model")
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        for attack in (
            f"open({str(outside)!r}, 'w').write('x')",
            "print(__import__('os').environ['MLFLOW_TRACKING_PASSWORD'])",
            f"__import__('socket').create_connection(('127.0.0.1', {server.getsockname()[1]}))",
        ):
            (tmp_path / "model" / "serve.py").write_text(f"{attack}\n{(store.files / 'serve.py').read_text()}")
            with pytest.raises(WeightsError, match="its program cannot be loaded or run"):
                served_answer(tmp_path / "model", 10, folder, "toy")
        with pytest.raises(TimeoutError):
            server.accept()
    assert not outside.exists()


def test_a_script_that_answers_otherwise_is_not_served(store: Store, tmp_path: Path) -> None:
    """A record that was forged with it: the answer is held against the weights."""
    script = store.files / "serve.py"
    script.write_text(f"{script.read_text()}\nServedStudent.predict = lambda self, context, model_input, params=None: []\n")
    kept = store.registry.version(NAME, "1").tags[f"{FILE_TAG}serve.py"]
    store.registry.tag(NAME, "1", {f"{FILE_TAG}serve.py": sha256_of(script)})
    try:
        with pytest.raises(PlatformError, match="does not give the label maps of its own weights"):
            check_served(store.registry, NAME, "1", scratch(tmp_path))
    finally:
        store.registry.tag(NAME, "1", {f"{FILE_TAG}serve.py": kept})


def test_what_is_fetched_is_what_was_logged_or_nothing(store: Store, tmp_path: Path, keys: Keys) -> None:
    target = tmp_path / "served"
    fetch_checked(store.registry, NAME, "1", target, keys.public)
    assert digests_of(target) == digests_of(store.files)
    with pytest.raises(PlatformError, match="is there already, and is not empty"):
        fetch_checked(store.registry, NAME, "1", target)
    (store.files / "serve.py").write_text("raise SystemExit")
    with pytest.raises(WeightsError, match=r"serve\.py: changed since it was logged"):
        fetch_checked(store.registry, NAME, "1", tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="Landlock and seccomp are Linux's")
@pytest.mark.parametrize(
    "attack",
    [
        "open({outside!r}, 'w').write('x')",
        "open('found', 'w').write(__import__('os').environ['MLFLOW_TRACKING_PASSWORD'])",
        "__import__('socket').create_connection(('127.0.0.1', {port}))",
    ],
)
def test_a_program_that_is_run_gets_no_key_no_network_and_no_file(
    store: Store, tmp_path: Path, attack: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "canary")
    folder, outside = scratch(tmp_path), tmp_path / "outside"
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        code = attack.format(outside=str(outside), port=server.getsockname()[1])
        program = tmp_path / "model.pt2"
        program.write_bytes(program_that_runs(code, (store.files / "data" / "model.pt2").read_bytes()))
        with pytest.raises(WeightsError, match="its program cannot be loaded or run") as error:
            program_logits(program, EXAMPLE, folder, "toy")
        with pytest.raises(TimeoutError):
            server.accept()
    assert not outside.exists()
    assert not any("canary" in path.read_text() for path in folder.glob("found"))
    assert "canary" not in str(error.value)


def test_the_attack_is_one_where_nothing_is_withheld(store: Store, tmp_path: Path) -> None:
    """Else the tests above would prove nothing."""
    mark = tmp_path / "mark"
    program = tmp_path / "model.pt2"
    code = f"__import__('pathlib').Path({str(mark)!r}).touch()"
    program.write_bytes(program_that_runs(code, (store.files / "data" / "model.pt2").read_bytes()))
    with pytest.raises(Exception):  # noqa: B017, PT011  # whatever torch makes of it afterwards
        torch.export.load(program)
    assert mark.exists()


@pytest.mark.parametrize(
    "path", ["MLmodel", "serve.py", "bundle.json", "checkpoint/manifest.json", "checkpoint/w.safetensors", "requirements.txt"]
)
def test_a_changed_file_is_named_by_every_loader(store: Store, tmp_path: Path, path: str) -> None:
    content = bytearray((store.files / path).read_bytes())
    content[len(content) // 2] ^= 1
    (store.files / path).write_bytes(content)
    with pytest.raises(WeightsError, match=f"{path}: changed since it was logged"):
        check_served(store.registry, NAME, "1", scratch(tmp_path))
    if path.startswith("checkpoint/"):
        for fetch in (fetch_weights, fetch_segmentor):
            with pytest.raises(WeightsError, match=r"changed since it was logged|not what the manifest beside it describes"):
                fetch(f"models:/{NAME}/1", store.registry.address, tmp_path / fetch.__name__)


def test_an_added_file_and_a_link_are_refused(store: Store, tmp_path: Path) -> None:
    (store.files / "code").mkdir()
    (store.files / "code" / "safetensors.py").write_text("raise SystemExit")
    with pytest.raises(WeightsError, match=r"code/safetensors\.py: added since it was logged"):
        check_served(store.registry, NAME, "1", scratch(tmp_path))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "link").symlink_to("/etc/passwd")
    with pytest.raises(WeightsError, match="a link or a device among the files of a model"):
        check_files(tmp_path / "model", {"link": "0" * 64}, "toy")


def test_a_model_without_a_record_is_not_loaded(store: Store, tmp_path: Path) -> None:
    client = store.registry.client
    version = client.create_model_version(NAME, f"file://{store.files}", tags={MODEL_TAG: "m-x", SHA256_TAG: "0" * 64})
    try:
        with pytest.raises(WeightsError, match="no digests of its files are on record, so nothing of it is loaded"):
            fetch_weights(f"models:/{NAME}/{version.version}", store.registry.address, tmp_path / "weights")
        with pytest.raises(WeightsError, match="no digests of its files are on record"):
            check_files(store.files, recorded(version.tags), "toy", UNSIGNED)
    finally:
        client.delete_model_version(NAME, version.version)


def test_a_signature_fits_the_files_and_the_key(store: Store, tmp_path: Path, keys: Keys) -> None:
    assert check_served(store.registry, NAME, "1", scratch(tmp_path), keys.public) == len(EXAMPLE)
    others = tmp_path / "others"
    others.mkdir()
    with pytest.raises(WeightsError, match="its signature does not fit"):
        verify(store.files, keys_in(others).public, "toy", UNSIGNED)
    (store.files / "card.md").write_text("not signed, and nothing that is loaded")
    (store.files / "requirements.txt").write_text("evil")
    with pytest.raises(WeightsError, match="its signature does not fit"):
        verify(store.files, keys.public, "toy", UNSIGNED)
    (store.files / SIGNATURE).unlink()
    with pytest.raises(WeightsError, match="not signed, and registry.public_key asks for a signature"):
        verify(store.files, keys.public, "toy", UNSIGNED)
    with pytest.raises(PlatformError, match=r"registry\.public_key: .*no such file"):
        verify(store.files, tmp_path / "none.pem", "toy", UNSIGNED)
