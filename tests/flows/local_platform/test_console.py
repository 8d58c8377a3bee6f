"""The table and what is said below it."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from flows.local_platform.console import next_steps, table_of
from flows.local_platform.services import Ports, services
from flows.local_platform.start import write_environment
from flows.local_platform.supervisor import first_state
from gkd_core.system.platform_state import PlatformState, ProcessMark
from gkd_core.system.server_keys import ServerKeys

KEYS = ServerKeys.new()


def state_of(project: Path, ports: Ports, database: str = "sqlite") -> PlatformState:
    every = tuple(first_state(service) for service in services(project, ports, None, KEYS))
    failed = every[1].model_copy(update={"health": "failed", "pid": None, "restarts": 5, "detail": "ended with exit status 1"})
    healthy = every[0].model_copy(update={"health": "healthy", "pid": 77})
    mark = ProcessMark(pid=1, began=0)
    return PlatformState(
        supervisor=mark, mark="m", ports=ports.as_dict(), database=database, services=(healthy, failed, every[2])
    )


def test_a_row_a_service_with_its_state_and_why(tmp_path: Path) -> None:
    console = Console(width=200, record=True)
    with console.capture() as captured:
        console.print(table_of(state_of(tmp_path, Ports())))
    header, prefect, mlflow, worker = captured.get().splitlines()
    assert header.split() == ["service", "state", "address", "pid", "since", "log"]
    assert (
        "healthy" in prefect
        and "http://127.0.0.1:4200" in prefect
        and " 77 " in prefect
        and "artifacts/logs/prefect.log" in prefect
    )
    assert "failed, restarted 5× (ended with exit status 1)" in mlflow and "http://127.0.0.1:5000" in mlflow
    assert "waiting (for prefect and mlflow)" in worker


def test_addresses_that_are_not_usual_are_told_with_what_to_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    usual = next_steps(state_of(tmp_path, Ports()), tmp_path)
    assert "prefect deployment run gkd/full-pipeline --watch" in usual
    assert "source" not in usual
    ports = Ports(prefect=4300)
    write_environment(tmp_path, ports, ServerKeys.new())
    other = next_steps(state_of(tmp_path, ports, "postgresql://ann@db:5432"), tmp_path)
    assert "source artifacts/platform/env" in other
    assert "export PREFECT_API_URL=http://127.0.0.1:4300/api" in other
    assert "postgresql://ann@db:5432" in other
