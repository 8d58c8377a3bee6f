"""Transfers with a store on loopback that fails, trickles, breaks off and lies: all is there in the end, or an error says why."""

from __future__ import annotations

import hashlib
import io
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from botocore.exceptions import ClientError
from typer.testing import CliRunner

from gkd_core.cli import app
from gkd_core.errors import DataError, GkdError, PlatformError
from gkd_core.operations.bootstrap.buckets import BucketRules, bootstrap_bucket
from gkd_core.storage.client import Patience, connect
from gkd_core.storage.download import Expected, download_file
from gkd_core.storage.keys import Location
from gkd_core.storage.trees import Moved, download_tree, upload_tree
from gkd_core.storage.upload import upload_file, write_once
from tests.integration.s3.faulty_proxy import (
    QUICK,
    SECRET,
    STEADY,
    Fault,
    FaultyProxy,
    failing,
    shortened,
    silent,
    slow,
    sound,
    truncated,
    wrong,
)

pytestmark = pytest.mark.integration

DOGGED = Patience(attempts=12)
BOUND_SECONDS = 40.0


def content(size: int, seed: int = 0) -> bytes:
    return np.random.default_rng(seed).bytes(size)


def put(client: Any, bucket: str, body: bytes) -> tuple[Location, Expected]:
    client.put_object(Bucket=bucket, Key="shards/a.tar", Body=body)
    return Location(bucket, "shards/a.tar"), Expected(len(body), hashlib.sha256(body).hexdigest())


@pytest.mark.parametrize(
    ("fault", "known"),
    [
        pytest.param(failing("500", every=2, first=0), True, id="every second 500"),
        pytest.param(failing("503", every=2, first=0), True, id="every second 503"),
        pytest.param(failing("reset", every=2, first=0), True, id="every second reset"),
        pytest.param(truncated(0.9), True, id="all truncated"),
        pytest.param(truncated(0.0, times=2), False, id="two empty"),
        pytest.param(shortened(times=2), True, id="two short of a byte"),
        pytest.param(shortened(times=2), False, id="two short of a byte, size unknown"),
        pytest.param(wrong(times=2), True, id="two wrong"),
        pytest.param(wrong(times=2), False, id="two wrong, digest from the metadata"),
        pytest.param(slow(4 * 1024**2), True, id="slow, but moving"),
    ],
)
def test_a_file_comes_whole_through_every_passing_fault(
    client: Any, bucket: str, proxy: FaultyProxy, tmp_path: Path, fault: Fault, known: bool
) -> None:
    body = content(1_000_003)
    source = tmp_path / "source"
    source.write_bytes(body)
    place = Location(bucket, "whole/a.tar")
    upload_file(client, source, place)
    expected = Expected(len(body), hashlib.sha256(body).hexdigest()) if known else None
    proxy.misbehave(fault)
    began = time.monotonic()
    receipt = download_file(client, place, tmp_path / "out/a.tar", expected, STEADY)
    assert time.monotonic() - began < BOUND_SECONDS
    assert (tmp_path / "out/a.tar").read_bytes() == body
    assert receipt.verified and receipt.size == len(body)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.tar"]
    assert len(proxy.asked) > 1 or fault.__qualname__.startswith("slow")


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        pytest.param(failing("500", every=1, first=0), "the store answered 500 InternalError", id="500"),
        pytest.param(failing("503", every=1, first=0), "the store answered 503", id="503"),
        pytest.param(failing("reset", every=1, first=0), "the connection broke|no connection", id="reset"),
        pytest.param(truncated(0.0), "ended after 0 of 1000003 bytes", id="truncated"),
        pytest.param(shortened(), "the store has 1000002 bytes of it, its index says 1000003", id="short"),
        pytest.param(wrong(), "with SHA-256 .* came, its index says .* damaged", id="wrong"),
        pytest.param(slow(50_000), "too slow: [0-9]+ of 1000003 bytes came in the time allowed", id="trickle"),
        pytest.param(slow(40), "too slow: [0-9]+ of 1000003 bytes came in the time allowed", id="a byte now and then"),
        pytest.param(silent(3), "no answer in time", id="silent"),
    ],
)
def test_a_lasting_fault_ends_in_one_clear_error_in_time(
    client: Any, bucket: str, proxy: FaultyProxy, tmp_path: Path, fault: Fault, words: str
) -> None:
    place, expected = put(client, bucket, content(1_000_003))
    proxy.misbehave(fault)
    began = time.monotonic()
    with pytest.raises(GkdError, match=f"^s3://a-bucket/shards/a.tar: .*({words})") as raised:
        download_file(connect(QUICK), place, tmp_path / "out/a.tar", expected, QUICK)
    assert time.monotonic() - began < BOUND_SECONDS
    assert "\n" not in str(raised.value) and SECRET not in str(raised.value) and "X-Amz" not in str(raised.value)
    assert not list((tmp_path / "out").iterdir())


