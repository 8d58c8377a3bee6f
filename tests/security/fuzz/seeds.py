"""What the good inputs of the corpus are made by: `python -m tests.security.fuzz.seeds` writes them anew."""

from __future__ import annotations

import argparse
import hashlib
import hmac
import io
import json
import tempfile
from collections import OrderedDict
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from PIL import Image

from gkd_core.data.catalog.entries import Protocol
from gkd_core.data.files.shards import Members, Shard, ShardIndex, TrainIds
from gkd_core.data.preparing.tar import write_tar
from gkd_core.operations.backup.manifest import Backup, Dump, File, Tree
from gkd_core.predict.manifest import Bundle, BundleFile, Licences, OwnIds, Program, View
from gkd_core.records import EncoderCheckpoint, Record, ScoreTable, SegmentorCheckpoint
from gkd_core.settings import EncoderSettings
from gkd_core.storage.model_files import FILE_TAG
from gkd_core.system.platform_state import PlatformState, ProcessMark, ServiceState
from gkd_core.training.checkpoint import write_state
from gkd_core.training.cost import ProcessCost
from tests.security.fuzz.corpus import CORPUS, VALID
from tests.security.fuzz.documents import BUNDLED, KEY, MODEL_FILE, SEALED
from tests.security.fuzz.readers import NAMES

SHA256 = "0123456789abcdef" * 4
WEIGHTS = {"0.weight": torch.arange(6.0).reshape(2, 3), "0.bias": torch.zeros(2), "extra": torch.ones(1, dtype=torch.int64)}


def _saved(content: object, old: bool = False) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream, _use_new_zipfile_serialization=not old)
    return stream.getvalue()


def _picture(pixels: np.ndarray, form: str, mode: str | None = None) -> bytes:
    stream = io.BytesIO()
    image = Image.fromarray(pixels)
    (image if mode is None else image.convert(mode)).save(stream, form)
    return stream.getvalue()


def _binary() -> Iterator[tuple[str, str, bytes]]:
    yield "safetensors", "plain", safetensors.torch.save(WEIGHTS)
    kinds = {"h": torch.ones(2, 2, dtype=torch.bfloat16), "b": torch.ones(3, dtype=torch.bool), "e": torch.ones(0, 4)}
    yield "safetensors", "kinds", safetensors.torch.save(kinds, {"format": "pt"})
    yield "pickled-weights", "plain", _saved(WEIGHTS)
    yield "pickled-weights", "container", _saved({"epoch": 3, "state_dict": OrderedDict(WEIGHTS)})
    yield "pickled-weights", "old-form", _saved({"model": WEIGHTS}, old=True)
    one = {"student.backbone.cls_token": torch.ones(1, 1, 4), "module.student.backbone.norm.weight": torch.ones(4)}
    yield "released-checkpoint", "one", _saved({"model": one, "iteration": 7, "optimizer": {}})
    args = argparse.Namespace(lr=1e-4, seen=np.float64(0.5), table=np.arange(3))
    two = {"decode_head.conv.weight": torch.ones(2, 2), "backbone.norm.bias": torch.zeros(2)}
    yield "released-checkpoint", "two", _saved({"meta": {"iter": 40, "args": args}, "state_dict": OrderedDict(two)})
    with tempfile.TemporaryDirectory() as folder:
        state = {"step": 3, "model": {"w": torch.arange(4.0)}, "optimizer": {"m": [torch.ones(2), 0.5]}}
        write_state(state, Path(folder) / "t")
        yield "training-state", "plain", (Path(folder) / "t").read_bytes()
        yield "training-state", "old", _saved(state)
        tar = write_tar(Path(folder), "s", [("a/x.png", b"x" * 20), ("é" * 60 + "/y.png", b""), ("b.png", b"b")])
        yield "shard", "three", tar.path.read_bytes()
    pixels = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)
    for form in ("PNG", "JPEG", "TIFF", "WEBP", "BMP", "GIF", "PPM"):
        yield "picture", form.lower(), _picture(pixels, form)
    yield "picture", "palette", _picture(pixels, "PNG", "P")
    yield "picture", "cmyk", _picture(pixels, "JPEG", "CMYK")
    ids = np.array([[0, 1, 255], [1, 0, 0]], dtype=np.uint8)
    yield "label", "ids", _picture(ids, "PNG")
    yield "label", "deep", _picture(ids.astype(np.uint16), "PNG")
    yield "label", "first", _picture(np.stack([ids, ids, ids], axis=-1), "PNG")
    colors = np.array([[128, 64, 128], [0, 0, 142], [0, 0, 0]], dtype=np.uint8)[np.minimum(ids, 2)]
    yield "label", "colors", _picture(colors, "PNG")
    yield "label", "tiff", _picture(ids, "TIFF")


