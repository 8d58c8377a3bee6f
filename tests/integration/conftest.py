"""A project with a tiny recipe, and a real Prefect server with a worker, on loopback and free ports."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.server import PrefectServer, prefect_server
from gkd_core.settings import Settings
from gkd_core.system.child_process import child_process
from gkd_core.tracking.flow_runs import Tracking

REPOSITORY = Path(__file__).parents[2]
Prefect = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, tiny_tree: dict[str, Any]) -> Path:
    """A project of four stages, one benchmark and no distillation: a checkout in git, as a user has it."""
    folder = tmp_path_factory.mktemp("project")
    encoders = {role: tiny_tree[role] | {"weights": "random"} for role in ("teacher", "student")}  # no internet
    tree = tiny_tree | {"method": "no-kd", **encoders, "data": tiny_tree["data"] | {"benchmarks": ["P2R"]}}
    (folder / "params.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    for name in ("flows", "prefect.yaml", "prefect.toml"):
        (folder / name).symlink_to(REPOSITORY / name)
    (folder / ".dvc").mkdir()
    for name in (".gitignore", ".dvc/.gitignore", ".dvc/config"):
        shutil.copyfile(REPOSITORY / name, folder / name)
    who = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    for command in (["init", "--quiet"], ["add", "--all"], [*who, "commit", "--quiet", "--message", "checkout"]):
        subprocess.run(["git", *command], cwd=folder, check=True)
    return folder


@pytest.fixture(scope="module")
def server(project: Path) -> Iterator[PrefectServer]:
    with prefect_server(project) as server:
        server.wait()
        yield server


@pytest.fixture(scope="module")
def prefect(project: Path, server: PrefectServer) -> Prefect:
    """The prefect command, run in the project against the server."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, **server.environment, "PWD": str(project), "COLUMNS": "200"}
        command = [str(Path(sys.executable).with_name("prefect")), *arguments]
        return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, timeout=600, check=False)

    return run


@pytest.fixture(scope="module")
def deployed(project: Path, server: PrefectServer, prefect: Prefect) -> Iterator[Prefect]:
    """The project's deployments, with a worker that serves them."""
    for arguments in (("work-pool", "create", "gkd", "--type", "process"), ("--no-prompt", "deploy", "--all")):
        done = prefect(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr
    environment = {**server.environment, "PWD": str(project), "PREFECT_WORKER_QUERY_SECONDS": "3"}
    log = project / "artifacts/logs/worker.log"
    with child_process(["prefect", "worker", "start", "--pool", "gkd"], cwd=project, env=environment, log=log):
        yield prefect


@pytest.fixture
def tracking(project: Path, monkeypatch: pytest.MonkeyPatch) -> Tracking:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return Tracking(Settings(), project)
