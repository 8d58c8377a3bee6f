"""The users of an MLflow server with basic-auth: one for flow runs, and one that only reads metrics.

Neither is an administrator. By the server's default each can read everything and change only what it created.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

import requests
from requests.auth import HTTPBasicAuth

from gkd_core.errors import PlatformError
from gkd_core.operations.bootstrap.outcome import Outcome

SECONDS = 60
ADDRESS = "MLFLOW_TRACKING_URI"
ADMINISTRATOR = ("MLFLOW_AUTH_ADMIN_USERNAME", "MLFLOW_AUTH_ADMIN_PASSWORD")
USER = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
METRICS_USER = ("GKD_MLFLOW_METRICS_USERNAME", "GKD_MLFLOW_METRICS_PASSWORD")
USERS = "api/2.0/mlflow/users"


def ensure_users(environment: Mapping[str, str] = os.environ) -> Iterator[Outcome]:
    """Make the user of flow runs, and that of metrics where the environment names one.

    Raises:
        PlatformError: as `ensure_tracking_user`; or both are one user, who would then have one password or the other.
    """
    named = environment.get(METRICS_USER[0], "")
    if named and named == environment.get(USER[0]):
        raise PlatformError(f"{METRICS_USER[0]}: {named} is that of {USER[0]} too; name another, who makes nothing")
    yield ensure_tracking_user(environment)
    if named:
        yield ensure_tracking_user(environment, METRICS_USER)


def ensure_tracking_user(environment: Mapping[str, str] = os.environ, user: tuple[str, str] = USER) -> Outcome:
    """Make a user, or set its password where that is another. Again, it changes nothing.

    Args:
        user: variables that have its name and its password.

    Raises:
        PlatformError: a variable is unset, the server cannot be reached, it does not let the administrator in, or the user
            is an administrator.
    """
    address = _variable(ADDRESS, environment).rstrip("/")
    administrator = HTTPBasicAuth(*(_variable(name, environment) for name in ADMINISTRATOR))
    name, password = (_variable(variable, environment) for variable in user)
    title = f"MLflow user {name}"
    server = f"{address}/{USERS}"
    found = _ask("GET", f"{server}/get", administrator, params={"username": name})
    if found.status_code == 404:
        _expect(_ask("POST", f"{server}/create", administrator, json={"username": name, "password": password}), address)
        return Outcome(title, "made")
    if _expect(found, address)["user"]["is_admin"]:
        raise PlatformError(f"{title}: is an administrator; name another user by {user[0]}")
    own = _ask("GET", f"{server}/get", HTTPBasicAuth(name, password), params={"username": name})
    if own.status_code == 401:
        _expect(_ask("PATCH", f"{server}/update-password", administrator, json={"username": name, "password": password}), address)
        return Outcome(title, "set", "its password is that of the environment now")
    _expect(own, address)
    return Outcome(title, "already so")


def _variable(name: str, environment: Mapping[str, str]) -> str:
    value = environment.get(name, "")
    if not value:
        raise PlatformError(f"{name}: unset; the address of MLflow's server, its administrator and the user to make are needed")
    return value


def _ask(method: str, url: str, auth: HTTPBasicAuth, **what: Any) -> requests.Response:
    try:
        return requests.request(method, url, auth=auth, timeout=SECONDS, **what)
    except requests.RequestException as error:
        raise PlatformError(f"MLflow at {url}: {type(error).__name__}; check {ADDRESS}, and that the server is up") from None


def _expect(answer: requests.Response, address: str) -> dict[str, Any]:
    if answer.ok:
        body: dict[str, Any] = answer.json() if answer.content else {}
        return body
    who = f"check {' and '.join(ADMINISTRATOR)}" if answer.status_code in (401, 403) else "see the server's log"
    raise PlatformError(f"MLflow at {address}: answered {answer.status_code}; {who}")
