"""The command that runs a flow here: what it refuses before it starts anything."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


def _local(*arguments: str, cwd: Path = REPOSITORY) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "flows.local", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["full-pipeline", "--set", "seeed=1"], "gkd: seeed: unknown key"),
        (["full-pipeline", "--profile", "dmo"], "did you mean 'demo'?"),
        (["compare", "--seeds", "0,one"], "gkd: --seeds 0,one: expected whole numbers"),
    ],
)
def test_bad_settings_are_one_line_and_exit_2(arguments: list[str], words: str) -> None:
    done = _local(*arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_port_in_use_is_one_line_and_exit_2(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").touch()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = _local("full-pipeline", "--port", str(port), cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == f"gkd: port {port} is in use; give another with --port, or leave it out for a free one\n"
