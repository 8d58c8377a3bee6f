"""The index of a shard set: what it gives back, and what it refuses to believe."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

from gkd_core.data.files.blobs import LocalShards, read_bytes
from gkd_core.data.files.shards import INDEX, Members, Shard, ShardIndex, set_folder
from gkd_core.errors import DataError

CONTENT = b"head" + b"first" + b"second!"
DIGEST = hashlib.sha256(CONTENT).hexdigest()
NAME = f"street-val-images-00000-{DIGEST[:16]}.tar"


def index() -> ShardIndex:
    return ShardIndex(
        dataset="street",
        split="val",
        content="images",
        source="0" * 64,
        shards=(Shard(name=NAME, bytes=len(CONTENT), sha256=DIGEST),),
        members=Members(names=("images/b.png", "images/a.jpg"), shards=(0, 0), offsets=(4, 9), sizes=(5, 7)),
    )


def test_members_are_read_from_their_place_in_the_order_of_the_index(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(CONTENT)
    index().write(tmp_path / INDEX)
    again = ShardIndex.read(tmp_path / INDEX)
    assert again == index()
    assert [read_bytes(file) for file in again.files(LocalShards(tmp_path))] == [b"first", b"second!"]
    assert again.keys == ("images/b", "images/a")
    assert again.place == "street/val/images" == set_folder("street", "val", "images")
    again.shards[0].check(tmp_path / NAME)


def test_an_index_file_does_not_depend_on_who_writes_it(tmp_path: Path) -> None:
    index().write(tmp_path / "one.json")
    ShardIndex.read(tmp_path / "one.json").write(tmp_path / "two.json")
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()


HOSTILE: dict[str, tuple[str, Any]] = {
    "leads out": ("members.names", ["../../etc/passwd", "images/a.jpg"]),
    "absolute": ("members.names", ["/etc/passwd", "images/a.jpg"]),
    "control characters": ("members.names", ["images/\x1b[2J.png", "images/a.jpg"]),
    "backslash": ("members.names", ["..\\a.png", "images/a.jpg"]),
    "empty": ("members.names", ["", "images/a.jpg"]),
    "twice": ("members.names", ["images/a.png", "images/a.jpg"]),
    "beyond the shard": ("members.sizes", [5, 8]),
    "beyond 64 bits": ("members.offsets", [10**30, 9]),
    "negative offset": ("members.offsets", [-4, 9]),
    "no such shard": ("members.shards", [0, 1]),
    "short column": ("members.sizes", [5]),
    "shard elsewhere": ("shards", [{"name": f"../x-{DIGEST[:16]}.tar", "bytes": 16, "sha256": DIGEST}]),
    "absolute shard": ("shards", [{"name": f"/x-{DIGEST[:16]}.tar", "bytes": 16, "sha256": DIGEST}]),
    "another digest": ("shards", [{"name": "street-val-images-00000-0123456789abcdef.tar", "bytes": 16, "sha256": DIGEST}]),
    "no digest": ("shards", [{"name": NAME, "bytes": 16, "sha256": "../" * 10}]),
    "no shard": ("shards", []),
    "dataset elsewhere": ("dataset", "../other"),
    "unknown key": ("surprise", 1),
    "images with classes": ("train_ids", {"taxonomy": "a", "classes": ["road"], "encoding": "b", "table": DIGEST}),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_index_is_refused_in_one_line(tmp_path: Path, case: str) -> None:
    key, value = HOSTILE[case]
    tree = json.loads(index().model_dump_json())
    node, *rest = key.split(".")
    if rest:
        tree[node][rest[0]] = value
    else:
        tree[node] = value
    (tmp_path / INDEX).write_text(json.dumps(tree))
    with pytest.raises(DataError, match=rf"^{re.escape(str(tmp_path))}/index\.json: damaged index [^\n\x1b]*$"):
        ShardIndex.read(tmp_path / INDEX)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"format": "gkd-shards-2"}', r"format 'gkd-shards-2', expected 'gkd-shards-1'; prepare the data again"),
        (b"[1, 2]", r"format None, expected 'gkd-shards-1'"),
        (b'{"format": "gkd-sha', r"not JSON; it is truncated or no index"),
        (b"\xff\xfe\x00", r"not JSON"),
        (b"[" * 100_000, r"not JSON"),
    ],
)
def test_what_is_no_index_of_this_version_is_said_so(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / INDEX).write_bytes(content)
    with pytest.raises(DataError, match=message):
        ShardIndex.read(tmp_path / INDEX)


def test_a_missing_index_says_what_writes_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"index\.json: no such index; write the shards with: gkd data prepare"):
        ShardIndex.read(tmp_path / INDEX)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (CONTENT[:-1], "15 of 16 bytes"),
        (CONTENT[:-1] + b"?", "another SHA-256"),
        (None, "cannot be read"),
    ],
)
def test_a_damaged_copy_of_a_shard_is_found(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / NAME).write_bytes(content)
    with pytest.raises(DataError, match=message):
        index().shards[0].check(tmp_path / NAME)


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "a\n"])
def test_odd_names_of_datasets_have_no_folder(name: str) -> None:
    with pytest.raises(DataError, match="letters, digits"):
        set_folder("street", name, "labels")
