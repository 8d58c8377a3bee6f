"""What the platform consists of: each service's command, its environment, and how one sees that it is well."""

import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from flows.server import HEARTBEAT_SECONDS, LEASES_ON_DISK, LOGS, QUIET, guarded, health_of, server_command
from gkd_core.operations.postgres import Database
from gkd_core.storage.mlflow_store import STORE, local_artifacts, local_database
from gkd_core.system.loopback import LOOPBACK
from gkd_core.system.platform_state import FOLDER
from gkd_core.system.server_keys import PREFECT_VARIABLE, PROFILE_FILE, USER, ServerKeys

POOL = "gkd"
MLFLOW_QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
# MLflow's users, of whom there is one; its password comes from the environment.
MLFLOW_USERS = FOLDER / "mlflow-users.db"
MLFLOW_SIGN_IN = FOLDER / "mlflow-sign-in.ini"
PROFILE = FOLDER / PROFILE_FILE  # named by prefect.toml


@dataclass(frozen=True)
class Ports:
    """Where the services listen, on loopback."""

    prefect: int = 4200
    mlflow: int = 5000
    worker: int = 4201

    def as_dict(self) -> dict[str, int]:
        """By service."""
        return {"prefect": self.prefect, "mlflow": self.mlflow, "worker": self.worker}


@dataclass(frozen=True)
class Service:
    """One supervised process.

    Attributes:
        environment: variables over the supervisor's own; the only place where a key or a database's password may be.
        check: address that answers 200 while the service is well.
        page: address for people.
        needs: services that must be well before this one starts.
        start_seconds: time in which it has to be well.
    """

    name: str
    title: str
    command: tuple[str, ...]
    cwd: Path
    check: str
    page: str
    environment: Mapping[str, str] = field(repr=False)
    needs: tuple[str, ...] = ()
    start_seconds: float = 180.0

    @property
    def log(self) -> Path:
        """Its log, from the project's folder."""
        return LOGS / f"{self.name}.log"


def prefect_url(ports: Ports) -> str:
    """Address of Prefect's pages."""
    return f"http://{LOOPBACK}:{ports.prefect}"


def mlflow_url(ports: Ports) -> str:
    """Address of MLflow's pages."""
    return f"http://{LOOPBACK}:{ports.mlflow}"


def client_environment(ports: Ports, keys: ServerKeys) -> dict[str, str]:
    """Variables by which any process of the owner finds the platform and signs in."""
    return {
        "PREFECT_API_URL": f"{prefect_url(ports)}/api",
        "MLFLOW_TRACKING_URI": mlflow_url(ports),
        **keys.variables(),
        **QUIET,
        **MLFLOW_QUIET,
    }


def services(project: Path, ports: Ports, database: Database | None, keys: ServerKeys) -> tuple[Service, ...]:
    """The platform of a project, in the order of need."""
    return (_prefect(project, ports, database, keys), _mlflow(project, ports, database, keys), _worker(project, ports, keys))


def _prefect(project: Path, ports: Ports, database: Database | None, keys: ServerKeys) -> Service:
    home = project / FOLDER / "prefect"
    address = database.prefect_address if database else f"sqlite+aiosqlite:///{home}/prefect.db"
    return Service(
        name="prefect",
        title="Prefect server",
        command=tuple(server_command(ports.prefect)),
        cwd=home,
        check=health_of(prefect_url(ports)),
        page=prefect_url(ports),
        environment={
            "PREFECT_API_URL": f"{prefect_url(ports)}/api",
            PREFECT_VARIABLE: keys.prefect,
            **guarded(prefect_url(ports), keys),
            **QUIET,
            "PREFECT_HOME": str(home),
            "PREFECT_API_DATABASE_CONNECTION_URL": address,
            **LEASES_ON_DISK,
        },
    )


def _mlflow(project: Path, ports: Ports, database: Database | None, keys: ServerKeys) -> Service:
    artifacts = local_artifacts(project)
    command = ["mlflow", "server", "--app-name", "basic-auth", "--host", LOOPBACK, "--port", str(ports.mlflow), "--workers", "1"]
    # The artifacts' folder as runs without a server write it, so that an experiment goes on with and without one.
    command += ["--serve-artifacts", "--artifacts-destination", artifacts, "--default-artifact-root", artifacts]
    # The printed address alone, so no page of another site, be it by a name that leads here.
    command += ["--allowed-hosts", f"{LOOPBACK}:{ports.mlflow}", "--cors-allowed-origins", mlflow_url(ports)]
    command += ["--uvicorn-opts", "--no-access-log"]
    return Service(
        name="mlflow",
        title="MLflow server",
        command=tuple(command),
        cwd=project / STORE,
        check=f"{mlflow_url(ports)}/health",
        page=mlflow_url(ports),
        environment={
            **MLFLOW_QUIET,
            "MLFLOW_BACKEND_STORE_URI": database.mlflow_address if database else local_database(project),
            "MLFLOW_AUTH_CONFIG_PATH": str(project / MLFLOW_SIGN_IN),
            "MLFLOW_AUTH_ADMIN_USERNAME": USER,
            "MLFLOW_AUTH_ADMIN_PASSWORD": keys.mlflow,
            "MLFLOW_FLASK_SERVER_SECRET_KEY": keys.forms,
            "MLFLOW_BASIC_AUTH_FAIL_CLOSED": "true",  # a route of which MLflow does not know whose it is, is nobody's
            "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
            # Judges of language models are no concern of ours, and three processes.
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        },
    )


def _worker(project: Path, ports: Ports, keys: ServerKeys) -> Service:
    command = [sys.executable, "-m", "flows.local_platform.worker", "worker", "start"]
    command += ["--pool", POOL, "--type", "process", "--name", f"{POOL}-{platform.node()}"]
    return Service(
        name="worker",
        title=f"worker of pool {POOL}",
        command=(*command, "--with-healthcheck"),
        cwd=project,
        check=f"http://{LOOPBACK}:{ports.worker}/health",
        page=f"{prefect_url(ports)}/work-pools/work-pool/{POOL}",
        environment={
            **client_environment(ports, keys),
            "PREFECT_HOME": str(project / FOLDER / "prefect"),
            "PREFECT_WORKER_WEBSERVER_HOST": LOOPBACK,
            "PREFECT_WORKER_WEBSERVER_PORT": str(ports.worker),
            "PREFECT_WORKER_QUERY_SECONDS": "3",  # Prefect's 10 are most of what a short run waits for
            "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_SECONDS),
            "PWD": str(project),  # what prefect.yaml makes the flow's folder
        },
        needs=("prefect", "mlflow"),
    )
