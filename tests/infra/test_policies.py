"""The S3 policies, by running the project's own S3 code as each role against two stores that enforce them.

Moto is in every environment; Ceph is a real server, asked by HTTP, where it is installed. Neither knows the condition keys of
what is written once: moto passes over conditions, and Ceph takes `Null` for true where it does not know the key.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from moto import mock_aws
from moto.core import set_initial_no_auth_action_count

from gkd_core.errors import GkdError
from gkd_core.operations.backup.backup_store import BackupStore, BucketShelf
from gkd_core.operations.backup.manifest import Backup, Dump
from gkd_core.operations.backup.retention import prune
from gkd_core.operations.backup.seal import seal
from gkd_core.operations.bootstrap.buckets import bootstrap_bucket
from gkd_core.operations.bootstrap.stores import BUCKETS
from gkd_core.storage.download import download_file
from gkd_core.storage.keys import Location
from gkd_core.storage.trees import list_objects
from gkd_core.storage.upload import upload_file
from tests.ceph_store import ceph_store_or_skip

POLICIES = Path(__file__).parents[2] / "infra" / "policies"
ROLES = {path.stem: json.loads(path.read_text()) for path in sorted(POLICIES.glob("*.json"))}
# Ceph refuses a policy that names them (infra/policies/README.md).
UNKNOWN_TO_CEPH = {"s3:GetEncryptionConfiguration", "s3:PutEncryptionConfiguration"}
# Who has made the buckets. Ceph lets nobody else block public access; with the others the role `bootstrap` does.
OWNER = "owner"
REGION = "us-east-1"
WORK = "gkd-data/scratch/distill-proxy-1"
SCRATCH = {f"{WORK}/inputs", f"{WORK}/ray", f"{WORK}/output/job"}
AREAS = ("gkd-data/raw", "gkd-data/shards", "gkd-data/dvc", *sorted(SCRATCH), "gkd-mlflow/artifacts", "gkd-backup/2026")
OBJECTS = [f"{area}/file" for area in AREAS]

READS = {
    "trainer": {"gkd-data/shards", *SCRATCH},
    "worker": {"gkd-data/raw", "gkd-data/shards", "gkd-data/dvc", *SCRATCH},
    "curator": {"gkd-data/raw", "gkd-data/shards", "gkd-data/dvc", *SCRATCH},
    "tracking": {"gkd-mlflow/artifacts"},
    "backup": set(AREAS),
    "retention": set(),
    "bootstrap": set(),
}
WRITES = {
    "trainer": {f"{WORK}/ray", f"{WORK}/output/job"},  # by what headers: test_write_once.py, as this store knows no conditions
    "worker": {"gkd-data/dvc", *SCRATCH},
    "curator": {"gkd-data/raw", "gkd-data/shards", "gkd-data/dvc"},
    "tracking": {"gkd-mlflow/artifacts"},
    "backup": {"gkd-backup/2026"},
    "retention": set(),
    "bootstrap": set(),
}
REMOVES = {
    "trainer": {f"{WORK}/ray"}, "worker": SCRATCH, "tracking": {"gkd-mlflow/artifacts"},
    "retention": {"gkd-backup/2026"},
}  # fmt: skip


ClientOf = Callable[[str], Any]


@pytest.fixture(scope="module", params=["moto", pytest.param("ceph", marks=pytest.mark.integration)])
def store_name(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def client_of(store_name: str) -> Iterator[ClientOf]:
    """A client with the rights of a role and no others."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ENDPOINT_URL", "AWS_PROFILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
            patch.delenv(name, raising=False)
        with {"moto": _moto, "ceph": _ceph}[store_name]() as clients:
            yield clients.__getitem__


@contextmanager
def _moto() -> Iterator[dict[str, Any]]:
    with mock_aws():
        _fill(boto3.client("s3", REGION))
        iam = boto3.client("iam", REGION)

        def client(role: str) -> Any:
            iam.create_user(UserName=role)
            iam.put_user_policy(UserName=role, PolicyName=role, PolicyDocument=json.dumps(ROLES[role]))
            key = iam.create_access_key(UserName=role)["AccessKey"]
            pair = {"aws_access_key_id": key["AccessKeyId"], "aws_secret_access_key": key["SecretAccessKey"]}
            return boto3.client("s3", REGION, **pair)

        clients = {role: client(role) for role in ROLES}
        # AWS asks s3:ListBucket of HeadBucket; this store asks for an action of that name, which AWS has not.
        clients["bootstrap"].head_bucket = lambda Bucket: clients["bootstrap"].list_objects_v2(Bucket=Bucket)  # noqa: N803
        yield clients | {OWNER: clients["bootstrap"]}


@contextmanager
def _ceph() -> Iterator[dict[str, Any]]:
    with ceph_store_or_skip() as store:
        clients = {role: store.client(store.role(role, without(policy, UNKNOWN_TO_CEPH))) for role, policy in ROLES.items()}
        _fill(store.client())
        yield clients | {OWNER: store.client()}


