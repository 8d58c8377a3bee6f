"""Where a project's own MLflow store lies: the same with a server before it and without."""

from __future__ import annotations

import os
from pathlib import Path

from gkd_core.paths import ARTIFACTS
from gkd_core.settings import Settings
from gkd_core.system.loopback import LOOPBACK
from gkd_core.system.platform_state import FOLDER, read_state
from gkd_core.system.server_keys import lend_mlflow_key

STORE = ARTIFACTS / "mlflow"


def local_database(project: Path) -> str:
    """Address of the project's SQLite file."""
    return f"sqlite:///{(project / STORE / 'mlflow.db').resolve()}"


def local_artifacts(project: Path) -> str:
    """Address of the folder that new experiments keep their files in."""
    return (project / STORE / "artifacts").resolve().as_uri()


def tracking_address(settings: Settings, project: Path) -> str:
    """MLFLOW_TRACKING_URI, else the settings' address, else an SQLite file in the project.

    Where it is the MLflow of the platform that runs in the project, this process is signed in to it from here on.

    Raises:
        PlatformError: the file with the platform's keys is damaged, or others can read it.
    """
    address = os.environ.get("MLFLOW_TRACKING_URI") or settings.tracking.uri or local_database(project)
    if address.startswith("http"):
        state = read_state(project)
        served = None if state is None else f"http://{LOOPBACK}:{state.ports['mlflow']}"
        lend_mlflow_key(address, served, project / FOLDER)
    return address
