"""A whole flow, with its Prefect server, DVC's children, a Ray cluster and workers, listens on loopback alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.security.listening import beyond_loopback, watch

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(900)]


def test_a_flow_and_all_that_it_starts(project: Path, tmp_path: Path) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "GLOO_", "PREFECT_", "MLFLOW_"))}
    words = ("full-pipeline", "--set", "evaluate.workers=2")
    command = [sys.executable, "-m", "flows.local", *words]
    with subprocess.Popen(command, cwd=project, env={**kept, "HOME": str(tmp_path)}) as process:
        found = watch(process)
    assert process.returncode == 0
    programs = " ".join(item.program for item in found)
    assert all(name in programs for name in ("flows.prefect_app", "gcs_server", "raylet", "ShardWorker"))
    assert beyond_loopback(found) == []
    assert not (tmp_path / ".ray").exists()
