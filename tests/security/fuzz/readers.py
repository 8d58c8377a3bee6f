"""The readers of tensors, pictures, labels and shards as targets: each is given bytes as its file, and what it gives is used."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from gkd_core.data.catalog.entries import DatasetEntry, SplitRule
from gkd_core.data.catalog.taxonomy import (
    IGNORE,
    ColorEncoding,
    LabelEncoding,
    NamedEncoding,
    Taxonomy,
    resolve_colors,
    resolve_names,
)
from gkd_core.data.files.blobs import LocalShards, Member, read_bytes
from gkd_core.data.files.label_files import read_label
from gkd_core.data.files.pictures import open_deep, size_of
from gkd_core.data.files.reading import list_images, read_image
from gkd_core.data.files.shards import DIGEST_LENGTH, ShardIndex
from gkd_core.data.preparing.tar import find_tar
from gkd_core.errors import DataError, GkdError, TrainingError, WeightsError
from gkd_core.interop.checkpoint import read_released
from gkd_core.models.tensor_files import read_checked, read_tensors
from gkd_core.models.weights import load_into
from gkd_core.training.checkpoint import HEADER, HEADER_SIZE, read_state
from tests.security.fuzz.harness import Target

TAXONOMY = Taxonomy(name="two", classes=("road", "car"), colors=((128, 64, 128), (0, 0, 142)))
IDS = LabelEncoding(taxonomy="two", ids={0: 0, 1: 1, 255: IGNORE})
FIRST = LabelEncoding(taxonomy="two", ids={0: 0, 1: 1, 7: 1, 255: IGNORE}, form="first-channel")
COLORS = resolve_colors(ColorEncoding(taxonomy="two", colors={"#804080": "road", "#00008e": "car", "#000000": None}), TAXONOMY)
NAMES = NamedEncoding(taxonomy="two", classes={"construction--road": "road", "object--car": "car", "void": None})


def put(content: bytes, path: Path) -> Path:
    path.write_bytes(content)
    return path


def use(tensors: Mapping[str, Tensor]) -> None:
    """What is done with weights: they are held against a model, and those that fit are copied into it."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    load_into(model, tensors, "weights", min_coverage=0.0)


def each_of(*ways: Callable[[], object]) -> None:
    """Read in several ways; refused where all refuse. An error that is none of ours is nobody's refusal."""
    refused = []
    for way in ways:
        try:
            way()
        except GkdError as error:
            refused.append(error)
    if len(refused) == len(ways):
        raise refused[0]


def safetensors(content: bytes, folder: Path) -> None:
    path, sha256 = put(content, folder / "w.safetensors"), hashlib.sha256(content).hexdigest()
    each_of(lambda: use(read_checked(path, sha256, "manifest.json")), lambda: use(read_tensors(path)))


def pickled(content: bytes, folder: Path) -> None:
    use(read_tensors(put(content, folder / "w.pth")))


def released(content: bytes, folder: Path) -> None:
    use(read_released(put(content, folder / "w.pth")).tensors)


def training_state(content: bytes, folder: Path) -> None:
    # Sealed anew: else the digest before it would keep every change from what comes behind it.
    if content.startswith(HEADER):
        body = content[HEADER_SIZE:]
        content = HEADER + hashlib.sha256(body).hexdigest().encode() + b"\n" + body
    read_state(put(content, folder / "training.pt"))


def picture(content: bytes, folder: Path) -> None:
    path = put(content, folder / "p.png")
    width, height = size_of(path)
    pixels = read_image(path)
    assert pixels.shape == (height, width, 3)
    assert pixels.dtype == np.uint8


def label(content: bytes, folder: Path) -> None:
    path = put(content, folder / "l.png")

    def train_ids(encoding: LabelEncoding) -> None:
        found = read_label(path, encoding)
        assert found.ndim == 2
        assert found.dtype == np.uint8

    each_of(*(partial(train_ids, encoding) for encoding in (IDS, FIRST, COLORS)), lambda: open_deep(path))


def shard_index(content: bytes, folder: Path) -> None:
    index = ShardIndex.read(put(content, folder / "index.json"))
    assert len(index.keys) == len(index.files(LocalShards(folder)))
    assert all((folder / name).resolve().is_relative_to(folder) for name in index.members.names)


def shard(content: bytes, folder: Path) -> None:
    """A shard by its index, and one that a killed `gkd data prepare` has left."""
    path = put(content, folder / f"s-{hashlib.sha256(content).hexdigest()[:DIGEST_LENGTH]}.tar")
    store = LocalShards(folder)
    left = find_tar(folder, "s")
    if left is None:
        assert not path.exists()
        raise DataError("damaged, and removed")
    for name, offset, size in left.places:
        read_bytes(Member(store, path.name, name, offset, size))


def label_names(content: bytes, folder: Path) -> None:
    resolve_names(NAMES, TAXONOMY, put(content, folder / "names.json"))


def list_file(content: bytes, folder: Path) -> None:
    """A list of a split, and the images that it names."""
    put(content, folder / "list.txt")
    for name in ("x.png", "y.png"):
        put(b"", folder / name)
    entry = DatasetEntry(name="d", folder=".", images="*.png", splits={"all": SplitRule(list_in_dataset="list.txt")})
    assert set(list_images(entry, folder, "all")) <= {folder / "x.png", folder / "y.png"}


TARGETS = (
    Target("safetensors", safetensors, (WeightsError,)),
    Target("pickled-weights", pickled, (WeightsError,)),
    Target("released-checkpoint", released, (WeightsError,)),
    Target("training-state", training_state, (TrainingError,)),
    Target("picture", picture, (DataError,)),
    Target("label", label, (DataError,)),
    Target("shard-index", shard_index, (DataError,), "json"),
    Target("shard", shard, (DataError,)),
    Target("label-names", label_names, (DataError,), "json"),
    Target("list-file", list_file, (DataError,)),
)
