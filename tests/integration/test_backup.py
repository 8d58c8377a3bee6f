"""Backups of a cluster: real PostgreSQL with Prefect's and MLflow's own schemas, and an S3 store on loopback."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from typer.testing import CliRunner

from gkd_core.cli.app import app
from gkd_core.errors import GkdError
from gkd_core.operations.bootstrap.databases import OWNERS, bootstrap_databases
from gkd_core.operations.bootstrap.stores import BUCKETS
from gkd_core.storage import download
from gkd_core.storage.client import connect
from tests.integration.postgres import PostgresServer, postgres_or_skip
from tests.s3_store import s3_store

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

CANARY = "canary-of-a-secret"
PASSWORDS = {owner.password_variable: f"{CANARY}-{owner.name}" for owner in OWNERS}
PLACE = "s3://gkd-backup/cluster"
STORES = ("--bucket", "gkd-mlflow", "--bucket", "gkd-data")
OBJECTS = {
    "gkd-mlflow": {"artifacts/1/model/weights.safetensors": b"weights", "artifacts/1/empty": b""},
    "gkd-data": {"dvc/files/md5/ab/cdef": b"pinned", "shards/v1/0.tar": b"shard", "scratch/checkpoint": b"not worth keeping"},
}
Gkd = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with postgres_or_skip() as running:
        yield running


@pytest.fixture(scope="module")
def environment(server: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """All that a command needs to find and enter the stores."""
    nothing = str(tmp_path_factory.mktemp("aws") / "none")
    found = {
        "GKD_DATABASE_URL": server.address,
        "PGPASSWORD": server.password,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": CANARY,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": nothing,
        "AWS_SHARED_CREDENTIALS_FILE": nothing,
        "PREFECT_HOME": str(tmp_path_factory.mktemp("prefect")),
    }
    with s3_store() as store, pytest.MonkeyPatch.context() as patch:
        found["AWS_ENDPOINT_URL"] = store
        for name, value in found.items():
            patch.setenv(name, value)
        patch.setattr(download, "LONGEST_PAUSE", 0.01)  # what is damaged is asked for ten times
        yield found


def run(*command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    program = str(Path(sys.executable).with_name(command[0]))
    environment = {**os.environ, "COLUMNS": "200", **variables}
    return subprocess.run([program, *command[1:]], env=environment, capture_output=True, text=True, timeout=200, check=False)


@pytest.fixture(scope="module")
def upgrades(environment: dict[str, str], server: PostgresServer) -> dict[str, tuple[str, ...]]:
    """The commands of docs/upgrading.md by which each service brings its schema up to date."""
    host, users = f"127.0.0.1:{server.port}", ("python", "-m", "mlflow.server.auth", "db", "upgrade", "--url")
    return {
        "prefect": ("prefect", "server", "database", "upgrade", "--yes"),
        "mlflow": ("mlflow", "db", "upgrade", f"postgresql+psycopg://gkd_mlflow@{host}/gkd_mlflow"),
        "users": (*users, f"postgresql+psycopg://gkd_mlflow@{host}/gkd_mlflow_auth"),
    }


@pytest.fixture(scope="module")
def upgrade(upgrades: dict[str, tuple[str, ...]], server: PostgresServer) -> Callable[[], None]:
    def upgrade() -> None:
        for name, command in upgrades.items():
            owner = OWNERS[0 if name == "prefect" else 1]
            address = f"postgresql+asyncpg://gkd_prefect@127.0.0.1:{server.port}/gkd_prefect"
            password = {"PGPASSWORD": PASSWORDS[owner.password_variable], "PREFECT_API_DATABASE_CONNECTION_URL": address}
            done = run(*command, **password)
            assert done.returncode == 0, done.stdout + done.stderr

    return upgrade


@pytest.fixture(scope="module")
def cluster(environment: dict[str, str], server: PostgresServer, upgrade: Callable[[], None]) -> None:
    """Databases with the services' own schemas and a few records; buckets with objects."""
    bootstrap_databases(server.address, OWNERS, PASSWORDS)
    upgrade()
    with sign_in(server, "gkd_prefect") as connection:
        connection.execute("INSERT INTO flow (id, name) VALUES (gen_random_uuid(), 'gkd')")
    with sign_in(server, "gkd_mlflow") as connection:
        connection.execute("INSERT INTO experiments (name, artifact_location, lifecycle_stage) VALUES ('gkd', 's3:/1', 'active')")
    with sign_in(server, "gkd_mlflow_auth") as connection:
        connection.execute("INSERT INTO users (username, password_hash, is_admin) VALUES ('worker', %s, false)", [CANARY])
    client = connect()
    for bucket in BUCKETS:
        client.create_bucket(Bucket=bucket)
        for key, body in OBJECTS.get(bucket, {}).items():
            client.put_object(Bucket=bucket, Key=key, Body=body)


def sign_in(server: PostgresServer, database: str) -> psycopg.Connection:
    return psycopg.connect(server.address, dbname=database, autocommit=True)


