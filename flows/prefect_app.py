"""Prefect's server as we start it: it answers to the address that it is started at, and to no other name that leads here.

A page of another site can have its own name lead to 127.0.0.1; the browser then takes our server for that site's. Prefect itself
answers whatever `Host` it is asked by.
"""

from typing import Any

from fastapi import FastAPI
from prefect.server.api.server import create_app as prefect_app
from starlette.middleware.trustedhost import TrustedHostMiddleware

from gkd_core.loopback import LOOPBACK


def create_app(**options: Any) -> FastAPI:
    """The application, for `uvicorn --factory`."""
    app = prefect_app(**options)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=[LOOPBACK], www_redirect=False)
    return app
