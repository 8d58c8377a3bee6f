"""Records that name files or digests take plain names and digests alone: a manifest writes and reads nothing elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from gkd_core.cluster.job_package import RemoteTask
from gkd_core.errors import GkdError
from gkd_core.predict.manifest import Bundle
from gkd_core.records import EncoderCheckpoint, Picture, SegmentorCheckpoint
from gkd_core.settings import EncoderSettings
from gkd_core.stages.measure import segmentor_folder
from gkd_core.untrusted import PLAIN_NAME

ENCODER = {"arch": "vit_tiny_patch16_224"}
SHA256 = "0123456789abcdef" * 4
FACTS = {"weights": "w.safetensors", "sha256": SHA256, "method": "gkd", "seed": 0, "updates": 1}
SEGMENTOR: dict[str, Any] = FACTS | {
    "encoder": ENCODER, "decoder": "linear", "decoder_width": 8, "taxonomy": "t", "classes": ["a"], "source": "s",
    "encoder_frozen": True,
}  # fmt: skip
OTHER_NAMES = ["", ".", "..", "../x", "/etc/passwd", "a/b", "a\\b", "C:x", "-rf", ".hidden", "a\nb", "a\x00b", "a b", "$(x)", "é"]
OTHER_DIGESTS = ["", "0" * 63, "0" * 65, "G" * 64, "../" + "0" * 61, SHA256.upper(), SHA256 + "\n"]


BUNDLE: dict[str, Any] = {
    "version": "1", "model": SEGMENTOR, "colors": [[0, 0, 0]], "mean": [0, 0, 0], "std": [1, 1, 1],
    "licences": {"student": "MIT"}, "view": {"window": [32, 32], "stride": [32, 32]},
    "files": [{"name": "w.safetensors", "size": 1, "sha256": SHA256}],
}  # fmt: skip


def records_with(name: str, digest: str) -> list[tuple[type[Any], dict[str, Any]]]:
    return [
        (EncoderCheckpoint, {"encoder": ENCODER, "stage": "x", **FACTS, "weights": name, "sha256": digest}),
        (SegmentorCheckpoint, SEGMENTOR | {"weights": name, "sha256": digest}),
    ]


@pytest.mark.parametrize("name", OTHER_NAMES)
def test_a_name_that_is_none_is_refused(name: str) -> None:
    for kind, fields in records_with(name, SHA256):
        with pytest.raises(ValidationError, match="weights"):
            kind.model_validate(fields)
    with pytest.raises(ValidationError, match="file"):
        Picture.model_validate({"file": name, "kind": "panel", "title": "t", "domain": None, "measure": "mIoU", "values": {}})


@pytest.mark.parametrize("name", OTHER_NAMES)
def test_a_bundle_names_files_of_its_own_folder(name: str) -> None:
    whole = Bundle.model_validate(BUNDLE)
    program = {"format": "onnx", "file": name, "takes": "logits-of-floats"}
    for change in ({"files": [*BUNDLE["files"], {"name": name, "size": 1, "sha256": SHA256}]}, {"programs": [program]}):
        with pytest.raises(ValidationError, match="name|file"):
            Bundle.model_validate(BUNDLE | change)
    assert whole.files[0].name == "w.safetensors"


@pytest.mark.parametrize("digest", OTHER_DIGESTS)
def test_a_bundle_states_digests_that_are_digests(digest: str) -> None:
    with pytest.raises(ValidationError, match="sha256"):
        Bundle.model_validate(BUNDLE | {"files": [{"name": "w.safetensors", "size": 1, "sha256": digest}]})


@pytest.mark.parametrize("digest", OTHER_DIGESTS)
def test_a_digest_that_is_none_is_refused(digest: str) -> None:
    for kind, fields in records_with("w.safetensors", digest):
        with pytest.raises(ValidationError, match="sha256"):
            kind.model_validate(fields)


@given(st.text(max_size=20))
@settings(max_examples=300)
def test_whatever_a_record_takes_as_a_name_stays_in_its_folder(name: str) -> None:
    try:
        record = SegmentorCheckpoint.model_validate(SEGMENTOR | {"weights": name})
    except ValidationError:
        return
    assert PLAIN_NAME.fullmatch(record.weights)
    assert (Path("/folder") / record.weights).resolve().parent == Path("/folder")


@pytest.mark.parametrize("name", ["../../x", "/abs", "a b", "$(touch x)", "a;b", ""])
def test_a_remote_task_names_a_folder_of_the_node_and_no_other(name: str) -> None:
    fields = {"stage": "distill-proxy", "source": None, "place": "s3://bucket/runs/x", "name": "distill-proxy-0123"}
    RemoteTask.model_validate(fields)
    for key in ("name", "stage", "source"):
        with pytest.raises(ValidationError, match=key):
            RemoteTask.model_validate(fields | {key: name})


@pytest.mark.parametrize("weights", ["/abs/written", "../written", "sub/written"])
def test_measuring_a_model_with_a_hostile_manifest_makes_no_file(tmp_path: Path, weights: str) -> None:
    target = tmp_path / "project" / "model"
    target.mkdir(parents=True)
    hostile = weights.replace("/abs", str(tmp_path))
    encoder = EncoderSettings.model_validate(ENCODER).model_dump(mode="json")
    (target / "manifest.json").write_text(json.dumps(SEGMENTOR | {"encoder": encoder, "weights": hostile, "kind": "segmentor"}))
    before = sorted(tmp_path.rglob("*"))
    from gkd_core.settings import Settings

    with pytest.raises(GkdError, match=r"manifest\.json: not a SegmentorCheckpoint of this version .*weights"):
        segmentor_folder("model", Settings(), tmp_path / "project")
    assert sorted(tmp_path.rglob("*")) == before
