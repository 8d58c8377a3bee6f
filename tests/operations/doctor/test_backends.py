"""Buckets, at a store on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from gkd_core.operations.doctor import CHECKS, Finding, Machine
from gkd_core.settings import Settings
from gkd_core.storage.client import connect
from gkd_core.system.loopback import free_port
from tests.s3_store import s3_store


@pytest.fixture
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pytest.MonkeyPatch]:
    """A store with one bucket, as the environment names it."""
    nothing = str(tmp_path_factory.mktemp("aws") / "none")
    with s3_store() as address, pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ENDPOINT_URL": address,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "hidden",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_CONFIG_FILE": nothing,
            "AWS_SHARED_CREDENTIALS_FILE": nothing,
        }.items():
            patch.setenv(name, value)
        connect().create_bucket(Bucket="there")
        yield patch


def findings(machine: Machine, bucket: str) -> list[Finding]:
    settings = Settings.model_validate({"data": {"world": None, "shards": f"s3://{bucket}/shards"}})
    return [item for item in CHECKS["storage"](replace(machine, settings=settings)) if item.subject.startswith("S3")]


def test_a_bucket_that_is_there_one_that_is_not_and_a_store_that_is_gone(good: Machine, store: pytest.MonkeyPatch) -> None:
    (there,) = findings(good, "there")
    assert (there.subject, there.level) == ("S3, bucket there", "ok")
    (absent,) = findings(good, "absent")
    assert absent.level == "error"
    assert "no such bucket" in absent.found
    assert "gkd bucket bootstrap" in absent.advice
    store.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    (gone,) = findings(good, "there")
    assert gone.level == "error"
    assert "AWS_ENDPOINT_URL" in gone.found + gone.advice
    assert not any("hidden" in item.model_dump_json() for item in (there, absent, gone))
