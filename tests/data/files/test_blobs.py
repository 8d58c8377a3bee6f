"""Reading a file's bytes from a folder or from inside a shard."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest

from gkd_core.data.files.blobs import LocalShards, Member, identity, read_bytes
from gkd_core.errors import DataError


def member(folder: Path, content: bytes = b"0123456789", size: int = 4) -> Member:
    (folder / "a.tar").write_bytes(content)
    return Member(LocalShards(folder), "a.tar", "images/x.png", offset=3, size=size)


def test_a_member_is_its_part_of_the_shard(tmp_path: Path) -> None:
    inside = member(tmp_path)
    assert read_bytes(inside) == b"3456"
    assert read_bytes(pickle.loads(pickle.dumps(inside))) == b"3456"
    assert str(inside) == f"{tmp_path}/a.tar:images/x.png"


def test_a_truncated_shard_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.tar:images/x\.png: the shard ends after 7 of 9 bytes"):
        read_bytes(member(tmp_path, size=9))


@pytest.mark.parametrize("kind", ["file", "member"])
def test_what_is_missing_is_named(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "x.png" if kind == "file" else Member(LocalShards(tmp_path), "no.tar", "x.png", 0, 1)
    with pytest.raises(DataError, match=r"x\.png: no such file"):
        read_bytes(file)


def test_identity_follows_the_file(tmp_path: Path) -> None:
    file = tmp_path / "x"
    file.write_bytes(b"1")
    first = identity(file)
    os.utime(file, (1, 1))
    assert identity(file) != first
    assert identity(member(tmp_path)) != identity(member(tmp_path, size=5))
