"""Is the PostgreSQL server that GKD_DATABASE_URL names there, and does it let us in?"""

from __future__ import annotations

from collections.abc import Iterable

from gkd_core.operations.doctor.finding import Finding, well
from gkd_core.operations.doctor.machine import Machine
from gkd_core.operations.postgres import MLFLOW, PREFECT, database_named


def check_postgres(machine: Machine) -> Iterable[Finding]:
    """The database server of the platform.

    Raises:
        PlatformError: it does not answer, or refuses; the message says what to do.
    """
    database = database_named(machine.environment)
    if database is None:
        yield well("PostgreSQL", "not asked for; the platform's records are in SQLite files")
        return
    with database.connect() as connection:
        rows = connection.execute("SELECT datname FROM pg_database WHERE datname = ANY(%s)", [[PREFECT, MLFLOW]]).fetchall()
        version = connection.info.server_version // 10000
    there = sorted(name for (name,) in rows)
    databases = f"has {' and '.join(there)}" if there else "make up will make its databases"
    yield well("PostgreSQL", f"{database.shown}, version {version}; {databases}")
