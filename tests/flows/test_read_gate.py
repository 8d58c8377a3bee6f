"""The read key of Prefect's server: what it opens, what it does not, and that it changes nothing for others."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect

from flows.read_gate import SERVER_KEY, VARIABLE, gated, only_reads
from gkd_core.errors import PlatformError
from gkd_core.operations.metrics import gauges
from gkd_core.operations.metrics.gauges import Gauges

FULL, READ = "gkd:canary-full", "metrics:canary-read"
KEYS = {SERVER_KEY: FULL, VARIABLE: READ}
READS = [
    ("GET", "/api/health"), ("GET", "/api/admin/version"), ("GET", "/api/metrics"), ("GET", "/api/work_pools/gkd"),
    ("GET", "/api/flow_runs/1234"), ("POST", "/api/flow_runs/count"), ("POST", "/api/flow_runs/filter"),
    ("POST", "/api/flow_runs/history"), ("POST", "/api/work_pools/gkd/workers/filter"), ("POST", "/api/deployments/filter"),
]  # fmt: skip
REFUSED = [
    ("POST", "/api/deployments/1/create_flow_run"), ("POST", "/api/flow_runs/"), ("POST", "/api/flow_runs/1/set_state"),
    ("PATCH", "/api/deployments/1"), ("DELETE", "/api/flow_runs/1"), ("PUT", "/api/flow_runs/filter"),
    ("DELETE", "/api/flow_runs/filter"), ("POST", "/api/work_pools/gkd/get_scheduled_flow_runs"),
    ("POST", "/api/work_pools/gkd/workers/heartbeat"), ("POST", "/api/deployments/get_scheduled_flow_runs"),
    # What holds secrets, and what is not known to the gate.
    ("GET", "/api/block_documents/1"), ("POST", "/api/block_documents/filter"), ("POST", "/api/variables/filter"),
    ("GET", "/api/flow_runs/1/input/key"), ("POST", "/api/flow_runs/1/input/filter"),
    ("GET", "/api/admin/settings"), ("GET", "/api/csrf-token"), ("POST", "/api/new_things/filter"), ("GET", "/api/new_things"),
    # Paths that a route might see in another way.
    ("GET", "/api/flow_runs/../block_documents/1"), ("POST", "/api/flow_runs//filter"), ("POST", "/api/flow_runs/filter/"),
    ("GET", "//api/flow_runs/1"), ("GET", "/api"), ("GET", "/api/"), ("GET", "/"), ("GET", "/docs"), ("POST", "/filter"),
    ("OPTIONS", "/api/flow_runs/filter"), ("HEAD", "/api/flow_runs/1"), ("get", "/api/flow_runs/1"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path"), READS)
def test_what_only_reads_passes(method: str, path: str) -> None:
    assert only_reads(method, path)


@pytest.mark.parametrize(("method", "path"), REFUSED)
def test_everything_else_does_not(method: str, path: str) -> None:
    assert not only_reads(method, path)


def behind_the_gate() -> TestClient:
    """A client of an application that says by which key it was asked."""

    def tell(request: Request) -> PlainTextResponse:
        return PlainTextResponse(request.headers.get("authorization", "none"))

    async def accept(socket: WebSocket) -> None:
        await socket.accept()
        await socket.close()

    methods = ["GET", "POST", "PATCH", "DELETE", "PUT"]
    app = Starlette(routes=[WebSocketRoute("/api/events/out", accept), Route("/{path:path}", tell, methods=methods)])
    return TestClient(gated(app, KEYS))


def pair(key: str) -> tuple[str, str]:
    user, _, password = key.partition(":")
    return user, password


def test_with_the_read_key_one_reads_as_with_the_servers_own() -> None:
    client = behind_the_gate()
    own = client.get("/api/flow_runs/1", auth=pair(FULL)).text
    assert client.get("/api/flow_runs/1", auth=pair(READ)).text == own
    assert client.post("/api/flow_runs/count", auth=pair(READ), json={}).text == own


@pytest.mark.parametrize("method", ["POST", "PATCH", "DELETE", "PUT"])
def test_with_the_read_key_nothing_else_is_done(method: str) -> None:
    answer = behind_the_gate().request(method, "/api/deployments/1", auth=pair(READ))
    assert answer.status_code == 403
    assert "canary" not in answer.text


@pytest.mark.parametrize("key", [FULL, "metrics:canary", "metrics:canary-read-", "other:canary-read", "metrics:ä"])
def test_other_keys_reach_prefect_as_they_are(key: str) -> None:
    answer = behind_the_gate().post("/api/deployments/1/create_flow_run", auth=pair(key))
    assert answer.status_code == 200
    assert answer.text == answer.request.headers["authorization"]


@pytest.mark.parametrize("header", ["", "Basic", "Basic ???", "Bearer x", "Basic bWV0cmljcw=="])
def test_what_is_no_key_reaches_prefect_as_it_is(header: str) -> None:
    assert behind_the_gate().post("/api/x", headers={"Authorization": header}).text == header
    assert behind_the_gate().post("/api/x").text == "none"


def test_two_keys_in_one_request_are_not_the_gates_to_judge() -> None:
    client = behind_the_gate()
    read = [("Authorization", "Basic bWV0cmljczpjYW5hcnktcmVhZA=="), ("Authorization", "Basic eA==")]
    assert client.get("/api/flow_runs/1", headers=read).text.startswith("Basic bWV0")


def test_a_websocket_with_the_read_key_is_refused() -> None:
    client = behind_the_gate()
    with client.websocket_connect("/api/events/out"):
        pass
    headers = {"Authorization": "Basic bWV0cmljczpjYW5hcnktcmVhZA=="}
    with pytest.raises(WebSocketDisconnect) as refused, client.websocket_connect("/api/events/out", headers=headers):
        pass
    assert refused.value.code == 1008


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({VARIABLE: READ}, f"{SERVER_KEY} is not: the server would be open"),
        ({VARIABLE: FULL, SERVER_KEY: FULL}, "the same as"),
        ({VARIABLE: "metrics", SERVER_KEY: FULL}, "expected user:password"),
        ({VARIABLE: "metrics:", SERVER_KEY: FULL}, "expected user:password"),
    ],
)
def test_a_key_that_would_open_more_is_refused(environment: dict[str, str], words: str) -> None:
    with pytest.raises(PlatformError, match=words) as raised:
        gated(Starlette(), environment)
    assert "canary" not in str(raised.value)


def test_without_a_read_key_there_is_no_gate() -> None:
    app = Starlette()
    assert gated(app, {SERVER_KEY: FULL}) is app


def test_what_the_exporter_asks_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []

    class Session(gauges.requests.Session):
        def request(self, method: str, url: str, **options: object) -> gauges.requests.Response:  # type: ignore[override]
            asked.append((method, "/" + url.partition("//")[2].partition("/")[2]))
            answer = gauges.requests.Response()
            answer.status_code = 404
            return answer

    monkeypatch.setattr(gauges.requests, "Session", Session)
    monkeypatch.setattr(Gauges, "set", lambda *arguments: None)
    gauges.read_prefect({"PREFECT_API_URL": "http://prefect-server:4200/api"}, "gkd", Gauges())
    assert asked and all(only_reads(method, path) for method, path in asked), asked


PROGRAM = """
import json, re
from starlette.testclient import TestClient
from prefect.server.api.server import API_ROUTERS
from flows.prefect_app import create_cluster_app
from flows.read_gate import only_reads

