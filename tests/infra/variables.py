"""Every variable that a manifest may set, and the file of an installed package in which it is read."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
SYSTEM = {"HOME", "PWD"}
# Read by the entry point of the PostgreSQL image.
POSTGRES_IMAGE = {"PGDATA", "POSTGRES_PASSWORD_FILE", "POSTGRES_INITDB_ARGS"}

READ_IN = {
    "asyncpg/connect_utils.py": ("PGHOST", "PGPORT", "PGPASSWORD", "PGSSLMODE", "PGSSLROOTCERT"),
    "botocore/configprovider.py": ("AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION", "AWS_SHARED_CREDENTIALS_FILE"),
    "mlflow/environment_variables.py": (
        "MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_AUTH_CONFIG_PATH",
        "MLFLOW_AUTH_ADMIN_USERNAME", "MLFLOW_AUTH_ADMIN_PASSWORD", "MLFLOW_FLASK_SERVER_SECRET_KEY",
        "MLFLOW_SERVER_ALLOWED_HOSTS", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION",
    ),
    "mlflow/utils/cli_args.py": ("MLFLOW_ARTIFACTS_DESTINATION",),
    "mlflow/cli/__init__.py": ("MLFLOW_BACKEND_STORE_URI",),
    "ray/_private/authentication/authentication_token_setup.py": ("RAY_AUTH_MODE",),
    "ray/_private/authentication_test_utils.py": ("RAY_AUTH_TOKEN_PATH",),
    "gkd_core/operations/postgres.py": ("GKD_DATABASE_URL",),
    "gkd_core/operations/bootstrap/tracking_user.py": ("GKD_MLFLOW_METRICS_USERNAME", "GKD_MLFLOW_METRICS_PASSWORD"),
    "flows/read_gate.py": ("GKD_PREFECT_READ_AUTH_STRING",),
    "gkd_core/operations/bootstrap/databases.py": ("GKD_PREFECT_DATABASE_PASSWORD", "GKD_MLFLOW_DATABASE_PASSWORD"),
}  # fmt: skip
# Prefect makes the names from the sections and fields of its settings.
PREFECT = {
    "PREFECT_API_URL": ("api", "url"),
    "PREFECT_API_AUTH_STRING": ("api", "auth_string"),
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": ("flows", "heartbeat_frequency"),
    "PREFECT_HOME": ("root", "home"),
    "PREFECT_API_DATABASE_CONNECTION_URL": ("server/database", "prefect_api_database_connection_url"),
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": ("server/concurrency", "lease_storage"),
    "PREFECT_SERVER_API_AUTH_STRING": ("server/api", "auth_string"),
    "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": ("server/api", "prefect_server_cors_allowed_origins"),
    "PREFECT_UI_API_URL": ("server/ui", "prefect_ui_api_url"),
    "PREFECT_UI_STATIC_DIRECTORY": ("server/ui", "prefect_ui_static_directory"),
    "PREFECT_WORKER_WEBSERVER_HOST": ("worker", "host"),
    "PREFECT_WORKER_WEBSERVER_PORT": ("worker", "port"),
}
KNOWN = SYSTEM | POSTGRES_IMAGE | set(PREFECT) | {name for names in READ_IN.values() for name in names}


def unread() -> list[str]:
    """Names of the table that are not in the file that is said to read them."""
    places = [(file, name, name) for file, names in READ_IN.items() for name in names]
    places += [(f"prefect/settings/models/{section}.py", name, text) for name, (section, text) in PREFECT.items()]
    return [f"{name}: not read in {file}" for file, name, text in places if not re.search(rf"\b{text}\b", _source(file))]


def _source(file: str) -> str:
    package, _, rest = file.partition("/")
    found = importlib.util.find_spec(package)
    assert found is not None and found.submodule_search_locations, package
    return (Path(next(iter(found.submodule_search_locations))) / rest).read_text(encoding="utf-8")