def _shard_indices() -> Iterator[tuple[str, str, bytes]]:
    shards = (Shard(name=f"d-train-labels-00000-{SHA256[:16]}.tar", bytes=2048, sha256=SHA256),)
    members = Members(names=("a/x.png", "b.png"), shards=(0, 0), offsets=(512, 1536), sizes=(20, 1))
    ids = TrainIds(taxonomy="two", classes=("road", "car"), encoding="ids", table=SHA256)
    index = ShardIndex(
        dataset="d", split="train", content="labels", source=SHA256, train_ids=ids, shards=shards, members=members
    )  # fmt: skip
    yield "shard-index", "labels", _written(index)


def _written(record: Record) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        record.write(Path(folder) / "r")
        return (Path(folder) / "r").read_bytes()


def _records() -> Iterator[tuple[str, str, bytes]]:
    encoder = EncoderSettings(arch="vit_tiny_patch16_224")
    yield (
        "model-manifest",
        "encoder",
        _written(
            EncoderCheckpoint(
                encoder=encoder, weights="w.safetensors", sha256=SHA256, stage="distill-proxy", method="gkd", seed=0, updates=1
            )
        ),
    )
    yield (
        "model-manifest",
        "segmentor",
        _written(
            SegmentorCheckpoint(
                encoder=encoder,
                decoder="linear",
                decoder_width=8,
                taxonomy="two",
                classes=("road", "car"),
                source="gta5",
                weights="w.safetensors",
                sha256=SHA256,
                method="gkd",
                seed=0,
                updates=2,
                encoder_frozen=True,
            )
        ),
    )
    yield "bundle", "one", _written(_bundle(encoder))
    yield "model-manifest", "scores", _written(ScoreTable(scores=()))
    yield (
        "cost-notes",
        "process",
        _written(
            ProcessCost(role="stage", finished=True, seconds=2.5, cpu_seconds=4, gpu=False, peak_host_bytes=100, peak_gpu_bytes=0)
        ),
    )
    yield (
        "cost-notes",
        "metrics",
        b"".join(json.dumps({"step": step, "time": 1.5, "images_per_second": 20.0}).encode() + b"\n" for step in (10, 20, 25)),
    )
    moment = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)
    backup = Backup(
        made=moment, versions={"gkd": "0.1.0"},
        databases=(Dump(sha256=SHA256, size=9, name="mlflow", kind="sqlite", revision="a1", server=0),),
        trees=(Tree(address="s3://b/p", files=(File(sha256=SHA256, size=9, name="a/b", version="etag"),)),),
    )  # fmt: skip
    yield "backup-manifest", "one", backup.encode()[1]
    service = ServiceState(
        name="mlflow", title="MLflow", health="healthy", page="http://127.0.0.1:5000", check="http://127.0.0.1:5000/health",
        log="artifacts/platform/mlflow.log", since=moment, pid=12,
    )  # fmt: skip
    state = PlatformState(
        supervisor=ProcessMark(pid=11, began=1.5), mark="m", ports={"mlflow": 5000}, database="sqlite", services=(service,)
    )  # fmt: skip
    yield "platform-state", "one", state.model_dump_json(indent=2).encode()


def _bundle(encoder: EncoderSettings) -> Bundle:
    sha256 = hashlib.sha256(BUNDLED).hexdigest()
    record = SegmentorCheckpoint(
        encoder=encoder, decoder="linear", decoder_width=8, taxonomy="two", classes=("road", "car"), source="gta5",
        weights="w.safetensors", sha256=sha256, method="gkd", seed=0, updates=2, encoder_frozen=True, teacher="t",
    )  # fmt: skip
    return Bundle(
        version="0.1.0", model=record, colors=((128, 64, 128), (0, 0, 142)), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5),
        view=View(protocol=Protocol(max_size=(720, 1280)), window=(512, 512), stride=(341, 341), scales=(1.0, 0.75), flip=True),
        ids=OwnIds(dataset="gta5", form="index", values=(7, None)), licences=Licences(student="MIT", teacher="CC0"),
        programs=(Program(format="onnx", file="w.safetensors", opset=20, takes="logits-of-floats", checked={"largest": 1e-5}),),
        files=(BundleFile(name="w.safetensors", size=len(BUNDLED), sha256=sha256),),
    )  # fmt: skip


