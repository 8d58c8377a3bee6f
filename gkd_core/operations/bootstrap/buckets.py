"""Sets up a bucket for this project: versioned, scratch and leftovers expire, no public access, encrypted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from gkd_core.operations.bootstrap.outcome import Outcome, State
from gkd_core.storage.errors import code_of, explained
from gkd_core.storage.keys import check_bucket, segments

DEFAULT_REGION = "us-east-1"  # the one region whose buckets are made without naming it
RULE_IDS = ("gkd-scratch", "gkd-old-versions", "gkd-aborted-uploads")
# What stores that lack a feature answer to its request (MinIO, moto, Ceph).
UNSUPPORTED = ("NotImplemented", "MethodNotAllowed", "XNotImplemented", "UnsupportedOperation", "501", "405")
# What a store answers where a feature is not set up yet.
UNSET = ("NoSuchLifecycleConfiguration", "NoSuchPublicAccessBlockConfiguration", "ServerSideEncryptionConfigurationNotFoundError")


@dataclass(frozen=True)
class BucketRules:
    """What is swept from a bucket, and when.

    Attributes:
        scratch_prefix: where checkpoints of unfinished runs lie, which nobody needs for long.
        scratch_days, old_version_days, aborted_upload_days: age in days at which scratch, replaced or removed versions, and
            parts of uploads that were never finished go.
    """

    scratch_prefix: str = "scratch"
    scratch_days: int = 14
    old_version_days: int = 90
    aborted_upload_days: int = 7


def bootstrap_bucket(client: Any, name: str, rules: BucketRules = BucketRules()) -> list[Outcome]:
    """Bring a bucket to what `rules` say; made where it is not there. Doing it again changes nothing.

    Lifecycle rules that others made stay. Each feature is read back: one that the store lacks, or accepts without keeping, is
    found as such and is no error.

    Raises:
        DataError: no bucket can have that name, or no key that prefix.
        PlatformError: the store cannot be reached or refuses, or the bucket belongs to somebody else.
    """
    check_bucket(name)
    segments(rules.scratch_prefix)
    place = f"s3://{name}"
    with explained(place, "bootstrap"):
        made = _make(client, name)
    return [Outcome("bucket", made), *(_bring_about(feature, place) for feature in _features(client, name, rules))]


def _make(client: Any, name: str) -> State:
    try:
        client.head_bucket(Bucket=name)
        return "already so"
    except ClientError as error:
        # Without a body the answer says 404 alone, which of a bucket is not a missing key.
        if code_of(error) not in ("NoSuchKey", "NoSuchBucket"):
            raise
    region = client.meta.region_name
    where = {} if region in (None, DEFAULT_REGION, "aws-global") else {"LocationConstraint": region}
    try:
        client.create_bucket(Bucket=name, **({"CreateBucketConfiguration": where} if where else {}))
    except ClientError as error:
        if code_of(error) != "BucketAlreadyOwnedByYou":  # another bootstrap was quicker
            raise
    return "made"


@dataclass(frozen=True)
class _Feature:
    """A feature: how it is queried and set, whether an answer says that it is there, and what else than `UNSUPPORTED` says no."""

    title: str
    note: str
    read: Callable[[], Mapping[str, Any]]
    write: Callable[[Mapping[str, Any]], object]
    holds: Callable[[Mapping[str, Any]], bool]
    unsupported: tuple[str, ...] = ()


def _features(client: Any, name: str, rules: BucketRules) -> list[_Feature]:
    wanted = _lifecycle(rules)
    block = dict.fromkeys(("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"), True)
    encryption = {"Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]}
    return [
        _Feature(
            "public access blocked",
            "keep the store itself off the internet",
            lambda: client.get_public_access_block(Bucket=name),
            lambda _: client.put_public_access_block(Bucket=name, PublicAccessBlockConfiguration=block),
            lambda answer: answer.get("PublicAccessBlockConfiguration") == block,
        ),
        _Feature(
            "default encryption",
            "encrypt the store's disks",
            lambda: client.get_bucket_encryption(Bucket=name),
            lambda _: client.put_bucket_encryption(Bucket=name, ServerSideEncryptionConfiguration=encryption),
            # Whoever has set another key, of KMS say, keeps it.
            lambda answer: bool(answer.get("ServerSideEncryptionConfiguration", {}).get("Rules")),
            ("InvalidArgument",),  # Ceph, where nobody has given it a keeper of keys
        ),
        _Feature(
            "versioning",
            "an overwritten or removed object is lost",
            lambda: client.get_bucket_versioning(Bucket=name),
            lambda _: client.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"}),
            lambda answer: answer.get("Status") == "Enabled",
        ),
        _Feature(
            "lifecycle",
            f"remove old objects below {rules.scratch_prefix}/, old versions and unfinished uploads yourself",
            lambda: client.get_bucket_lifecycle_configuration(Bucket=name),
            lambda answer: client.put_bucket_lifecycle_configuration(
                Bucket=name, LifecycleConfiguration={"Rules": [*_others(answer), *wanted]}
            ),
            lambda answer: all(_has_rule(answer, rule) for rule in wanted),
        ),
    ]


def _lifecycle(rules: BucketRules) -> list[dict[str, Any]]:
    everything = {"Status": "Enabled", "Filter": {"Prefix": ""}}
    scratch, old, aborted = RULE_IDS
    return [
        {
            "ID": scratch,
            "Status": "Enabled",
            "Filter": {"Prefix": f"{rules.scratch_prefix}/"},
            "Expiration": {"Days": rules.scratch_days},
            "NoncurrentVersionExpiration": {"NoncurrentDays": 1},
        },
        everything
        | {
            "ID": old,
            "NoncurrentVersionExpiration": {"NoncurrentDays": rules.old_version_days},
            "Expiration": {"ExpiredObjectDeleteMarker": True},
        },
        everything | {"ID": aborted, "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": rules.aborted_upload_days}},
    ]


def _others(answer: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [rule for rule in answer.get("Rules", []) if rule.get("ID") not in RULE_IDS]


def _has_rule(answer: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether a rule of this ID is there with these actions; a store may add to it, and may write the filter its own way."""
    actions = {key: value for key, value in wanted.items() if key != "Filter"}
    return any(
        all(rule.get(key) == value for key, value in actions.items()) and _prefix(rule) == _prefix(wanted)
        for rule in answer.get("Rules", [])
    )


def _prefix(rule: Mapping[str, Any]) -> str:
    return str(rule.get("Filter", {}).get("Prefix") or rule.get("Prefix") or "")


def _bring_about(feature: _Feature, place: str) -> Outcome:
    with explained(place, feature.title):
        try:
            before = _answer(feature)
            if feature.holds(before):
                return Outcome(feature.title, "already so")
            feature.write(before)
            kept = feature.holds(_answer(feature))
        except ClientError as error:
            if code_of(error) not in (*UNSUPPORTED, *feature.unsupported):
                raise
            return Outcome(feature.title, "not supported", f"this store has no such feature; {feature.note}")
    if kept:
        return Outcome(feature.title, "set")
    return Outcome(feature.title, "not kept", f"the store took it and has forgotten it; {feature.note}")


def _answer(feature: _Feature) -> Mapping[str, Any]:
    try:
        return feature.read()
    except ClientError as error:
        if code_of(error) in UNSET:
            return {}
        raise
