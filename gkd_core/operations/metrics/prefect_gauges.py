"""What Prefect's server knows of flow runs and workers, by its REST API: its own client takes seconds to load."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import requests
from requests.auth import HTTPBasicAuth

from gkd_core.operations.metrics.gauges import Gauges

SECONDS = 8.0
ADDRESS, KEY = "PREFECT_API_URL", "PREFECT_API_AUTH_STRING"
STATES = ("Late", "Scheduled", "Pending", "AwaitingConcurrencySlot", "Running", "Cancelling", "Failed", "Crashed", "Completed")


def read_prefect(environment: Mapping[str, str], pool: str, gauges: Gauges) -> None:
    """Set the gauges of Prefect's runs and of a work pool; of a pool that is not there, no worker is online.

    Raises:
        RequestException: the server does not answer, or refuses.
    """
    user, _, password = environment.get(KEY, "").partition(":")
    address, key = environment[ADDRESS].rstrip("/"), HTTPBasicAuth(user, password) if user else None
    with requests.Session() as session:
        session.auth = key

        def ask(method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
            answer = session.request(method, f"{address}/{path}", json=body, timeout=SECONDS)
            if answer.status_code == 404:
                return None
            answer.raise_for_status()
            return answer.json()

        for state in STATES:
            count = ask("POST", "flow_runs/count", {"flow_runs": {"state": {"name": {"any_": [state]}}}})
            gauges.set("gkd_flow_runs", count, state)
        found = ask("GET", f"work_pools/{pool}")
        workers = ask("POST", f"work_pools/{pool}/workers/filter", {}) or []
        gauges.set("gkd_workers_online", sum(worker["status"] == "ONLINE" for worker in workers), pool)
        if found is not None:
            gauges.set("gkd_work_pool_paused", float(found["is_paused"]), pool)
