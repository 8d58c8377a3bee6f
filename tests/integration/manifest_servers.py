"""A cluster's servers as the manifests start them: arguments, variables and secrets, with a real database.

Each can be killed and started again; the store is behind a gate that can be shut.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import Popen

import psutil
import requests

from gkd_core.system.child_process import child_process
from gkd_core.system.loopback import free_port
from tests.infra.kubernetes import MANIFESTS, REPOSITORY, Manifests, render
from tests.infra.pod_policy import mounted_variables
from tests.integration.gate import Gate
from tests.integration.hosts import DATABASE, ON_LOOPBACK, STORE, Hosts
from tests.integration.postgres import ADMINISTRATOR, PostgresServer, postgres_or_skip
from tests.s3_store import s3_store

START_SECONDS = 240
PREFECT, MLFLOW = "Deployment/prefect-server", "Deployment/mlflow"
MLFLOW_NAMES = "MLFLOW_SERVER_ALLOWED_HOSTS"
HEALTH = {PREFECT: "/api/ready", MLFLOW: "/health"}
# As a pod: nothing can be written but the test's own folder, and no capability is left. (The user stays ours: it may have to
# read a Python that lies in its home.)
CONFINED = """
mount --bind "$0" "$0" && mount -o remount,bind,ro / &&
exec setpriv --no-new-privs --bounding-set=-all --inh-caps=-all "$@"
"""
# Names of the Secrets' keys, and the files that infra/secrets.sh makes.
FILES = {
    ("prefect-auth", "auth"): "prefect-auth", ("prefect-read", "auth"): "prefect-read",
    ("database-admin", "password"): "database-admin",
    ("database-prefect", "password"): "database-prefect", ("database-mlflow", "password"): "database-mlflow",
    ("mlflow-admin", "password"): "mlflow-admin", ("mlflow-admin", "session"): "mlflow-session",
    ("mlflow-worker", "username"): "mlflow-worker-name", ("mlflow-worker", "password"): "mlflow-worker",
    ("mlflow-metrics", "username"): "mlflow-metrics-name", ("mlflow-metrics", "password"): "mlflow-metrics",
}  # fmt: skip


@dataclass(frozen=True)
class Command:
    """What a pod runs, as a command of this machine."""

    command: list[str]
    environment: dict[str, str]


@dataclass
class Cluster:
    """What runs, and the secrets that it runs with.

    Attributes:
        folder: all that the servers may write to; its `secrets` are those of infra/secrets.sh.
        hosts: where they run, by the names of the pods.
        prefect, mlflow: addresses.
        store: the S3 endpoint's gate; its address is what every client is told.
    """

    folder: Path
    manifests: Manifests
    store: Gate
    database: PostgresServer
    hosts: Hosts
    prefect: str = field(init=False)
    mlflow: str = field(init=False)
    _servers: dict[str, Popen[bytes]] = field(default_factory=dict)
    _stacks: dict[str, ExitStack] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.prefect, self.mlflow = (f"http://{self.hosts[name_of(owner)].address}:{free_port()}" for owner in (PREFECT, MLFLOW))

    def secret(self, name: str) -> str:
        return (self.folder / "secrets" / name).read_text().strip()

    def variables(self, owner: str, container: str) -> dict[str, str]:
        """Variables that a pod's entry point makes of its secrets."""
        (pod,) = [pod for pod in self.manifests.pods() if pod.owner == owner]
        (found,) = [item for item in pod.containers if item["name"] == container]
        return {name: self.secret(FILES[key]) for name, key in mounted_variables(found, pod).items()}

    def log(self, owner: str) -> Path:
        return self.folder / f"{name_of(owner)}.log"

    def address(self, owner: str) -> str:
        return {PREFECT: self.prefect, MLFLOW: self.mlflow}[owner]

    def start(self, owner: str) -> None:
        """Start a server and wait until it is well; its log goes on."""
        server = self.command(owner, self._here, self.address(owner))
        stack = self._stacks[owner] = ExitStack()
        before = self.log(owner).read_text() if self.log(owner).exists() else ""
        self._servers[owner] = stack.enter_context(
            child_process(server.command, cwd=self.folder, env=server.environment, log=self.log(owner))
        )
        wait(f"{self.address(owner)}{HEALTH[owner]}", self.log(owner))
        with (self.folder / "earlier.log").open("a") as log:
            log.write(before)

    def kill(self, owner: str) -> None:
        """Strike a server down: SIGKILL to all its processes."""
        for process in psutil.Process(self._servers[owner].pid).children(recursive=True):
            process.kill()
        self._stacks.pop(owner).close()

    def stop(self) -> None:
        for stack in self._stacks.values():
            stack.close()

    @property
    def _here(self) -> dict[str, str]:
        return {
            "PGHOST": self.database.host.address, "PGPORT": str(self.database.port), "AWS_ENDPOINT_URL": self.store.url,
            "MLFLOW_AUTH_CONFIG_PATH": str(self.folder / "basic_auth.ini"),
            "PREFECT_UI_STATIC_DIRECTORY": str(self.folder / "ui"),
        }  # fmt: skip

    def command(self, owner: str, here: dict[str, str], url: str = "") -> Command:
        """A pod's first container as a command of this machine: the entry point, its secrets, its arguments."""
        (pod,) = [pod for pod in self.manifests.pods() if pod.owner == owner]
        container = pod.spec["containers"][0]
        host = self.hosts.get(name_of(owner), self.database.host)
        mounted = self.folder / owner.replace("/", "-")
        mounted.mkdir(exist_ok=True)
        for name, value in self.variables(owner, container["name"]).items():
            (mounted / name).write_text(here.pop(name, value))
        (self.folder / "home").mkdir(exist_ok=True)
        credentials = self.folder / "secrets" / ("store-bootstrap" if "bootstrap" in owner else "store-tracking")
        environment = self.manifests.environment(container)
        environment |= here | {"AWS_SHARED_CREDENTIALS_FILE": str(credentials), "PREFECT_HOME": str(self.folder / "home")}
        environment = {
            name: re.sub(r"\$\((\w+)\)", lambda match: environment[match[1]], value) for name, value in environment.items()
        }
        environment = {name: value.replace("//postgres@", f"//{ADMINISTRATOR}@") for name, value in environment.items()}
        arguments = container["args"]
        if url:
            arguments = [host.address if item == "0.0.0.0" else item for item in arguments]
            arguments[arguments.index("--port") + 1] = url.rpartition(":")[2]
            environment[MLFLOW_NAMES] = f"{environment.get(MLFLOW_NAMES)},{host.address}:*"
        if arguments[0] == "gkd":
            arguments = [sys.executable, "-c", "from gkd_core.cli import main; main()", *arguments[1:]]
        script = REPOSITORY / "infra/images/entrypoint.sh"
        environment |= {"SECRET_ENVIRONMENT": str(mounted), "DO_NOT_TRACK": "1", "TMPDIR": str(self.folder / "home")}
        environment |= {"HOME": str(self.folder / "home"), "PYTHONDONTWRITEBYTECODE": "1"}
        return Command([*host.prefix, *confined(self.folder), "sh", str(script), *arguments], {**os.environ, **environment})

    def bootstrap(self) -> None:
        """What the job of that name does: databases, buckets."""
        bootstrap = self.command("Job/bootstrap", self._here | {"PGPASSWORD": self.database.password})
        done = subprocess.run(bootstrap.command, env=bootstrap.environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


@contextmanager
def manifest_servers(folder: Path, hosts: Hosts = ON_LOOPBACK) -> Iterator[Cluster]:
    """Database, store, Prefect and MLflow of the overlay dev, while the block lasts."""
    subprocess.run([REPOSITORY / "infra/secrets.sh", folder / "secrets"], check=True, capture_output=True)
    manifests = render(MANIFESTS / "overlays" / "dev")
    with (
        s3_store() as store,
        postgres_or_skip(hosts[DATABASE]) as database,
        Gate(int(store.rpartition(":")[2]), hosts[STORE]) as gate,
    ):
        cluster = Cluster(folder, manifests, gate, database, hosts)
        (folder / "basic_auth.ini").write_text(manifests.named("ConfigMap", "mlflow-auth")["data"]["basic_auth.ini"])
        try:
            cluster.bootstrap()
            for owner in (PREFECT, MLFLOW):
                cluster.start(owner)
            yield cluster
        finally:
            cluster.stop()


def name_of(owner: str) -> str:
    """The name of the object that makes a pod."""
    return owner.partition("/")[2]


def confined(folder: Path) -> list[str]:
    """What makes a command's root read-only but for a folder; nothing where we may not do that."""
    prefix = ["unshare", "--mount", "--propagation=private", "sh", "-c", CONFINED, str(folder)]
    allowed = subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode == 0
    return prefix if allowed else []


def wait(url: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            if requests.get(url, timeout=10).ok:
                return
        except requests.RequestException:
            pass
        time.sleep(0.5)
    raise AssertionError(f"{url}: no answer\n{log.read_text()[-3000:]}")
