"""What a trainer hands over is held against what its job has said."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

from gkd_core.cluster import remote_client as client
from gkd_core.cluster.job_log import parse_error, parse_metrics, parse_result, say_result
from gkd_core.cluster.remote_client import fetch_result
from gkd_core.errors import DataError
from gkd_core.storage.keys import Location

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
