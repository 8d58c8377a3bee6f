"""A project of `gkd new` on a real Prefect server: its deployments, and a run by name, with no flow's file in the project."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows.server import prefect_server
from gkd_core.settings import settings_from_tree
from gkd_core.system.child_process import child_process
from gkd_core.versioning.project import lay_out

REPOSITORY = Path(__file__).parents[2]
pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(900)]


def test_deploy_and_run_by_name(tmp_path: Path, tiny_tree: dict[str, Any]) -> None:
    project = tmp_path / "project"
    encoders = {role: tiny_tree[role] | {"weights": "random"} for role in ("teacher", "student")}  # no internet
    tree = tiny_tree | {"method": "no-kd", **encoders, "data": tiny_tree["data"] | {"benchmarks": ["P2R"]}}
    lay_out(project, settings_from_tree(tree))
    assert not (project / "flows").exists()
    with prefect_server(project) as server:
        server.wait()
        installed = {"PYTHONPATH": str(REPOSITORY)}  # as an installed package is: on the path, not in the project
        environment = {**os.environ, **server.environment, **installed, "PWD": str(project), "COLUMNS": "200"}
        prefect = _prefect(project, environment)
        prefect("work-pool", "create", "gkd", "--type", "process")
        prefect("--no-prompt", "deploy", "--all")
        assert "gkd/full-pipeline" in prefect("deployment", "ls")
        worker = {**server.environment, **installed, "PWD": str(project), "PREFECT_WORKER_QUERY_SECONDS": "3"}
        log = project / "artifacts/logs/worker.log"
        with child_process(["prefect", "worker", "start", "--pool", "gkd"], cwd=project, env=worker, log=log):
            prefect("deployment", "run", "gkd/full-pipeline", "--watch")
    assert list(project.glob("artifacts/workspaces/*/artifacts/report/matrix.json")), log.read_text()[-4000:]


def _prefect(project: Path, environment: dict[str, str]) -> Callable[..., str]:
    def run(*arguments: str) -> str:
        command = [str(Path(sys.executable).with_name("prefect")), *arguments]
        done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run
