"""Flow runs without a process, against an API that is made up."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

import pytest

from flows.local_platform.orphans import end_orphans
from gkd_core.errors import PlatformError
from gkd_core.system.loopback import free_port

LIVE = {"RUNNING", "PENDING", "CANCELLING"}


@contextmanager
def prefect_api(states: dict[str, str], answer: str = "ACCEPT") -> Iterator[str]:
    """Runs by id with the type of their state, as Prefect's API serves them."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # http.server gives the name
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            reply = self._filtered(body) if self.path == "/api/flow_runs/filter" else self._set(body)
            text = json.dumps(reply).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def _filtered(self, body: dict[str, Any]) -> list[dict[str, str]]:
            assert body["work_pools"] == {"name": {"any_": ["gkd"]}}
            wanted = body["flow_runs"]["state"]["type"]["any_"]
            return [{"id": run, "name": f"name-{run}", "state_type": state} for run, state in states.items() if state in wanted]

        def _set(self, body: dict[str, Any]) -> dict[str, str]:
            if answer == "ACCEPT":
                states[self.path.split("/")[3]] = body["state"]["type"]
            return {"status": answer}

        def log_message(self, format: str, *args: Any) -> None:
            """Quiet."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/api"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_what_is_said_to_live_is_ended_and_the_rest_is_left() -> None:
    states = {"a": "RUNNING", "b": "PENDING", "c": "CANCELLING", "d": "SCHEDULED", "e": "COMPLETED", "f": "PAUSED"}
    with prefect_api(states) as api:
        assert sorted(end_orphans(api, "gkd:key")) == ["name-a", "name-b", "name-c"]
        assert end_orphans(api, "gkd:key") == []
    assert states == {"a": "CRASHED", "b": "CRASHED", "c": "CANCELLED", "d": "SCHEDULED", "e": "COMPLETED", "f": "PAUSED"}


def test_a_refusal_is_not_asked_for_ever() -> None:
    with prefect_api({"a": "RUNNING"}, "ABORT") as api, pytest.raises(PlatformError, match="name-a as ended: ABORT"):
        end_orphans(api, "gkd:key")


def test_a_server_that_is_gone_is_an_error_of_ours() -> None:
    with pytest.raises(PlatformError, match="Connection refused"):
        end_orphans(f"http://127.0.0.1:{free_port()}/api", "gkd:key")
