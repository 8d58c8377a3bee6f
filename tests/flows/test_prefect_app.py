"""Who may ask Prefect's server: whoever uses its address, and its own services, which ask it within its process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PROGRAM = """
from starlette.testclient import TestClient
from prefect.server.api.server import create_app as prefect_app
from flows.prefect_app import create_app

ours = create_app()
for host in ("127.0.0.1", "evil.example", "localhost"):
    print(host, TestClient(ours, base_url=f"http://{host}").get("/api/health").status_code)
print("within", TestClient(prefect_app(), base_url="http://prefect-in-memory").get("/api/health").status_code)
"""


def test_a_foreign_name_is_refused_and_prefects_own_services_are_not(tmp_path: Path) -> None:
    environment = {**os.environ, "PREFECT_HOME": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.stdout.splitlines() == ["127.0.0.1 200", "evil.example 400", "localhost 400", "within 200"], done.stderr[-2000:]
