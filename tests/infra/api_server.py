"""A Kubernetes API server with its etcd on loopback, gone with the block. No node: what it takes is never run."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from gkd_core.system.child_process import child_process
from gkd_core.system.loopback import LOOPBACK, answers, free_port

START_SECONDS = 180.0


@dataclass(frozen=True)
class ApiServer:
    """A server that runs.

    Attributes:
        folder: its certificate, the logs, and `kubeconfig` for kubectl.
        version: major and minor.
    """

    folder: Path
    address: str
    session: requests.Session
    version: tuple[int, int]

    def apply(self, item: dict[str, Any], path: str, dry: bool = True) -> requests.Response:
        """Server-side apply, which refuses what its schema does not know."""
        query = {"fieldManager": "gkd-test", "force": "true", "fieldValidation": "Strict"} | ({"dryRun": "All"} if dry else {})
        headers = {"Content-Type": "application/apply-patch+yaml"}
        return self.session.patch(f"{self.address}{path}", yaml.safe_dump(item), params=query, headers=headers, timeout=60)

    def path(self, item: dict[str, Any]) -> str:
        """Where an object of a kind that the server knows lies."""
        group = f"/apis/{item['apiVersion']}" if "/" in item["apiVersion"] else f"/api/{item['apiVersion']}"
        answer = self.session.get(f"{self.address}{group}", timeout=60)
        assert answer.ok, f"{item['apiVersion']}: the server does not know it"
        (kind,) = [each for each in answer.json()["resources"] if each["kind"] == item["kind"] and "/" not in each["name"]]
        within = f"/namespaces/{item['metadata']['namespace']}" if kind["namespaced"] else ""
        return f"{group}{within}/{kind['name']}/{item['metadata']['name']}"


def programs() -> tuple[str, str] | None:
    """etcd and kube-apiserver."""
    found = [os.environ.get(variable) or shutil.which(name) for variable, name in (
        ("TEST_ASSET_ETCD", "etcd"), ("TEST_ASSET_KUBE_APISERVER", "kube-apiserver"))]  # fmt: skip
    return (str(found[0]), str(found[1])) if all(found) else None


@contextmanager
def api_server_or_skip(folder: Path) -> Iterator[ApiServer]:
    """Run one while the block lasts; the test is skipped where there is none."""
    found = programs()
    if found is None:
        pytest.skip("no etcd and kube-apiserver; tests/infra/api-server builds them")
    etcd, server = found
    store, peers, port = (f"http://{LOOPBACK}:{free_port()}", f"http://{LOOPBACK}:{free_port()}", free_port())
    key, token = folder / "accounts.key", secrets.token_hex(20)
    subprocess.run(["openssl", "genrsa", "-out", str(key), "2048"], check=True, capture_output=True)
    (folder / "tokens").write_text(f'{token},administrator,1,"system:masters"\n')
    (folder / "tokens").chmod(0o600)
    data = [
        "--data-dir",
        str(folder / "etcd"),
        "--listen-client-urls",
        store,
        "--advertise-client-urls",
        store,
        "--listen-peer-urls",
        peers,
    ]
    accounts = [
        f"--service-account-signing-key-file={key}",
        f"--service-account-key-file={key}",
        "--service-account-issuer=https://gkd.test",
    ]
    options = [
        f"--etcd-servers={store}",
        f"--bind-address={LOOPBACK}",
        f"--secure-port={port}",
        f"--cert-dir={folder}",
        *accounts,
    ]
    options += [f"--token-auth-file={folder / 'tokens'}", "--authorization-mode=RBAC", "--service-cluster-ip-range=10.0.0.0/24"]
    with child_process([etcd, *data], log=folder / "etcd.log"):
        _until(lambda: answers(f"{store}/health"), folder / "etcd.log")
        # Accounts are made by a controller that does not run here.
        with child_process([server, *options, "--disable-admission-plugins=ServiceAccount"], log=folder / "server.log"):
            session, address = requests.Session(), f"https://{LOOPBACK}:{port}"
            session.headers["Authorization"] = f"Bearer {token}"
            session.trust_env = False
            _until((folder / "apiserver.crt").exists, folder / "server.log")
            session.verify = str(folder / "apiserver.crt")  # made by the server for itself
            _until(lambda: _is_ready(session, address), folder / "server.log")
            version = session.get(f"{address}/version", timeout=60).json()
            yield ApiServer(folder, address, session, (int(version["major"]), int(version["minor"].rstrip("+"))))


def _is_ready(session: requests.Session, address: str) -> bool:
    try:
        return session.get(f"{address}/readyz", timeout=10).ok
    except (requests.ConnectionError, requests.Timeout):
        return False


def _until(holds: Callable[[], bool], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not holds():
        assert time.monotonic() < deadline, f"not ready in {START_SECONDS:.0f} s\n{log.read_text()[-3000:]}"
        time.sleep(0.5)
