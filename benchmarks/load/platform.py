"""A project with a recipe of seconds, and the platform that `make up` starts, on free ports, in it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import yaml

from gkd_core.errors import PlatformError
from gkd_core.settings import dump_settings, load_settings
from gkd_core.system.loopback import free_port
from gkd_core.system.platform_state import FOLDER, PlatformState, read_state
from gkd_core.system.server_keys import read_keys

REPOSITORY = Path(__file__).parents[2]
DEPLOYMENTS = ("full-pipeline", "tidy")
KEEP = 5  # workspaces
# As few stages as a flow can have, and next to nothing in them: once computed, every flow run restores all from the cache.
RECIPE = [
    "method=no-kd",
    "data.benchmarks=[P2R]",
    "data.world.train_images=8",
    "data.world.val_images=2",
    "data.world.target_images=2",
    "learn_task.end_to_end_updates=4",
    "illustrate.images=0",
    "compute.workers=0",
    f"compute.keep_workspaces={KEEP}",
    "compute.keep_hours=0",
]
FOREIGN = ("PREFECT_API_URL", "PREFECT_HOME", "MLFLOW_TRACKING_URI", "RAY_ADDRESS", "GKD_DATABASE_URL")


def make_project(folder: Path, limit: int) -> None:
    """Fill an empty folder: settings, flows, and deployments of which `limit` runs may be at work at once."""
    (folder / "params.yaml").write_text(dump_settings(load_settings(None, "demo", RECIPE)), encoding="utf-8")
    (folder / "flows").symlink_to(REPOSITORY / "flows")
    recipe: dict[str, Any] = yaml.safe_load((REPOSITORY / "prefect.yaml").read_text(encoding="utf-8"))
    recipe["deployments"] = [each for each in recipe["deployments"] if each["name"] in DEPLOYMENTS]
    recipe["deployments"][0]["concurrency_limit"]["limit"] = limit
    (folder / "prefect.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")


@contextmanager
def platform(project: Path, variables: Mapping[str, str]) -> Iterator[PlatformState]:
    """The project's platform, well, while the block lasts.

    Args:
        variables: over this process's environment, such as GKD_DATABASE_URL.

    Raises:
        PlatformError: it does not come up, or does not end.
    """
    environment = {name: value for name, value in os.environ.items() if name not in FOREIGN}
    ports = {name: str(free_port()) for name in ("PREFECT_PORT", "MLFLOW_PORT", "WORKER_PORT")}
    path = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    environment = {**environment, **ports, **variables, "PYTHONPATH": path}
    try:
        _command("up", project, environment)
        state, keys = read_state(project), read_keys(project / FOLDER)
        if state is None or keys is None:
            raise PlatformError(f"{project}: the platform has ended; see artifacts/logs")
        with patch.dict(os.environ, keys.variables()):  # clients of MLflow in this process read its environment alone
            yield state
    finally:
        _command("down", project, environment)


def _command(name: str, project: Path, environment: Mapping[str, str]) -> None:
    command = [sys.executable, "-m", "flows.local_platform", name]
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise PlatformError(f"make {name} in {project} ended with {done.returncode}: {done.stderr.strip()}")