def test_a_broken_reply_is_gone_on_with_where_it_broke(client: Any, bucket: str, proxy: FaultyProxy, tmp_path: Path) -> None:
    place, expected = put(client, bucket, content(1000))
    proxy.misbehave(truncated(0.5, times=2))
    download_file(client, place, tmp_path / "a.tar", expected, STEADY)
    assert [asked.range for asked in proxy.asked] == [None, "bytes=500-", "bytes=750-"]


def test_an_object_replaced_meanwhile_is_never_mixed(
    client: Any, bucket: str, proxy: FaultyProxy, tmp_path: Path, upstream: str
) -> None:
    old, new = content(1000, 1), content(1000, 2)
    place, _ = put(client, bucket, old)
    breaking = truncated(0.5, times=1)

    def replace(asked: Any, reply: Any) -> Any:
        broken = breaking(asked, reply)
        if asked.number == 0:
            connect_directly(upstream).put_object(Bucket=bucket, Key=place.key, Body=new)
        return broken

    proxy.misbehave(replace)
    download_file(client, place, tmp_path / "a.tar", patience=STEADY)
    assert (tmp_path / "a.tar").read_bytes() == new


def connect_directly(upstream: str) -> Any:
    import boto3

    return boto3.client("s3", endpoint_url=upstream)


@pytest.mark.parametrize("kind", ["500", "503", "reset"])
def test_trees_survive_every_third_request_failing(bucket: str, proxy: FaultyProxy, tmp_path: Path, kind: str) -> None:
    client = connect(DOGGED)
    root = tmp_path / "tree"
    for number in range(6):
        file = root / f"{number % 3}/{number}.bin"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content(20_000 * number, number))
    place = Location(bucket, f"trees/{kind}")
    proxy.misbehave(failing(kind))
    assert upload_tree(client, root, place, DOGGED, last=["0/0.bin"]) == Moved(6, 6)
    puts = [asked.path for asked in proxy.asked if asked.method == "PUT"]
    assert puts[-1] == f"/a-bucket/trees/{kind}/0/0.bin"
    assert download_tree(client, place, tmp_path / "out", DOGGED) == Moved(6, 6)
    assert files_of(tmp_path / "out") == files_of(root)
    # What is there is not moved again, and what was damaged meanwhile is.
    assert upload_tree(client, root, place, DOGGED) == Moved(6, 0)
    (tmp_path / "out/1/4.bin").write_bytes(content(80_000, 99))
    (tmp_path / "out/2/5.bin").unlink()
    assert download_tree(client, place, tmp_path / "out", DOGGED) == Moved(6, 2)
    assert files_of(tmp_path / "out") == files_of(root)