@pytest.fixture(scope="module")
def gkd(cluster: None) -> Gkd:
    """`gkd infra …` in this process, as each start takes seconds; its output never has a secret."""

    def command(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        result = CliRunner().invoke(app, ["infra", *words], env=variables)
        if result.exception is not None and not isinstance(result.exception, GkdError):
            raise result.exception
        error = str(result.exception or "")
        done = subprocess.CompletedProcess(words, 2 if error else result.exit_code, result.stdout, result.stderr + error)
        assert CANARY not in done.stdout + done.stderr
        assert os.environ["PGPASSWORD"] not in done.stdout + done.stderr
        return done

    return command


def memory(server: PostgresServer) -> dict[str, Any]:
    """Every row of every table, who owns it, who may enter; every object."""
    found: dict[str, Any] = {}
    for database in (name for owner in OWNERS for name in owner.databases):
        with sign_in(server, database) as connection:
            query = "SELECT tablename, tableowner FROM pg_tables WHERE schemaname = 'public' ORDER BY 1"
            for table, owner in connection.execute(query).fetchall():
                rows = connection.execute(f'SELECT t::text FROM "{table}" t ORDER BY 1').fetchall()  # type: ignore[call-overload]
                found[f"{database}.{table}"] = (owner, rows)
            facts = "pg_get_userbyid(datdba), has_database_privilege('public', datname, 'CONNECT')"
            query = f"SELECT {facts} FROM pg_database WHERE datname = current_database()"
            found[database] = connection.execute(query).fetchone()  # type: ignore[call-overload]
    client = connect()
    for bucket in OBJECTS:
        for item in client.list_objects_v2(Bucket=bucket).get("Contents", []):
            body = client.get_object(Bucket=bucket, Key=item["Key"])["Body"].read()
            if not item["Key"].startswith("scratch/"):
                found[f"{bucket}/{item['Key']}"] = body
    return found


def destroy(server: PostgresServer) -> None:
    """As a lost server and store: the databases made anew, empty, and empty buckets."""
    with sign_in(server, "postgres") as admin:
        for name in (name for owner in OWNERS for name in owner.databases):
            admin.execute(f"DROP DATABASE {name}")  # type: ignore[call-overload]
    bootstrap_databases(server.address, OWNERS, PASSWORDS)
    client = connect()
    for bucket in OBJECTS:
        for item in client.list_objects_v2(Bucket=bucket).get("Contents", []):
            client.delete_object(Bucket=bucket, Key=item["Key"])


def databases(server: PostgresServer) -> set[str]:
    with sign_in(server, "postgres") as admin:
        return {row[0] for row in admin.execute("SELECT datname FROM pg_database").fetchall()}


@pytest.fixture(scope="module")
def backed_up(gkd: Gkd, server: PostgresServer) -> str:
    done = gkd("backup", PLACE, *STORES)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.partition(":")[0] for line in lines[:3]] == ["gkd_mlflow", "gkd_mlflow_auth", "gkd_prefect"]
    assert lines[3].startswith("s3://gkd-mlflow: 0.0 MiB, 2 files, 2 of them copied now")
    assert lines[4].startswith("s3://gkd-data: 0.0 MiB, 2 files, 2 of them copied now")
    assert lines[5].endswith(": whole")
    return lines[5].split()[1].rstrip(":")


@pytest.mark.slow
def test_upgrading_schemas_again_changes_nothing(cluster: None, upgrade: Callable[[], None], server: PostgresServer) -> None:
    before = memory(server)
    upgrade()
    assert memory(server) == before


def test_the_command_as_a_process_of_its_own_tells_no_secret(cluster: None, tmp_path: Path) -> None:
    done = run("gkd", "infra", "backup", str(tmp_path / "folder"), *STORES)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(": whole\n")
    assert CANARY not in done.stdout + done.stderr


def test_what_was_destroyed_is_as_it_was(gkd: Gkd, server: PostgresServer, backed_up: str) -> None:
    before = memory(server)
    assert len(before["gkd_prefect.flow"][1]) == 1
    destroy(server)
    assert memory(server) != before
    done = gkd("restore", PLACE, *STORES)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"backup {backed_up}: restored"
    assert memory(server) == before
    assert not {name for name in databases(server) if "restoring" in name or "replaced" in name}


def test_objects_that_are_the_same_are_not_fetched_again(gkd: Gkd, backed_up: str) -> None:
    connect().put_object(Bucket="gkd-mlflow", Key="artifacts/1/late", Body=b"late")
    lines = gkd("backup", PLACE, *STORES).stdout.splitlines()
    assert "3 files, 1 of them copied now" in lines[3]
    assert "2 files, 0 of them copied now" in lines[4]
    connect().delete_object(Bucket="gkd-mlflow", Key="artifacts/1/late")
    done = gkd("prune", PLACE, "--keep", "1")
    assert f"backup {backed_up}: removed" in done.stdout
    assert gkd("check-backup", PLACE).returncode == 0


