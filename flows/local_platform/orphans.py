"""Flow runs that have lost their process: Prefect still counts them as alive, and they keep others of their deployment waiting.

Where no worker of the pool runs, no run of the pool can have a process. So before the worker starts, and after it was
stopped, those that are said to run are marked Crashed: after a power cut as well as after `make down`.
"""

import json
import urllib.request
from typing import Any

from flows.local_platform.services import POOL
from gkd_core.errors import PlatformError
from gkd_core.operations.doctor.web import basic

SECONDS = 15.0
ENDS = {"RUNNING": "CRASHED", "PENDING": "CRASHED", "CANCELLING": "CANCELLED"}
MESSAGE = "its worker was stopped, and its process with it; run it again, it goes on where it was"
PAGE = 100


def end_orphans(api: str, key: str) -> list[str]:
    """Mark every run of the pool that is said to be alive as ended.

    Args:
        api: address of the Prefect server's API.
        key: `user:key` that it asks for.

    Returns:
        the names of the runs.

    Raises:
        PlatformError: the server does not answer, or refuses.
    """
    ended: list[str] = []
    while found := living(api, key):
        for run in found:
            state = {"type": ENDS[run["state_type"]], "message": MESSAGE}
            answer = _post(f"{api}/flow_runs/{run['id']}/set_state", {"state": state, "force": True}, key)
            if answer["status"] != "ACCEPT":
                raise PlatformError(f"Prefect would not mark the run {run['name']} as ended: {answer['status']}")
            ended.append(run["name"])
    return ended


def living(api: str, key: str) -> list[dict[str, Any]]:
    """Runs of the pool that are said to be alive, a page of them.

    Raises:
        PlatformError: the server does not answer.
    """
    query = {
        "work_pools": {"name": {"any_": [POOL]}},
        "flow_runs": {"state": {"type": {"any_": list(ENDS)}}},
        "limit": PAGE,
    }
    return list(_post(f"{api}/flow_runs/filter", query, key))


def _post(url: str, body: dict[str, Any], key: str) -> Any:
    headers = {"Content-Type": "application/json", **basic(key)}
    request = urllib.request.Request(url, data=json.dumps(body).encode(), headers=headers, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:
            return json.load(answer)
    except OSError as error:
        raise PlatformError(f"{url}: {error}") from None