def files_of(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_a_large_file_goes_in_parts(bucket: str, proxy: FaultyProxy, tmp_path: Path) -> None:
    client = connect(DOGGED)
    source = tmp_path / "large"
    source.write_bytes(content(17 * 1024**2))
    proxy.misbehave(failing("503"))
    assert upload_file(client, source, Location(bucket, "large"))
    assert not upload_file(client, source, Location(bucket, "large"))
    receipt = download_file(client, Location(bucket, "large"), tmp_path / "back")
    assert receipt.verified and (tmp_path / "back").read_bytes() == source.read_bytes()
    assert client.head_object(Bucket=bucket, Key="large")["ETag"].endswith('-2"')


def test_an_upload_that_fails_leaves_no_part_behind(client: Any, bucket: str, proxy: FaultyProxy, tmp_path: Path) -> None:
    source = tmp_path / "large"
    source.write_bytes(content(17 * 1024**2))

    def refuse_parts(asked: Any, reply: Any) -> Any:
        return failing("503", every=1, first=0)(asked, reply) if asked.method == "PUT" else reply

    proxy.misbehave(refuse_parts)
    with pytest.raises(PlatformError, match=r"^s3://a-bucket/unfinished: upload: the store answered 503"):
        upload_file(connect(QUICK), source, Location(bucket, "unfinished"), QUICK)
    assert not client.list_multipart_uploads(Bucket=bucket).get("Uploads")
    assert "unfinished" not in [item["Key"] for item in client.list_objects_v2(Bucket=bucket).get("Contents", [])]


def test_hostile_keys_write_nothing(client: Any, bucket: str, tmp_path: Path) -> None:
    for number, key in enumerate(["../../escape", "/absolute", "a\\b", "a//b"]):
        prefix = f"hostile/{number}"
        client.put_object(Bucket=bucket, Key=f"{prefix}/good.png", Body=b"good")
        client.put_object(Bucket=bucket, Key=f"{prefix}/{key}", Body=b"evil")
        with pytest.raises(DataError, match="it would not be a file below the target"):
            download_tree(client, Location(bucket, prefix), tmp_path / "deep/out", STEADY)
    assert not list(tmp_path.rglob("*.png")) and not (tmp_path / "escape").exists()


def test_a_link_in_the_target_is_not_followed(client: Any, bucket: str, tmp_path: Path) -> None:
    client.put_object(Bucket=bucket, Key="links/sub/file", Body=b"evil")
    (tmp_path / "outside").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out/sub").symlink_to(tmp_path / "outside")
    with pytest.raises(DataError, match="a link or a file stands where key 'sub/file' needs a folder"):
        download_tree(client, Location(bucket, "links"), tmp_path / "out", STEADY)
    assert not list((tmp_path / "outside").iterdir())


def test_a_link_is_not_uploaded(client: Any, bucket: str, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/passwords").symlink_to("/etc/passwd")
    with pytest.raises(DataError, match="passwords: no regular file"):
        upload_tree(client, tmp_path / "tree", Location(bucket, "links-up"))


def test_an_object_and_a_folder_of_one_name_cannot_both_come(client: Any, bucket: str, tmp_path: Path) -> None:
    client.put_object(Bucket=bucket, Key="both/a", Body=b"1")
    client.put_object(Bucket=bucket, Key="both/a/b", Body=b"2")
    with pytest.raises(DataError, match="'a' and 'a/b' cannot both be files"):
        download_tree(client, Location(bucket, "both"), tmp_path / "out", STEADY)


def test_what_has_no_checksum_is_counted(client: Any, bucket: str, tmp_path: Path) -> None:
    client.put_object(Bucket=bucket, Key="foreign/a", Body=io.BytesIO(b"1"))
    client.put_object(Bucket=bucket, Key="foreign/folder/", Body=b"")
    assert download_tree(client, Location(bucket, "foreign"), tmp_path / "out", STEADY) == Moved(1, 1, unverified=1)


def test_what_is_missing_is_named(client: Any, bucket: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^s3://a-bucket/none: download: no such object"):
        download_file(client, Location(bucket, "none"), tmp_path / "x", patience=STEADY)
    with pytest.raises(DataError, match=r"^s3://no-bucket/x: list: no such bucket; make it with `gkd bucket bootstrap`"):
        download_tree(client, Location("no-bucket", "x"), tmp_path / "x", STEADY)
    with pytest.raises(DataError, match=r"^s3://a-bucket/empty: no object there"):
        download_tree(client, Location(bucket, "empty"), tmp_path / "x", STEADY)


def test_no_endpoint_is_said_in_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    began = time.monotonic()
    with pytest.raises(PlatformError, match=r"^s3://bucket/x: download: no connection to the endpoint; check AWS_ENDPOINT_URL"):
        download_file(connect(QUICK), Location("bucket", "x"), tmp_path / "x", patience=QUICK)
    assert time.monotonic() - began < BOUND_SECONDS


def test_no_credentials_are_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(PlatformError, match="no credentials found; set AWS_ACCESS_KEY_ID"):
        download_file(connect(QUICK), Location("bucket", "x"), tmp_path / "x", patience=QUICK)


def test_the_bootstrap_sets_a_bucket_up_and_changes_nothing_again(client: Any, proxy: FaultyProxy) -> None:
    found = bootstrap_bucket(client, "new-bucket", BucketRules(scratch_days=3))
    assert [finding.state for finding in found] == ["made", "set", "set", "set", "set"]
    proxy.misbehave(failing("503"))
    again = bootstrap_bucket(client, "new-bucket", BucketRules(scratch_days=3))
    assert {finding.state for finding in again} == {"already so"}
    assert not [asked for asked in proxy.asked if asked.method == "PUT"]
    proxy.misbehave(sound)
    assert client.get_bucket_versioning(Bucket="new-bucket")["Status"] == "Enabled"
    assert all(client.get_public_access_block(Bucket="new-bucket")["PublicAccessBlockConfiguration"].values())
    rules = {rule["ID"]: rule for rule in client.get_bucket_lifecycle_configuration(Bucket="new-bucket")["Rules"]}
    assert rules["gkd-scratch"]["Expiration"]["Days"] == 3 and rules["gkd-scratch"]["Filter"]["Prefix"] == "scratch/"
    assert rules["gkd-aborted-uploads"]["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"] == 7


def test_others_rules_stay_and_ours_follow_a_change(client: Any) -> None:
    theirs = {"ID": "theirs", "Status": "Enabled", "Filter": {"Prefix": "tmp/"}, "Expiration": {"Days": 1}}
    client.create_bucket(Bucket="their-bucket")
    client.put_bucket_lifecycle_configuration(Bucket="their-bucket", LifecycleConfiguration={"Rules": [theirs]})
    bootstrap_bucket(client, "their-bucket", BucketRules(old_version_days=10))
    found = bootstrap_bucket(client, "their-bucket", BucketRules(old_version_days=20))
    assert {finding.feature: finding.state for finding in found}["lifecycle"] == "set"
    rules = {rule["ID"]: rule for rule in client.get_bucket_lifecycle_configuration(Bucket="their-bucket")["Rules"]}
    assert set(rules) == {"theirs", "gkd-scratch", "gkd-old-versions", "gkd-aborted-uploads"}
    assert rules["gkd-old-versions"]["NoncurrentVersionExpiration"]["NoncurrentDays"] == 20


def test_features_that_a_store_lacks_or_forgets_are_told(client: Any, proxy: FaultyProxy) -> None:
    def poor(asked: Any, reply: Any) -> Any:
        body = b"<Error><Code>NotImplemented</Code></Error>"
        if "publicAccessBlock" in asked.query:
            return type(reply)(501, {"Content-Length": str(len(body))}, body)
        if "versioning" in asked.query and asked.method == "GET":
            empty = b'<VersioningConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/"/>'
            return type(reply)(200, {"Content-Length": str(len(empty))}, empty)
        return reply

    proxy.misbehave(poor)
    found = {finding.feature: finding for finding in bootstrap_bucket(client, "poor-bucket")}
    assert found["public access blocked"].state == "not supported"
    assert "off the internet" in found["public access blocked"].note
    assert found["versioning"].state == "not kept"
    assert found["lifecycle"].state == "set"


def test_the_commands(proxy: FaultyProxy, tmp_path: Path) -> None:
    def run(*arguments: str) -> str:
        result = CliRunner().invoke(app, ["bucket", *arguments], catch_exceptions=False)
        assert result.exit_code == 0
        return result.output

    assert "versioning" in run("bootstrap", "cli-bucket") and "already so" in run("bootstrap", "cli-bucket")
    (tmp_path / "set").mkdir()
    for name in ("index.json", "a.tar", "z.tar"):
        (tmp_path / "set" / name).write_bytes(name.encode())
    proxy.misbehave(sound)
    assert "s3://cli-bucket/p: 3 files, 3 of them sent now" in run("upload", str(tmp_path / "set"), "s3://cli-bucket/p")
    assert [asked.path for asked in proxy.asked if asked.method == "PUT"][-1] == "/cli-bucket/p/index.json"
    assert "3 files, 3 of them fetched now" in run("download", "s3://cli-bucket/p", str(tmp_path / "out"))
    assert files_of(tmp_path / "out") == files_of(tmp_path / "set")


@pytest.mark.parametrize("size", [10, 33 * 1024**2], ids=["whole", "in-parts"])
def test_what_is_written_once_is_not_written_again(bucket: str, tmp_path: Path, size: int) -> None:
    client, place = write_once(connect(QUICK)), Location(bucket, f"once-{size}")
    source = tmp_path / "file"
    source.write_bytes(b"a" * size)
    assert upload_file(client, source, place)
    assert not upload_file(client, source, place), "the same again is no error"
    source.write_bytes(b"b" * size)
    with pytest.raises(DataError, match="written once"):
        upload_file(client, source, place)
    with pytest.raises(ClientError, match="PreconditionFailed"):
        client.put_object(Bucket=bucket, Key=place.key, Body=b"c")
    assert connect(QUICK).get_object(Bucket=bucket, Key=place.key)["Body"].read() == b"a" * size
    assert not connect(QUICK).list_multipart_uploads(Bucket=bucket).get("Uploads")


def test_a_lost_answer_to_what_is_written_once_is_no_error(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client, place = write_once(connect(QUICK)), Location(bucket, "once-lost")
    (tmp_path / "file").write_bytes(b"a")
    send = client.upload_fileobj

    def twice(stream: io.BufferedReader, *arguments: object, **options: object) -> None:
        send(io.BytesIO(b"a"), *arguments, **options)
        send(stream, *arguments, **options)

    monkeypatch.setattr(client, "upload_fileobj", twice)
    assert upload_file(client, tmp_path / "file", place)
