"""What is no endpoint of a store is refused by the variable's name, before anything is asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from gkd_core.errors import PlatformError, TransientError
from gkd_core.storage.client import connect

VARIABLES = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_REGION", "us-east-1")


@pytest.mark.parametrize("variable", VARIABLES)
@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("minio:9000", "expected http:// or https://, then host and port"),
        ("localhost", "expected http"),
        ("s3://bucket", "expected http"),
        ("http://", "expected http"),
        ("//minio:9000", "expected http"),
        ("http://minio:9000/bucket", "it names a bucket"),
        ("https://bucket.s3.eu-west-1.amazonaws.com", "it names a bucket"),
        ("https://bucket.s3.amazonaws.com/", "it names a bucket"),
        ("http://minio:9000?x=1", "ends with its host and port"),
        ("http://user:pass-word@minio:9000", "an endpoint holds no user and password"),
        ("https://user@minio", "an endpoint holds no user and password"),
    ],
)
def test_what_is_no_endpoint_is_refused_by_name(variable: str, address: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, address)
    with pytest.raises(PlatformError, match=f"^{variable}: given .*{words}") as error:
        connect()
    assert not isinstance(error.value, TransientError)
    assert "\n" not in str(error.value)
    assert "pass-word" not in str(error.value)


@pytest.mark.parametrize(
    "address",
    [
        "http://127.0.0.1:9000",
        "https://minio.example/",
        "https://s3.eu-west-1.amazonaws.com",
        "http://[::1]:9000",
        "https://x.example/storage/v1/s3",
    ],
)
def test_an_endpoint_is_taken(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", address)
    assert connect().meta.endpoint_url.rstrip("/") == address.rstrip("/")


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("http://minio:9000/bucket", "it names a bucket"),
        ("https://bucket.s3.eu-west-1.amazonaws.com", "it names a bucket"),
        ("minio:9000", "no client for the endpoint can be made"),
    ],
)
def test_what_is_no_endpoint_is_refused_in_the_configuration_file_too(
    address: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config").write_text(f"[default]\nendpoint_url = {address}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    with pytest.raises(PlatformError, match=words) as error:
        connect()
    assert "\n" not in str(error.value)


def test_an_endpoint_of_the_configuration_file_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config").write_text("[default]\nendpoint_url = https://minio.example\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    assert connect().meta.endpoint_url == "https://minio.example"