def without(policy: dict[str, Any], actions: set[str]) -> dict[str, Any]:
    """A policy that does not speak of some actions."""
    statements = [item | {"Action": [name for name in item["Action"] if name not in actions]} for item in policy["Statement"]]
    return policy | {"Statement": statements}


def _fill(s3: Any) -> None:
    for bucket in BUCKETS:
        s3.create_bucket(Bucket=bucket)
    for name in OBJECTS:
        bucket, _, key = name.partition("/")
        s3.put_object(Bucket=bucket, Key=key, Body=b"content")


def allowed(areas: tuple[str, ...], act: Callable[[Location], object]) -> set[str]:
    """The areas in which an act is not refused."""
    return {area for area in areas if not _is_refused(lambda area=area: act(Location.parse(f"s3://{area}/file")))}


def _is_refused(act: Callable[[], object]) -> bool:
    try:
        act()
    except (GkdError, ClientError) as error:
        if "not allowed" in str(error) or "AccessDenied" in str(error):
            return True
        raise
    return False


def test_every_role_is_tested() -> None:
    assert set(ROLES) == set(READS) == set(WRITES)


@pytest.mark.parametrize("role", sorted(ROLES))
@set_initial_no_auth_action_count(0)
def test_a_role_reads_what_it_must_and_no_more(role: str, client_of: ClientOf, tmp_path: Path) -> None:
    client = client_of(role)

    def read(place: Location) -> None:
        (tmp_path / "file").unlink(missing_ok=True)
        download_file(client, place, tmp_path / "file")

    assert allowed(AREAS, read) == READS[role]
    for area in READS[role]:
        assert [item.name for item in list_objects(client, Location.parse(f"s3://{area}"))] == ["file"]


@pytest.mark.parametrize("role", sorted(ROLES))
@set_initial_no_auth_action_count(0)
def test_a_role_writes_and_removes_what_it_must_and_no_more(role: str, client_of: ClientOf, tmp_path: Path) -> None:
    client = client_of(role)
    (tmp_path / "file").write_bytes(b"new")

    def write(place: Location) -> None:
        client.put_object(Bucket=place.bucket, Key=f"{place.key}.new", Body=b"new")

    def remove(place: Location) -> None:
        client.delete_object(Bucket=place.bucket, Key=f"{place.key}.none")

    assert allowed(AREAS, write) == WRITES[role]
    assert allowed(AREAS, remove) == REMOVES.get(role, set())
    for area in WRITES[role]:  # our own code reads back what it has sent
        upload_file(client, tmp_path / "file", Location.parse(f"s3://{area}/sent"))


@pytest.mark.parametrize("role", ["trainer", "curator"])
@set_initial_no_auth_action_count(0)
def test_what_goes_in_parts_is_allowed_too(role: str, client_of: ClientOf, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"0" * (17 * 2**20))
    place = Location.parse(f"s3://{min(WRITES[role])}/large")
    assert upload_file(client_of(role), tmp_path / "file", place)


@set_initial_no_auth_action_count(0)
def test_the_bootstrap_can_do_its_work(client_of: ClientOf, store_name: str) -> None:
    client = client_of(OWNER)
    encryption = {"moto": ("set", "already so"), "ceph": ("not supported", "not supported")}[store_name]
    first, again = ([finding.state for finding in bootstrap_bucket(client, "gkd-data")] for _ in range(2))
    assert first == ["already so", "set", encryption[0], "set", "set"]
    assert again == ["already so", "already so", encryption[1], "already so", "already so"]
    if store_name == "ceph":
        with pytest.raises(GkdError, match="public access blocked: not allowed"):
            bootstrap_bucket(client_of("bootstrap"), "gkd-data")


@set_initial_no_auth_action_count(0)
def test_who_makes_backups_cannot_remove_them_and_who_removes_them_cannot_read_them(client_of: ClientOf, tmp_path: Path) -> None:
    place = Location.parse("s3://gkd-backup/cluster")
    maker, pruner = (BackupStore(BucketShelf(client_of(role), place)) for role in ("backup", "retention"))
    (tmp_path / "content").write_bytes(b"content")
    key = tmp_path / "backup.key"
    for second in (1, 2):
        maker.keep(tmp_path / "content", f"{second}" * 64)
        dump = Dump(sha256=f"{second}" * 64, size=7, name="gkd_mlflow", kind="sqlite", revision="", server=0)
        made = datetime(2026, 1, 1, 0, 0, second, tzinfo=UTC)
        seal(maker, maker.finish(Backup(made=made, versions={}, databases=(dump,), trees=())), key)
    with pytest.raises(GkdError, match="not allowed"):
        prune(maker, 1, key)
    with pytest.raises(GkdError, match="not allowed"):
        pruner.check("2" * 64, 7)
    assert prune(pruner, 1, key).contents == 1
    assert len(maker.names()) == 1


def test_no_policy_has_a_wildcard_for_actions_or_a_right_on_versions() -> None:
    actions = [action for policy in ROLES.values() for statement in policy["Statement"] for action in statement["Action"]]
    assert not [action for action in actions if "*" in action or "Version" in action.replace("BucketVersioning", "")]
