"""What Ceph makes of our policies' conditions and of the header that they ask for, as infra/policies/README.md tells it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.ceph_store import CephStore, ceph_store_or_skip
from tests.infra.test_policies import UNKNOWN_TO_CEPH

pytestmark = pytest.mark.integration

TRAINER = json.loads((Path(__file__).parents[2] / "infra/policies/trainer.json").read_text())
RESULT = "scratch/distill-proxy-1/output/job/encoder.safetensors"


@pytest.fixture(scope="module")
def store() -> Iterator[CephStore]:
    with ceph_store_or_skip() as store:
        store.client().create_bucket(Bucket="gkd-data")
        yield store


def allow(action: str, place: str, **more: Any) -> dict[str, Any]:
    statement = {"Effect": "Allow", "Action": [action], "Resource": [f"arn:aws:s3:::{place}"], **more}
    return {"Version": "2012-10-17", "Statement": [statement]}


def test_the_header_is_kept_to_and_no_condition_asks_for_it(store: CephStore) -> None:
    trainer = store.client(store.role("trainer", TRAINER))

    def put(body: bytes, **header: str) -> None:
        trainer.put_object(Bucket="gkd-data", Key=RESULT, Body=body, **header)

    put(b"first", IfNoneMatch="*")
    with pytest.raises(ClientError, match="PreconditionFailed"):
        put(b"second", IfNoneMatch="*")
    with pytest.raises(ClientError, match="AccessDenied"):
        trainer.delete_object(Bucket="gkd-data", Key=RESULT)
    # The gateway does not know the key s3:if-none-match, and takes `Null` for true whatever its value.
    put(b"third")
    put(b"fourth", IfNoneMatch='"another tag"')
    assert trainer.get_object(Bucket="gkd-data", Key=RESULT)["Body"].read() == b"fourth"


def test_a_condition_that_compares_the_header_shuts_everybody_out(store: CephStore) -> None:
    policy = allow("s3:PutObject", "gkd-data/*", Condition={"StringEquals": {"s3:if-none-match": "*"}})
    client = store.client(store.role("strict", policy))
    with pytest.raises(ClientError, match="AccessDenied"):
        client.put_object(Bucket="gkd-data", Key="new", Body=b"first", IfNoneMatch="*")


@pytest.mark.parametrize("action", sorted(UNKNOWN_TO_CEPH))
def test_a_policy_that_names_a_right_on_encryption_is_refused(action: str, store: CephStore) -> None:
    with pytest.raises(ClientError, match="PutUserPolicy"):
        store.role(action.partition(":")[2], allow(action, "gkd-data"))
