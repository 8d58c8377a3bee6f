"""What the bootstrap of stores says, and what it refuses before it touches anything."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from moto import mock_aws
from typer.testing import CliRunner

from gkd_core.cli.app import app
from gkd_core.errors import PlatformError
from gkd_core.operations.bootstrap.databases import OWNERS, bootstrap_databases
from gkd_core.operations.bootstrap.stores import BUCKETS


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("AWS_ENDPOINT_URL", "AWS_PROFILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE", "GKD_DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with mock_aws():
        yield


@pytest.mark.usefixtures("store")
def test_the_command_says_what_it_did_and_then_that_nothing_changed() -> None:
    first = CliRunner().invoke(app, ["infra", "bootstrap"])
    assert first.exit_code == 0
    lines = first.output.splitlines()
    assert lines[0] == "databases: left out (GKD_DATABASE_URL is unset)"
    assert [line for line in lines if line.endswith(": made")] == [f"bucket {name}: made" for name in BUCKETS]
    assert "bucket gkd-data: versioning: set" in lines
    assert lines[-1] == "15 changed"
    second = CliRunner().invoke(app, ["infra", "bootstrap"])
    assert second.output.splitlines()[-1] == "nothing changed"
    assert "bucket gkd-data: versioning: already so" in second.output


@pytest.mark.usefixtures("store")
def test_only_the_buckets_that_are_named() -> None:
    output = CliRunner().invoke(app, ["infra", "bootstrap", "--bucket", "another"]).output
    assert "bucket another: made" in output
    assert "gkd-data" not in output


def test_a_missing_password_is_named_before_the_server_is_asked() -> None:
    with pytest.raises(PlatformError, match="GKD_MLFLOW_DATABASE_PASSWORD: unset; .* database role gkd_mlflow"):
        bootstrap_databases("postgresql://nobody@127.0.0.1:1/x", OWNERS, {"GKD_PREFECT_DATABASE_PASSWORD": "x"})


def test_an_address_that_is_none_is_not_repeated() -> None:
    environment = {owner.password_variable: "x" for owner in OWNERS}
    with pytest.raises(PlatformError) as caught:
        bootstrap_databases("mysql//root:canary", OWNERS, environment)
    assert str(caught.value).startswith("GKD_DATABASE_URL: not an address; expected one such as postgresql://")
    assert "canary" not in str(caught.value)
