"""infra/bootstrap.sh: what it runs, in which order, and where it stops."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "infra" / "bootstrap.sh"


@pytest.fixture
def commands(tmp_path: Path) -> Path:
    """A folder of commands that write down how they are called. The server answers at the third question."""
    folder = tmp_path / "bin"
    folder.mkdir()
    note = 'echo "$(basename "$0") $*" >> "$CALLS"\n'
    programs = {
        "gkd": f'{note}[ "$2" != "$FAILS" ]\n',
        "python": f'case "$1" in\n-c) echo ask >> "$CALLS"; [ "$(grep -c ask "$CALLS")" -ge 3 ] ;;\n*) {note};;\nesac\n',
        "sleep": "exit 0\n",
    }
    for name, text in programs.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}")
        (folder / name).chmod(0o755)
    return folder


def run(commands: Path, **variables: str) -> tuple[int, list[str], str]:
    calls = commands / "calls"
    environment = {"PATH": f"{commands}:{os.environ['PATH']}", "CALLS": str(calls), "TMPDIR": "/tmp", "FAILS": "", **variables}
    done = subprocess.run([SCRIPT], env=environment, capture_output=True, text=True, check=False)
    return done.returncode, calls.read_text().splitlines(), done.stderr


def test_stores_come_first_and_prefect_when_its_server_answers(commands: Path) -> None:
    code, calls, _ = run(commands, PREFECT_API_URL="http://127.0.0.1:4200/api", MLFLOW_AUTH_ADMIN_PASSWORD="x")
    assert code == 0
    assert calls == [
        "gkd infra bootstrap", "ask", "ask", "ask", "gkd infra tracking-user",
        f"python -m flows.local_platform.set_up /tmp/gkd-set-up-{os.getuid()}.lock",
    ]  # fmt: skip


def test_without_an_administrator_of_mlflow_its_user_is_left_out(commands: Path) -> None:
    _, calls, _ = run(commands, PREFECT_API_URL="http://127.0.0.1:4200/api")
    assert "gkd infra tracking-user" not in calls


def test_a_failure_ends_it(commands: Path) -> None:
    code, calls, _ = run(commands, PREFECT_API_URL="http://127.0.0.1:4200/api", FAILS="bootstrap")
    assert (code, calls) == (1, ["gkd infra bootstrap"])


def test_the_address_of_prefect_is_asked_for(commands: Path) -> None:
    code, calls, error = run(commands)
    assert (code, calls) == (2, ["gkd infra bootstrap"])
    assert "PREFECT_API_URL: address of the Prefect API" in error
