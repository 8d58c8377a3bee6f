"""Ceph's object gateway on loopback, which keeps to IAM's policies; gone with the block, and all that it holds with it.

Three processes of Debian's packages: a monitor, one store of objects in memory, the gateway. Only the gateway is asked.
"""

from __future__ import annotations

import json
import secrets
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import pytest

from gkd_core.system.child_process import child_process
from gkd_core.system.loopback import LOOPBACK, answers, free_port

PROGRAMS = ("ceph", "ceph-mon", "ceph-osd", "ceph-authtool", "monmaptool", "radosgw", "radosgw-admin")
REGION = "us-east-1"
START_SECONDS = 120.0
CONF = """[global]
fsid = {fsid}
mon_host = v2:{host}:{port}/0
public_network = 127.0.0.0/8
keyring = {folder}/keyring
run_dir = {folder}
admin_socket = {folder}/$name.sock
log_file =
pid_file =
# Warnings of a cluster that has to last, and room that it keeps free.
mon_data_avail_crit = 0
mon_data_avail_warn = 0
mon_allow_pool_size_one = true
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 1
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
mon_data = {folder}/monitor
osd_data = {folder}/objects
osd_objectstore = memstore
memstore_device_bytes = 1073741824
[client.rgw]
rgw_data = {folder}/gateway
rgw_frontends = beast endpoint={host}:{gateway_port}
"""
RIGHTS = {
    "mon.": ("mon", "allow *"),
    "client.admin": ("mon", "allow *", "osd", "allow *", "mgr", "allow *", "mds", "allow *"),
    "osd.0": ("mon", "allow profile osd", "osd", "allow *", "mgr", "allow profile osd"),
    "client.rgw": ("mon", "allow rwx", "osd", "allow rwx"),
}


@dataclass(frozen=True)
class CephStore:
    """A gateway that runs.

    Attributes:
        folder: its files; `*.log` tell what its processes said.
        key: access key and secret of its administrator, whom no policy binds in his own buckets.
    """

    address: str
    folder: Path
    key: tuple[str, str] = field(repr=False)

    def client(self, key: tuple[str, str] | None = None, service: str = "s3") -> Any:
        """A client of the administrator, or of another key."""
        access, secret = key or self.key
        return boto3.client(service, REGION, endpoint_url=self.address, aws_access_key_id=access, aws_secret_access_key=secret)

    def role(self, name: str, policy: dict[str, Any]) -> tuple[str, str]:
        """Make a user who may do what a policy says and nothing else; gives the key."""
        key = (name, secrets.token_hex(20))
        _admin(
            self.folder,
            "user",
            "create",
            f"--uid={name}",
            f"--display-name={name}",
            f"--access-key={key[0]}",
            f"--secret={key[1]}",
        )
        self.client(service="iam").put_user_policy(UserName=name, PolicyName=name, PolicyDocument=json.dumps(policy))
        return key


@contextmanager
def ceph_store_or_skip() -> Iterator[CephStore]:
    """Run one while the block lasts; the test is skipped where Ceph is not installed."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)} (Debian: apt-get install radosgw ceph-mon ceph-osd)")
    folder = Path(tempfile.mkdtemp(prefix="gkd-ceph-"))
    try:
        with ExitStack() as stack:
            yield _start(folder, stack)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _start(folder: Path, stack: ExitStack) -> CephStore:
    port, gateway_port, fsid = free_port(), free_port(), str(uuid.uuid4())
    (folder / "ceph.conf").write_text(CONF.format(folder=folder, host=LOOPBACK, port=port, gateway_port=gateway_port, fsid=fsid))
    for name in ("monitor", "objects", "gateway"):
        (folder / name).mkdir()
    keyring = str(folder / "keyring")
    _run("ceph-authtool", "--create-keyring", keyring)
    for name, rights in RIGHTS.items():
        words = [word for kind, right in zip(rights[::2], rights[1::2], strict=True) for word in ("--cap", kind, right)]
        _run("ceph-authtool", keyring, "--gen-key", "--name", name, *words)
    monmap = str(folder / "monmap")
    _run("monmaptool", "--create", "--fsid", fsid, "--addv", "a", f"[v2:{LOOPBACK}:{port}]", monmap)

    def run(program: str, *words: str) -> None:
        _run(program, *_conf(folder), *words)

    def serve(program: str, *words: str) -> None:
        stack.enter_context(child_process([program, *_conf(folder), *words, "-d"], log=folder / f"{program}.log"))

    run("ceph-mon", "--mkfs", "--id", "a", "--monmap", monmap, "--keyring", keyring)
    serve("ceph-mon", "--id", "a")
    disk = str(uuid.uuid4())
    run("ceph", "--connect-timeout", "60", "osd", "new", disk)
    run("ceph-osd", "--id", "0", "--mkfs", "--osd-uuid", disk)
    serve("ceph-osd", "--id", "0")
    serve("radosgw", "--name", "client.rgw")
    address = f"http://{LOOPBACK}:{gateway_port}"
    _wait(address, folder)
    key = ("administrator", secrets.token_hex(20))
    identity = ("--uid=administrator", "--display-name=administrator", f"--access-key={key[0]}", f"--secret={key[1]}")
    _admin(folder, "user", "create", *identity, "--caps=user-policy=*")
    return CephStore(address, folder, key)


def _wait(address: str, folder: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not answers(address):
        logs = "\n".join(path.read_text()[-1500:] for path in sorted(folder.glob("*.log")))
        assert time.monotonic() < deadline, f"{address}: no answer in {START_SECONDS:.0f} s\n{logs}"
        time.sleep(0.2)


def _conf(folder: Path) -> tuple[str, ...]:
    return ("--conf", str(folder / "ceph.conf"))


def _admin(folder: Path, *words: str) -> None:
    _run("radosgw-admin", *_conf(folder), *words)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=START_SECONDS)
    assert done.returncode == 0, f"{command[0]}: {done.stderr[-2000:]}"
