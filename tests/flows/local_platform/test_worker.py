"""The worker's temporary files are its owner's alone, and those of flow runs stay where they were."""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from pathlib import Path

import prefect.cli
import pytest

from flows.local_platform import worker


def test_prefect_finds_a_private_folder_and_children_the_usual_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`runner_storage` in the system's temporary folder is whose worker came first."""
    from prefect.runner import Runner

    seen: list[Path] = []

    def start() -> None:
        seen.append(Runner(name="of a test")._tmp_dir)
        assert "TMPDIR" not in os.environ

    monkeypatch.delenv("TMPDIR", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", tempfile.gettempdir())
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(prefect.cli, "app", start)
    monkeypatch.setattr(sys, "argv", ["worker"])
    worker.main()
    (folder,) = seen
    assert folder.is_relative_to(tmp_path / "home/temporary")
    assert stat.S_IMODE((tmp_path / "home/temporary").stat().st_mode) == 0o700
