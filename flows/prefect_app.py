"""Prefect's server as we start it: it answers to the address that it is started at, and to no other name that leads here.

A page of another site can have its own name lead to 127.0.0.1; the browser then takes our server for that site's. Prefect itself
answers whatever `Host` it is asked by.
"""

from typing import Any

from prefect.server.api.server import create_app as prefect_app
from starlette.middleware.trustedhost import TrustedHostMiddleware

from gkd_core.loopback import LOOPBACK


def create_app(**options: Any) -> TrustedHostMiddleware:
    """The application, for `uvicorn --factory`.

    Around Prefect's own and not within it: its automations ask that one, in this process, by a name of their own.
    """
    return TrustedHostMiddleware(prefect_app(**options), allowed_hosts=[LOOPBACK], www_redirect=False)