filled = lambda path: "/api" + re.sub(r"{[^}]*}", "filter", path)
routes = [(m, r.path, r.endpoint.__name__) for each in API_ROUTERS for r in each.routes for m in getattr(r, "methods", ())]
print(json.dumps(sorted({name for method, path, name in routes if method == "POST" and only_reads(method, filled(path))})))
with TestClient(create_cluster_app()) as client:
    for key in (("gkd", "full"), ("metrics", "read"), ("metrics", "wrong"), None):
        asked = [("POST", "flow_runs/count", {}), ("POST", "work_pools/", {"name": "a", "type": "process"})]
        asked += [("GET", "work_pools/a", None), ("POST", "block_documents/filter", {}), ("DELETE", "work_pools/a", None)]
        print(json.dumps([client.request(m, f"/api/{p}", json=b, auth=key).status_code for m, p, b in asked]))
    client.post("/api/work_pools/", json={"name": "b", "type": "process"}, auth=("gkd", "full"))
    print(client.get("/api/work_pools/b", auth=("metrics", "read")).json()["name"])
"""


def test_prefects_own_server_behind_the_gate(tmp_path: Path) -> None:
    """Of its routes that the gate lets pass, each is one that reads, whatever a name in its path may be."""
    environment = {
        **os.environ,
        "PREFECT_HOME": str(tmp_path),
        "PYTHONPATH": str(Path(__file__).parents[2]),
        SERVER_KEY: "gkd:full",
        VARIABLE: "metrics:read",
    }
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    names, full, read, wrong, nobody, found = done.stdout.splitlines()[-6:]
    assert json.loads(names) == [
        "count_deployments", "count_flow_runs", "count_flows", "count_task_runs", "count_work_pools",
        "flow_run_history", "read_deployments", "read_flow_runs", "read_flows", "read_task_runs", "read_work_pools",
        "read_work_queues", "read_workers", "task_run_history",
    ]  # fmt: skip
    assert json.loads(full) == [200, 201, 200, 200, 204]
    assert json.loads(read) == [200, 403, 404, 403, 403]
    assert json.loads(wrong) == json.loads(nobody) == [401] * 5
    assert found == "b"
