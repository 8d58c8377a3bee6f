"""What `gkd doctor` says of the servers that we start: their keys, what they answer without one, and where they listen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from gkd_core.operations.doctor import CHECKS, Finding, Machine
from gkd_core.operations.doctor.web import Reply
from gkd_core.system.platform_state import FOLDER, PlatformState, ProcessMark, ServiceState, now
from gkd_core.system.server_keys import PROFILE_FILE, make_keys, make_private, write_private

PORTS = {"prefect": 4200, "mlflow": 5000, "worker": 4201}
REFUSED, ANSWERED, NOT_FOUND, SILENT = (Reply(status, "", {}) for status in (401, 200, 404, None))


def run(check: str, machine: Machine, **changes: Any) -> list[Finding]:
    return list(CHECKS[check](replace(machine, **changes)))


def only(findings: list[Finding]) -> Finding:
    (finding,) = findings
    return finding


@pytest.fixture
def up(good: Machine) -> Machine:
    """A machine on which the platform runs."""
    services = tuple(
        ServiceState(name=name, title=name, health="healthy", page="x", check="x", log="x", since=now()) for name in PORTS
    )
    PlatformState(supervisor=ProcessMark(pid=1, began=0), mark="m", ports=PORTS, database="sqlite", services=services).write(
        good.project
    )
    return good


class Doors:
    """Servers by port, who answer as they do whether one has a key or not."""

    def __init__(self, replies: Mapping[int, Reply]) -> None:
        self.replies = replies
        self.keys: list[Mapping[str, str]] = []

    def __call__(self, url: str, headers: Mapping[str, str]) -> Reply:
        self.keys.append(headers)
        return next(reply for port, reply in self.replies.items() if f":{port}/" in url)


def test_servers_that_ask_for_a_key_on_loopback_are_well_and_are_asked_without_one(up: Machine) -> None:
    make_keys(up.project / FOLDER)
    doors = Doors({4200: REFUSED, 5000: REFUSED})
    assert [finding.level for finding in run("access", up, get=doors)] == ["ok", "ok", "ok"]
    assert doors.keys == [{}, {}]


@pytest.mark.parametrize(("port", "name"), [(4200, "prefect"), (5000, "mlflow")])
@pytest.mark.parametrize("reply", [ANSWERED, NOT_FOUND])
def test_a_server_that_answers_without_a_key_is_an_error(up: Machine, port: int, name: str, reply: Reply) -> None:
    doors = Doors({4200: REFUSED, 5000: REFUSED, port: reply} if port == 5000 else {4200: reply, 5000: REFUSED})
    finding = only([finding for finding in run("access", up, get=doors) if finding.level != "ok"])
    assert (finding.subject, finding.level) == (f"access to {name}", "error")
    assert f"port {port} answers without a key" in finding.found and "make down, then make up" in finding.advice


@pytest.mark.parametrize("address", ["0.0.0.0", "10.1.2.3", "::", "::ffff:10.1.2.3"])
@pytest.mark.parametrize("port", PORTS.values())
def test_a_server_that_listens_beyond_loopback_is_an_error(up: Machine, port: int, address: str) -> None:
    def listens(asked: int) -> list[str]:
        return ["127.0.0.1", address] if asked == port else ["127.0.0.1", "::1", "::ffff:127.0.0.1"]

    findings = run("access", up, get=Doors({4200: REFUSED, 5000: REFUSED}), listens=listens)
    finding = only([finding for finding in findings if finding.level != "ok"])
    assert finding.level == "error" and finding.found == f"port {port} listens on {address}"


def test_servers_that_do_not_run_are_not_judged(up: Machine) -> None:
    findings = run("access", up, get=Doors({4200: SILENT, 5000: SILENT}), listens=lambda port: [])
    assert [finding.subject for finding in findings] == ["access to worker"]


PRIVATE = [
    "artifacts/platform/keys.json",
    "artifacts/platform/env",
    "artifacts/platform/prefect-profile.toml",
    "artifacts/platform/mlflow-users.db",
    "artifacts/platform/prefect/prefect.db",
    "artifacts/platform/prefect/prefect.db-wal",
    "artifacts/mlflow/mlflow.db",
    "artifacts/mlflow/mlflow.db-shm",
    "artifacts/prefect/prefect.db",
    "artifacts/prefect/key-4300",
]


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620])
@pytest.mark.parametrize("name", PRIVATE)
def test_a_key_or_database_that_others_can_read_is_an_error(good: Machine, name: str, mode: int) -> None:
    for file in PRIVATE:
        make_private(good.project / file)
    assert only(run("platform's keys", good)).level == "ok"
    (good.project / name).chmod(mode)
    finding = only(run("platform's keys", good))
    assert finding.level == "error" and finding.advice == f"chmod 600 {good.project / name}"
    assert f"{name} has mode {mode:04o}" in finding.found


@pytest.mark.parametrize(
    ("environment", "warned"),
    [
        ({}, False),
        ({"PREFECT_API_URL": "http://127.0.0.1:4200/api"}, False),
        ({"PREFECT_API_URL": ""}, False),
        ({"PREFECT_API_URL": "http://ann:hidden@elsewhere:4200/api"}, True),
        ({"PREFECT_API_URL": "http://127.0.0.1:4300/api"}, True),
        ({"PREFECT_API_URL": "https://cloud/api", "PREFECT_API_KEY": "pnu"}, True),
        ({"PREFECT_API_URL": "http://elsewhere/api", "PREFECT_API_AUTH_STRING": "ann:hers"}, False),
        ({"PREFECT_API_URL": "https://cloud/api", "PREFECT_API_AUTH_STRING": ""}, False),
    ],
)
def test_a_key_that_would_go_to_another_server_is_a_warning(up: Machine, environment: dict[str, str], warned: bool) -> None:
    write_private(up.project / FOLDER / PROFILE_FILE, "")
    found = [finding for finding in run("platform's keys", up, environment=environment) if finding.level != "ok"]
    assert [finding.level for finding in found] == ["warning"] * warned
    assert "hidden" not in "".join(finding.found for finding in found)
    (up.project / FOLDER / PROFILE_FILE).unlink()
    assert run("platform's keys", up, environment=environment) == []
