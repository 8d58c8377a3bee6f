"""Prefect's server as we start it.

On one machine it answers to the address that it is started at, and to no other name that leads here: a page of another site can
have its own name lead to 127.0.0.1; the browser then takes our server for that site's. Prefect itself answers whatever `Host` it
is asked by. On a cluster its names are those of a Service and of the pod, and the network's rules say who reaches it.
"""

import os
from typing import Any

from prefect.server.api.server import create_app as prefect_app
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp

from flows.read_gate import gated
from gkd_core.system.loopback import LOOPBACK


def create_app(**options: Any) -> TrustedHostMiddleware:
    """The application of one machine, for `uvicorn --factory`.

    Around Prefect's own and not within it: its automations ask that one, in this process, by a name of their own.
    """
    return TrustedHostMiddleware(prefect_app(**options), allowed_hosts=[LOOPBACK], www_redirect=False)


def create_cluster_app(**options: Any) -> ASGIApp:
    """The application of a cluster, for `uvicorn --factory`: who has the read key reads, and does nothing else."""
    return gated(prefect_app(**options), os.environ)