def test_what_is_not_empty_or_in_use_stays(gkd: Gkd, server: PostgresServer, backed_up: str) -> None:
    # Just what the backup has is not in the way: so a restore that was killed goes on.
    assert gkd("backup", PLACE, *STORES).returncode == 0
    before = memory(server)
    assert gkd("restore", PLACE, *STORES).returncode == 0
    assert memory(server) == before
    with sign_in(server, "gkd_mlflow") as connection:
        connection.execute(
            "INSERT INTO experiments (name, artifact_location, lifecycle_stage) VALUES ('later', 's3:/2', 'active')"
        )
    before = memory(server)
    done = gkd("restore", PLACE, *STORES)
    assert done.returncode == 2
    assert "gkd_mlflow: not empty; --replace puts the backup in its place" in done.stderr
    with sign_in(server, "gkd_prefect"):
        done = gkd("restore", PLACE, *STORES, "--replace")
    assert done.returncode == 2
    assert "gkd_prefect: 1 connections to it; stop Prefect's and MLflow's servers" in done.stderr
    assert memory(server) == before


def test_replace_brings_the_backup_in_place_of_later_records(gkd: Gkd, server: PostgresServer, backed_up: str) -> None:
    assert gkd("backup", PLACE, *STORES).returncode == 0
    before = memory(server)
    with sign_in(server, "gkd_prefect") as connection:
        connection.execute("INSERT INTO flow (id, name) VALUES (gen_random_uuid(), 'later')")
        connection.execute("CREATE TABLE of_a_newer_version (word text)")
    done = gkd("restore", PLACE, *STORES, "--replace")
    assert done.returncode == 0, done.stderr
    assert memory(server) == before


def test_a_restore_that_fails_midway_leaves_the_databases_as_they_were(
    gkd: Gkd, server: PostgresServer, backed_up: str, tmp_path: Path
) -> None:
    before = memory(server)
    broken = tmp_path / "pg_restore"
    # Fails in the second database, when the first is filled already.
    fails = 'case "$*" in *auth_restoring*) echo "pg_restore: error: no room" >&2; exit 1;; esac'
    broken.write_text(f'#!/bin/sh\n{fails}\nexec {shutil.which("pg_restore")} "$@"\n')
    broken.chmod(0o755)
    done = gkd("restore", PLACE, *STORES, "--replace", PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert done.returncode == 2
    assert "gkd_mlflow_auth_restoring: " in done.stderr and "pg_restore: error: no room" in done.stderr
    assert memory(server) == before
    assert gkd("restore", PLACE, *STORES, "--replace").returncode == 0
    assert not {name for name in databases(server) if "restoring" in name or "replaced" in name}


def test_a_damaged_object_is_found_before_anything_is_touched(gkd: Gkd, server: PostgresServer, backed_up: str) -> None:
    assert gkd("backup", PLACE, *STORES).returncode == 0
    before, client = memory(server), connect()
    keys = [item["Key"] for item in client.list_objects_v2(Bucket="gkd-backup", Prefix="cluster/content/")["Contents"]]
    key = next(key for key in keys if client.get_object(Bucket="gkd-backup", Key=key)["Body"].read() == b"weights")
    client.put_object(Bucket="gkd-backup", Key=key, Body=b"w3ights")
    for words in (("check-backup", PLACE), ("restore", PLACE, *STORES, "--replace")):
        done = gkd(*words)
        assert done.returncode == 2
        assert f"s3://gkd-backup/{key}: 7 bytes with SHA-256" in done.stderr
    assert memory(server) == before
    client.delete_object(Bucket="gkd-backup", Key=key)
    done = gkd("restore", PLACE, *STORES, "--replace")
    assert f"s3://gkd-backup/{key}: download: no such object" in done.stderr
    assert gkd("backup", PLACE, *STORES).returncode == 0  # mends it
    assert gkd("check-backup", PLACE).returncode == 0


def test_a_bucket_that_is_not_named_and_a_wrong_password(gkd: Gkd, backed_up: str) -> None:
    done = gkd("restore", PLACE, "--bucket", "gkd-mlflow", "--replace")
    assert done.returncode == 2 and "name it by --bucket gkd-data" in done.stderr
    done = gkd("backup", PLACE, *STORES, PGPASSWORD=f"{CANARY}-wrong")
    assert done.returncode == 2
    assert "password authentication failed" in done.stderr


def test_a_schema_that_the_installed_services_do_not_know_is_refused(gkd: Gkd, server: PostgresServer, backed_up: str) -> None:
    with sign_in(server, "gkd_mlflow") as connection:
        known = connection.execute("UPDATE alembic_version SET version_num = 'ffffffffffff' RETURNING version_num").fetchall()
        assert known
    assert gkd("backup", PLACE, *STORES).returncode == 0
    done = gkd("restore", PLACE, *STORES, "--replace")
    assert done.returncode == 2
    assert "gkd_mlflow: its schema ffffffffffff is unknown to the mlflow installed here" in done.stderr
