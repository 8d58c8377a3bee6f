"""The platform with both servers' records in PostgreSQL: one setting, a password that stays hidden, a flow that runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from mlflow.tracking import MlflowClient

from flows.local_platform import processes
from gkd_core.storage.mlflow_store import STORE
from gkd_core.system.platform_state import FOLDER
from tests.integration.postgres import PostgresServer, postgres_or_skip
from tests.integration.test_platform import DEPLOYMENT, FINISHED, Platform

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with postgres_or_skip() as server:
        yield server


def test_a_refused_password_is_one_line(project: Path, postgres: PostgresServer) -> None:
    done = Platform(project, GKD_DATABASE_URL=postgres.address, PGPASSWORD="wrong one")("up")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"gkd: GKD_DATABASE_URL: {_shown(postgres)}: ")
    assert line.endswith("check the user, and the password in the address, PGPASSWORD or ~/.pgpass")
    assert "wrong one" not in done.stdout + done.stderr


def test_an_absent_server_is_one_line(project: Path) -> None:
    done = Platform(project, GKD_DATABASE_URL="postgresql://gkd:hidden@127.0.0.1:1")("up")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.endswith("check host and port, and that the server is up")
    assert "hidden" not in line


@pytest.mark.slow
def test_a_flow_runs_by_name_and_both_servers_keep_it_there(
    project: Path, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform = Platform(project, GKD_DATABASE_URL=postgres.address_with_password)
    try:
        up = platform("up")
        assert up.returncode == 0, up.stderr
        assert _shown(postgres) in up.stdout
        done = platform.prefect("deployment", "run", DEPLOYMENT, "--watch")
        assert FINISHED in done.stdout, done.stdout + (project / "artifacts/logs/worker.log").read_text()
        _check_hidden(platform, up.stdout + up.stderr, postgres.password)
        platform.sign_in(monkeypatch)
        client = MlflowClient(platform.service("mlflow").page)
        (experiment,) = [item for item in client.search_experiments() if item.name == "gkd"]
        runs = client.search_runs([experiment.experiment_id])
        assert {run.info.status for run in runs} == {"FINISHED"}
    finally:
        assert platform("down").returncode == 0
    assert _count(postgres, "gkd_prefect", "flow_run WHERE state_type = 'COMPLETED'") == 1
    assert _count(postgres, "gkd_mlflow", "runs WHERE status = 'FINISHED'") == len(runs)
    assert not (project / STORE / "mlflow.db").exists()
    assert not (project / FOLDER / "prefect/prefect.db").exists()


@pytest.mark.slow
def test_the_password_may_come_by_pgpassword(project: Path, postgres: PostgresServer) -> None:
    platform = Platform(project, GKD_DATABASE_URL=postgres.address, PGPASSWORD=postgres.password)
    try:
        up = platform("up")
        assert up.returncode == 0, up.stderr
        assert platform.state.is_well
        _check_hidden(platform, up.stdout + up.stderr, postgres.password)
    finally:
        assert platform("down").returncode == 0


def _shown(postgres: PostgresServer) -> str:
    """As messages name the server: two databases on it are ours, so none is named."""
    return postgres.address.removesuffix("/postgres")


def _count(postgres: PostgresServer, database: str, what: str) -> int:
    with postgres.connect(database) as connection:
        row = connection.execute(f"SELECT count(*) FROM {what}").fetchone()  # type: ignore[arg-type]
    assert row is not None
    return int(row[0])


def _check_hidden(platform: Platform, screen: str, secret: str) -> None:
    """The password, quoted or not, is on no screen, in no file that the platform wrote, and on no command line."""
    forms = (secret, quote(secret))
    assert not any(form in screen for form in forms)
    files = [path for folder in ("logs", "platform") for path in (platform.project / "artifacts" / folder).rglob("*")]
    texts = {path: path.read_bytes() for path in files if path.is_file()}
    assert {path.name for path in texts} >= {"prefect.log", "mlflow.log", "worker.log", "state.json", "env"}
    assert [path for path, text in texts.items() if any(form.encode() in text for form in forms)] == []
    lines = [" ".join(process.cmdline()) for process in processes.marked(platform.state.mark)]
    assert len(lines) >= 6
    assert not any(form in line for line in lines for form in forms)
    assert not any("GKD_DATABASE_URL" in process.environ() for process in processes.marked(platform.state.mark))
