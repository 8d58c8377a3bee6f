"""What a trainer hands over is held against what its job has said, and a node's scratch folder is this user's own."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import pytest

from gkd_core.adapters.remote import client
from gkd_core.adapters.remote.client import fetch_result
from gkd_core.adapters.remote.nodes import make_own_folder
from gkd_core.adapters.remote.wire import parse_error, parse_metrics, parse_result, say_result
from gkd_core.adapters.s3.keys import Location
from gkd_core.errors import DataError, PlatformError

FILES = {"encoder.safetensors": b"weights", "manifest.json": b"{}"}
TOLD = {name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()}
PLACE = Location.parse("s3://bucket/runs/x")


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What lies below the job's output in the bucket: a folder in its place."""
    folder = tmp_path / "bucket"
    folder.mkdir()
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    monkeypatch.setattr(client, "connect", lambda: None)
    monkeypatch.setattr(
        client, "download_tree", lambda connection, place, target: shutil.copytree(folder, target, dirs_exist_ok=True)
    )
    return folder


def test_digests_come_back_by_the_log_whoever_puts_words_before_them(capsys: pytest.CaptureFixture[str]) -> None:
    say_result(TOLD)
    (line,) = capsys.readouterr().out.splitlines()
    assert parse_result(line) == TOLD == parse_result(f"(RayTrainWorker pid=1) {line}")
    assert parse_metrics(line) is None and parse_error(line) is None
    for other in ("", "gkd-result", "gkd-result {", 'gkd-result {"files": 1}', 'gkd-result {"files": {"a": 1}}'):
        assert parse_result(other) is None


def test_a_result_as_it_was_told_is_taken(bucket: Path, tmp_path: Path) -> None:
    fetch_result(PLACE, tmp_path / "output", TOLD)
    assert {path.name: path.read_bytes() for path in (tmp_path / "output").iterdir()} == FILES


@pytest.mark.parametrize("change", ["rewritten", "added", "removed"])
def test_what_was_rewritten_after_it_was_handed_over_is_refused(bucket: Path, tmp_path: Path, change: str) -> None:
    if change == "removed":
        (bucket / "manifest.json").unlink()
    else:
        (bucket / ("manifest.json" if change == "rewritten" else "more.py")).write_bytes(b"evil")
    with pytest.raises(DataError, match="not as the job has written it"):
        fetch_result(PLACE, tmp_path / "output", TOLD)
    assert not (tmp_path / "output").exists()


def test_a_scratch_folder_is_ours_alone(tmp_path: Path) -> None:
    folder = tmp_path / "node" / f"gkd-{os.getuid()}"
    make_own_folder(folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o777)
    make_own_folder(folder)
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_link_or_a_folder_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "theirs")
    with pytest.raises(PlatformError, match="another user's, or a link"):
        make_own_folder(tmp_path / "link")
    monkeypatch.setattr(os, "getuid", lambda: 4711)
    with pytest.raises(PlatformError, match="another user's, or a link"):
        make_own_folder(tmp_path / "theirs")
