"""What the policies say, by IAM's own rules: who may do what with a key, and by which headers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.infra.policy_language import IF_NONE_MATCH, Request, is_allowed, put

ROLES = {path.stem: json.loads(path.read_text()) for path in (Path(__file__).parents[2] / "infra" / "policies").glob("*.json")}
WORK = "gkd-data/scratch/distill-proxy-1234"
RESULT = f"{WORK}/output/distill-proxy-1234-abcd/encoder.safetensors"
CHECKPOINT = f"{WORK}/ray/checkpoint_1/model.safetensors"


def get(place: str) -> Request:
    return Request("s3:GetObject", place)


def remove(place: str) -> Request:
    return Request("s3:DeleteObject", place)


TABLE = [
    # A result is written once, whole or in parts.
    ("trainer", put(RESULT, "*"), True),
    ("trainer", put(RESULT), False),
    ("trainer", put(RESULT, creates=False), True),
    ("trainer", remove(RESULT), False),
    ("trainer", Request("s3:DeleteObjectVersion", RESULT), False),
    ("trainer", Request("s3:AbortMultipartUpload", RESULT), True),
    ("trainer", get(RESULT), True),
    ("trainer", put(RESULT.replace("/scratch/", "/scratch/team/")), False),
    ("trainer", put(RESULT.replace("/scratch/", "/scratch/team/"), "*"), True),
    ("trainer", remove(f"{WORK}/output/job/ray/file"), False),
    # Checkpoints come and go; what was sent to it stays.
    ("trainer", put(CHECKPOINT), True),
    ("trainer", remove(CHECKPOINT), True),
    ("trainer", put(f"{WORK}/costs/worker-0.json"), True),
    ("trainer", put(f"{WORK}/inputs/data/index.json"), False),
    ("trainer", remove(f"{WORK}/inputs/data/index.json"), False),
    ("trainer", put("gkd-data/shards/v1/0.tar", "*"), False),
    ("trainer", put("gkd-data/scratch/file", "*"), False),
    ("trainer", Request("s3:ListBucket", "gkd-data"), True),
    # The worker reads what was handed over, and sweeps.
    ("worker", get(RESULT), True),
    ("worker", remove(RESULT), True),
    ("worker", remove(CHECKPOINT), True),
    ("worker", put(f"{WORK}/inputs/data/index.json"), True),
    ("worker", remove("gkd-data/dvc/files/1"), False),
    ("worker", put("gkd-data/shards/v1/0.tar"), False),
    # The others have nothing to do with it.
    *((role, put(RESULT, "*"), False) for role in ("curator", "tracking", "backup", "retention", "bootstrap")),
    *((role, remove(RESULT), False) for role in ("curator", "tracking", "backup", "retention", "bootstrap")),
    ("curator", put("gkd-data/shards/v1/0.tar"), True),
    ("curator", remove("gkd-data/shards/v1/0.tar"), False),
    ("backup", put("gkd-backup/cluster/contents/1"), True),
    ("backup", remove("gkd-backup/cluster/contents/1"), False),
    ("retention", remove("gkd-backup/cluster/contents/1"), True),
    ("retention", get("gkd-backup/cluster/contents/1"), False),
    ("retention", get("gkd-backup/cluster/backups/1.json"), True),
]


@pytest.mark.parametrize(("role", "request_", "allowed"), TABLE, ids=lambda item: str(item) if isinstance(item, str) else None)
def test_a_role_may_do_what_the_table_says(role: str, request_: Request, allowed: bool) -> None:
    assert is_allowed(ROLES[role], request_) is allowed


def test_every_role_is_in_the_table() -> None:
    assert {role for role, _, _ in TABLE} == set(ROLES)


@pytest.mark.parametrize(
    ("condition", "facts", "fits"),
    [
        ({"Null": {"s3:if-none-match": "false"}}, {IF_NONE_MATCH: "*"}, True),
        ({"Null": {"s3:if-none-match": "false"}}, {}, False),
        ({"Null": {"s3:if-none-match": "true"}}, {}, True),
        ({"StringEquals": {"s3:If-None-Match": "*"}}, {IF_NONE_MATCH: "*"}, True),
        ({"StringEquals": {"s3:if-none-match": "*"}}, {IF_NONE_MATCH: "tag"}, False),
        ({"StringLike": {"s3:prefix": ["a/*", "b/?"]}}, {"s3:prefix": "b/1"}, True),
        ({"StringLike": {"s3:prefix": "a/*"}}, {}, False),
        ({"Bool": {"s3:ObjectCreationOperation": "false"}}, {"s3:ObjectCreationOperation": "false"}, True),
        ({"Bool": {"s3:ObjectCreationOperation": "false"}}, {}, False),
        ({"Null": {"a": "true"}, "Bool": {"b": "true"}}, {"b": "false"}, False),
    ],
)
def test_conditions_are_read_as_iam_reads_them(condition: dict[str, object], facts: dict[str, str], fits: bool) -> None:
    statement = {"Effect": "Allow", "Action": "s3:*", "Resource": "arn:aws:s3:::bucket/*", "Condition": condition}
    assert is_allowed({"Statement": [statement]}, Request("s3:PutObject", "bucket/key", facts)) is fits
    refusal = {**statement, "Effect": "Deny"}
    allow = {"Effect": "Allow", "Action": ["s3:PutObject"], "Resource": ["*"]}
    assert is_allowed({"Statement": [allow, refusal]}, Request("s3:PutObject", "bucket/key", facts)) is not fits
