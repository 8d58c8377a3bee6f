"""Where a project's own MLflow store lies, with a server before it and without, and names in it that several rooms share."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from gkd_core.errors import PlatformError
from gkd_core.messages import shown
from gkd_core.paths import ARTIFACTS
from gkd_core.system.loopback import LOOPBACK
from gkd_core.system.platform_state import FOLDER, read_state
from gkd_core.system.server_keys import lend_mlflow_key

STORE = ARTIFACTS / "mlflow"
SQLITE = "sqlite:///"
PARENT_TAG = "mlflow.parentRunId"
UPDATES, PLANNED = "progress/updates", "progress/planned"  # metrics of a stage that trains
CHAMPION, CHALLENGER = "champion", "challenger"  # aliases of a registered model


def local_database(project: Path) -> str:
    """Address of the project's SQLite file."""
    return f"{SQLITE}{(project / STORE / 'mlflow.db').resolve()}"


def local_artifacts(project: Path) -> str:
    """Address of the folder that new experiments keep their files in."""
    return (project / STORE / "artifacts").resolve().as_uri()


def named_address(configured: str | None, environment: Mapping[str, str] = os.environ) -> str | None:
    """The address that is asked for: MLFLOW_TRACKING_URI, else `tracking.uri`; None for the project's own file."""
    return environment.get("MLFLOW_TRACKING_URI") or configured


def tracking_address(configured: str | None, project: Path) -> str:
    """Address of the MLflow that a project's runs are logged to: the named one, else an SQLite file in the project.

    Where it is the MLflow of the platform that runs in the project, this process is signed in to it from here on.

    Raises:
        PlatformError: the file with the platform's keys is damaged, or others can read it.
    """
    address = named_address(configured) or local_database(project)
    if address.startswith("http"):
        state = read_state(project)
        served = None if state is None else f"http://{LOOPBACK}:{state.ports['mlflow']}"
        lend_mlflow_key(address, served, project / FOLDER)
    return address


def existing_store(configured: str | None, project: Path) -> str:
    """As `tracking_address`, of a store to read from.

    Raises:
        PlatformError: it would be the project's own file, and there is none.
    """
    address = tracking_address(configured, project)
    if address.startswith(SQLITE) and not Path(address.removeprefix(SQLITE)).is_file():
        raise PlatformError(f"{address}: no MLflow store here; set MLFLOW_TRACKING_URI to the one that holds the model")
    return address


def quoted(text: str) -> str:
    """A string of MLflow's filter language, which has no escapes.

    Raises:
        PlatformError: it has both kinds of quotes, or is no text that a database keeps.
    """
    if "'" in text and '"' in text:
        raise PlatformError(f"{shown(text)}: a name with both kinds of quotes cannot be searched for; give the run's id")
    if not text.isprintable():  # halves of characters among them, which no database takes
        raise PlatformError(f"{shown(text)}: a name with such characters cannot be searched for; give the run's id")
    return f'"{text}"' if "'" in text else f"'{text}'"
