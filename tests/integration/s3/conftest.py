"""An S3 store on loopback behind a proxy that can misbehave, as the environment names it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from gkd_core.storage.client import connect
from tests.integration.s3.faulty_proxy import SECRET, STEADY, FaultyProxy, faulty_proxy, sound
from tests.s3_store import s3_store


@pytest.fixture(scope="module")
def upstream() -> Iterator[str]:
    with s3_store() as address:
        yield address


@pytest.fixture(scope="module")
def proxy(upstream: str) -> Iterator[FaultyProxy]:
    with faulty_proxy(upstream) as proxy:
        yield proxy


@pytest.fixture(scope="module", autouse=True)
def environment(proxy: FaultyProxy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The AWS variables, and no file of whoever runs the tests."""
    nothing = str(tmp_path_factory.mktemp("aws") / "none")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ENDPOINT_URL": proxy.url,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_CONFIG_FILE": nothing,
            "AWS_SHARED_CREDENTIALS_FILE": nothing,
        }.items():
            patch.setenv(name, value)
        yield


@pytest.fixture(autouse=True)
def good_manners(proxy: FaultyProxy) -> None:
    """Each test begins with a sound store."""
    proxy.misbehave(sound)


@pytest.fixture
def client() -> Any:
    return connect(STEADY)


@pytest.fixture
def bucket(client: Any) -> str:
    client.create_bucket(Bucket="a-bucket")
    return "a-bucket"
