"""Images for the check of a program come from files and from shards alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gkd_core.data.catalog.entries import Protocol
from gkd_core.data.files.blobs import LocalShards, Member
from gkd_core.export.check import MOST_IMAGES
from gkd_core.export.images import shown_pictures
from tests.export.conftest import photographs


def test_a_member_of_a_shard_is_seen_as_the_file_that_it_was(tmp_path: Path) -> None:
    files = sorted(photographs(tmp_path / "photographs").iterdir())
    contents = [file.read_bytes() for file in files]
    (tmp_path / "0.tar").write_bytes(b"".join(contents))
    ends = np.cumsum([len(content) for content in contents])
    members = [
        Member(LocalShards(tmp_path), "0.tar", file.name, int(end) - len(content), len(content))
        for file, content, end in zip(files, contents, ends, strict=True)
    ]
    for one, other in zip(shown_pictures(files, Protocol()), shown_pictures(members, Protocol()), strict=True):
        assert np.array_equal(one.pixels, other.pixels)


def test_no_more_images_are_read_than_are_looked_at(tmp_path: Path) -> None:
    (file,) = list(photographs(tmp_path).iterdir())[:1]
    assert len(shown_pictures([file] * MOST_IMAGES + [tmp_path / "absent.png"], Protocol())) == MOST_IMAGES
