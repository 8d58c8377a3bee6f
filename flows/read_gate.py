"""A second key to Prefect's server, which reads how runs stand and nothing else: Prefect itself has one key and no roles.

It wraps the server's application. A request with the read key goes on with the server's own key where it only reads, and is
refused where it does not; all others go on as they are, for Prefect to judge. What holds secrets (blocks, variables, settings,
inputs of runs) it does not read. It is an allow list: routes of a later version are refused until somebody has reviewed them.
"""

import base64
import binascii
import hmac
from collections.abc import Mapping

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from gkd_core.errors import PlatformError

VARIABLE = "GKD_PREFECT_READ_AUTH_STRING"
SERVER_KEY = "PREFECT_SERVER_API_AUTH_STRING"
BASE = "/api/"
PAGES = frozenset({"health", "ready", "version", "admin/version", "metrics"})
AREAS = frozenset({"flows", "flow_runs", "task_runs", "deployments", "work_pools", "work_queues"})
READING = frozenset({"filter", "count", "history"})  # ends of paths that are asked by POST, as the question is long
HEADER = b"authorization"


class ReadGate:
    """The application around Prefect's; a key is `user:password`."""

    def __init__(self, app: ASGIApp, server_key: str, read_key: str) -> None:
        self._app = app
        self._read_key = read_key.encode()
        self._credentials = b"Basic " + base64.b64encode(server_key.encode())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket") or not self._has_read_key(scope):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await WebSocketClose(1008, "this key reads by HTTP alone")(scope, receive, send)
        elif only_reads(scope["method"], scope["path"]):
            headers = [pair for pair in scope["headers"] if pair[0] != HEADER]
            await self._app({**scope, "headers": [*headers, (HEADER, self._credentials)]}, receive, send)
        else:
            answer = JSONResponse({"exception_message": "Forbidden: this key only reads how runs stand"}, 403)
            await answer(scope, receive, send)

    def _has_read_key(self, scope: Scope) -> bool:
        given = [value for name, value in scope["headers"] if name == HEADER]
        if len(given) != 1:
            return False
        scheme, _, credentials = given[0].partition(b" ")
        try:
            pair = base64.b64decode(credentials.strip(), validate=True)
        except binascii.Error:
            return False
        return scheme.lower() == b"basic" and hmac.compare_digest(pair, self._read_key)


def only_reads(method: str, path: str) -> bool:
    """Whether a request changes nothing, and asks for nothing that holds secrets.

    Args:
        path: decoded, as Prefect's routes see it.
    """
    place = path.removeprefix(BASE)
    parts = place.split("/")
    if place == path or any(part in ("", ".", "..", "input") for part in parts):
        return False
    if method == "GET":
        return place in PAGES or parts[0] in AREAS
    return method == "POST" and parts[0] in AREAS and parts[-1] in READING


def gated(app: ASGIApp, environment: Mapping[str, str]) -> ASGIApp:
    """The application behind a `ReadGate`, where the environment has a read key; else as it is.

    Raises:
        PlatformError: the read key is none, or is the server's own, or the server has none: then it would be open to everybody.
    """
    read_key, server_key = environment.get(VARIABLE, ""), environment.get(SERVER_KEY, "")
    if not read_key:
        return app
    user, _, password = read_key.partition(":")
    if not user or not password:
        raise PlatformError(f"{VARIABLE}: expected user:password")
    if not server_key:
        raise PlatformError(f"{VARIABLE}: set, while {SERVER_KEY} is not: the server would be open to everybody; set both")
    if hmac.compare_digest(read_key.encode(), server_key.encode()):
        raise PlatformError(f"{VARIABLE}: the same as {SERVER_KEY}, which may do everything; give it another")
    return ReadGate(app, server_key, read_key)
