"""The MLflow user of flow runs, against a stand-in that answers as MLflow's basic-auth does (the real one: tests/integration)."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import responses
from requests import PreparedRequest
from requests.auth import HTTPBasicAuth
from typer.testing import CliRunner

from gkd_core.cli.app import app
from gkd_core.errors import PlatformError
from gkd_core.operations.bootstrap.tracking_user import ensure_tracking_user, ensure_users

URL = "http://mlflow.test:5000"
ENVIRONMENT = {
    "MLFLOW_TRACKING_URI": URL,
    "MLFLOW_AUTH_ADMIN_USERNAME": "admin",
    "MLFLOW_AUTH_ADMIN_PASSWORD": "canary-admin",
    "MLFLOW_TRACKING_USERNAME": "gkd",
    "MLFLOW_TRACKING_PASSWORD": "canary-worker",
}


class Server:
    """Users and passwords; only the administrator makes users and sets passwords."""

    def __init__(self) -> None:
        self.passwords = {"admin": "canary-admin"}
        self.changes = 0

    def answer(self, request: PreparedRequest) -> tuple[int, dict[str, str], str]:
        user = next(
            (name for name, word in self.passwords.items() if self._header(name, word) == request.headers["Authorization"]), ""
        )
        if not user:
            return 401, {}, "You are not authenticated."
        if request.method == "GET":
            name = str(request.params["username"])  # type: ignore[attr-defined]
            body = {"user": {"username": name, "is_admin": name == "admin"}}
            return (200, {}, json.dumps(body)) if name in self.passwords else (404, {}, "{}")
        if user != "admin":
            return 403, {}, "Permission denied"
        given = json.loads(request.body or "{}")
        self.passwords[given["username"]] = given["password"]
        self.changes += 1
        return 200, {}, "{}" if request.method == "POST" else ""

    @staticmethod
    def _header(name: str, password: str) -> str:
        request = PreparedRequest()
        request.prepare(method="GET", url=URL, auth=HTTPBasicAuth(name, password))
        return str(request.headers["Authorization"])


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server()
    with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        for method, name in (("GET", "get"), ("POST", "create"), ("PATCH", "update-password")):
            mock.add_callback(method, f"{URL}/api/2.0/mlflow/users/{name}", callback=found.answer)
        yield found


def test_it_is_made_once_and_its_password_follows_the_environment(server: Server) -> None:
    assert [ensure_tracking_user(ENVIRONMENT).state for _ in range(3)] == ["made", "already so", "already so"]
    assert (server.changes, server.passwords["gkd"]) == (1, "canary-worker")
    assert ensure_tracking_user(ENVIRONMENT | {"MLFLOW_TRACKING_PASSWORD": "another"}).state == "set"
    assert (server.changes, server.passwords["gkd"]) == (2, "another")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"MLFLOW_TRACKING_USERNAME": "admin"}, "MLflow user admin: is an administrator; name another user"),
        ({"MLFLOW_AUTH_ADMIN_PASSWORD": "canary-wrong"}, "answered 401; check MLFLOW_AUTH_ADMIN_USERNAME and"),
        ({"MLFLOW_TRACKING_PASSWORD": ""}, "MLFLOW_TRACKING_PASSWORD: unset"),
        ({"MLFLOW_TRACKING_URI": "http://nowhere.test"}, "ConnectionError; check MLFLOW_TRACKING_URI"),
    ],
)
def test_what_is_wrong_is_said_without_a_password(changed: dict[str, str], message: str, server: Server) -> None:
    with pytest.raises(PlatformError, match=message) as caught:
        ensure_tracking_user(ENVIRONMENT | changed)
    assert "canary" not in str(caught.value)
    assert server.changes == 0


METRICS = {"GKD_MLFLOW_METRICS_USERNAME": "metrics", "GKD_MLFLOW_METRICS_PASSWORD": "canary-metrics"}


def test_metrics_have_a_user_of_their_own(server: Server) -> None:
    found = [(finding.feature, finding.state) for finding in ensure_users(ENVIRONMENT | METRICS)]
    assert found == [("MLflow user gkd", "made"), ("MLflow user metrics", "made")]
    assert server.passwords["metrics"] == "canary-metrics"
    assert [finding.state for finding in ensure_users(ENVIRONMENT | METRICS)] == ["already so", "already so"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"GKD_MLFLOW_METRICS_USERNAME": "gkd"}, "GKD_MLFLOW_METRICS_USERNAME: gkd is that of MLFLOW_TRACKING_USERNAME too"),
        ({"GKD_MLFLOW_METRICS_USERNAME": "admin"}, "is an administrator; name another user by GKD_MLFLOW_METRICS_USERNAME"),
        ({"GKD_MLFLOW_METRICS_PASSWORD": ""}, "GKD_MLFLOW_METRICS_PASSWORD: unset"),
    ],
)
def test_what_is_wrong_with_the_user_of_metrics_is_said(changed: dict[str, str], message: str, server: Server) -> None:
    with pytest.raises(PlatformError, match=message) as caught:
        list(ensure_users(ENVIRONMENT | METRICS | changed))
    assert "canary" not in str(caught.value)


def test_the_command_says_how_it_stands(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    assert CliRunner().invoke(app, ["infra", "tracking-user"]).output == "MLflow user gkd: made\n"
    assert CliRunner().invoke(app, ["infra", "tracking-user"]).output == "MLflow user gkd: already so\n"