def _texts() -> Iterator[tuple[str, str, bytes]]:
    pin = {"md5": "d41d8cd98f00b204e9800998ecf8427e.dir", "size": 9, "nfiles": 2, "hash": "md5", "path": "cityscapes"}
    meta = {"source": "s3://b/cityscapes", "revision": "r1"}
    texts = {
        "yaml": {
            "kinds": (
                "a: [1, 2.5, yes, ~, 2026-01-02, 0x1f, 'x', !!binary aGk=]\nb: &b {c: x, d: e}\nt: |\n  text\nf: {<<: *b, d: 1}\n"
            ),
            "comment": "# nothing\n",
        },
        "json": {"kinds": '{"a": [1, 2.5e3, true, null, "x\\u00e9"], "b": {"c": {}}}'},
        "params": {
            "some": "seed: 1\ndistill_proxy: {updates: 20}\nlearn_task: {updates: 30}\n",
            "root": "data: {root: data, world: null}\n",
        },
        "overrides": {"some": "seed=1\ndistill_proxy.updates=20\ndata.catalogs=[camvid]", "deep": "teacher.options.depth=2"},
        "catalog": {
            "own": (
                "taxonomies: {two: {classes: [road, car], colors: [[1, 2, 3], [4, 5, 6]]}}\n"
                "encodings: {own: {taxonomy: two, ids: {0: 0, 1: 1, 255: 255}}}\n"
                "datasets:\n  own:\n    folder: own\n    images: img/{split}/*.jpg\n    labels: ann/{split}/*.png\n"
                "    encoding: own\n    splits: {train: {folders: [a, b], count: 3}, val: {folders: [c]}}\n"
                "benchmarks:\n  own: {title: Own, source: own/train, validation: own/val, targets: {Own: own/val}}\n"
            ),
            "list": "datasets: {few: {folder: ., images: '*.png', splits: {all: {list_in_catalog: few.txt}}}}\n",
        },
        "model-files": {"one": json.dumps({f"{FILE_TAG}{MODEL_FILE}": hashlib.sha256(b"program").hexdigest(), "other": "x"})},
        "pin": {"one": json.dumps({"outs": [pin]}), "brought": json.dumps({"outs": [pin], "meta": meta})},
        "pinned-inputs": {
            "one": json.dumps({
                "kind": "pinned-inputs", "unpinned": ["a/b"],
                "pins": [{"path": "data/c", "md5": "d", "files": 1, "bytes": 2, "source": "s3://b/c"}],
            })
        },
        "backup-seal": {"one": hmac.new(KEY, SEALED[0], "sha256").hexdigest()},
        "job-log": {
            "all": (
                '(Train pid=1) gkd-metrics {"step": 1, "written": 2.5, "loss": 0.5}\n'
                'gkd-error {"kind": "DataError", "message": "m"}\n' f'gkd-result {{"files": {{"a/b": "{SHA256}"}}}}\nplain\n'
            )
        },
        "server-keys": {"one": json.dumps({"prefect": "gkd:" + "a" * 32, "mlflow": "b" * 32, "forms": "c" * 32})},
        "measured": {"one": '{"distill-proxy": {"images_per_second": 12.5, "update_seconds": 0.1}}'},
        "label-names": {"three": json.dumps({"labels": [{"name": name} for name in NAMES.classes]})},
        "list-file": {"two": "x.png\n y \n\n"},
    }  # fmt: skip
    for target, named in texts.items():
        for name, text in named.items():
            yield target, name, text.encode()


def write_valid() -> None:
    """Write the good inputs anew."""
    for target, name, content in (*_binary(), *_shard_indices(), *_records(), *_texts()):
        path = CORPUS / target / f"{VALID}{name}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


if __name__ == "__main__":
    write_valid()
