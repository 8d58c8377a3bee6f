"""A temporary Prefect server: on loopback, with its home in the project, ended with this process."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from gkd_core.errors import PlatformError
from gkd_core.paths import ARTIFACTS
from gkd_core.system.child_process import child_process
from gkd_core.system.loopback import LOOPBACK, answers, free_port, is_free
from gkd_core.system.server_keys import PREFECT_VARIABLE, ServerKeys, make_private, make_private_folder, write_private

HEARTBEAT_SECONDS = 30  # of a flow run: the least that Prefect allows (PREFECT_FLOWS_HEARTBEAT_FREQUENCY)
HOME = ARTIFACTS / "prefect"
LOGS = ARTIFACTS / "logs"
START_SECONDS = 120.0
QUIET = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "true"}
# In its memory, as Prefect has it, leases of concurrency slots are lost when the server is started again, and each flow run
# that held one is ended at its next renewal.
LEASES_ON_DISK = {"PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem"}


class PrefectServer:
    """A server that is starting or running.

    Attributes:
        url: address of its pages.
        environment: variables by which a client in any process finds it and signs in.
        key_file: file with the key, for people who sign in at its pages.
    """

    def __init__(self, url: str, environment: Mapping[str, str], key_file: Path, ended: Callable[[], bool], log: Path) -> None:
        self.url = url
        self.environment = environment
        self.key_file = key_file
        self._ended = ended
        self._log = log

    def wait(self) -> None:
        """Return when the server answers.

        Raises:
            PlatformError: it ended or did not answer in time; the message names its log.
        """
        deadline = time.monotonic() + START_SECONDS
        while not answers(health_of(self.url)):
            if self._ended():
                raise PlatformError(f"the Prefect server ended at its start; see {self._log}")
            if time.monotonic() > deadline:
                raise PlatformError(f"the Prefect server did not answer within {START_SECONDS:.0f} s; see {self._log}")
            time.sleep(0.1)


def guarded(url: str, keys: ServerKeys) -> dict[str, str]:
    """Variables by which a Prefect server asks for its key, and lets no page but its own read what it answers."""
    return {"PREFECT_SERVER_API_AUTH_STRING": keys.prefect, "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": url}


def health_of(url: str) -> str:
    """The address that a Prefect server answers while it is well."""
    return f"{url}/api/health"


def server_command(port: int) -> list[str]:
    """What `prefect server start` runs in the end, without the seconds that the prefect command takes to load."""
    command = ["uvicorn", "--factory", "flows.prefect_app:create_app", "--lifespan", "on"]
    return [*command, "--no-access-log", "--host", LOOPBACK, "--port", str(port)]


@contextmanager
def prefect_server(project: Path, port: int | None = None) -> Iterator[PrefectServer]:
    """Start a server, to be waited for, and stop it with the block. It has a key of its own, removed with it.

    Args:
        port: port to listen on; None takes a free one.

    Raises:
        PlatformError: the port is in use.
    """
    port = _claim(port)
    home = (project / HOME).resolve()
    make_private_folder(home)
    url = f"http://{LOOPBACK}:{port}"
    keys, key_file = ServerKeys.new(), home / f"key-{port}"
    environment = {"PREFECT_API_URL": f"{url}/api", "PREFECT_HOME": str(home), PREFECT_VARIABLE: keys.prefect, **QUIET}
    log = project / LOGS / "prefect-server.log"
    make_private(home / "prefect.db")
    write_private(key_file, f"{keys.prefect}\n")
    try:
        variables = {**environment, **guarded(url, keys), **LEASES_ON_DISK}
        with child_process(server_command(port), cwd=home, env=variables, log=log, last=True) as process:
            yield PrefectServer(url, environment, key_file, lambda: process.poll() is not None, log)
    finally:
        key_file.unlink(missing_ok=True)


def _claim(port: int | None) -> int:
    if port is None:
        return free_port()
    if not is_free(port):
        raise PlatformError(f"port {port} is in use; give another with --port, or leave it out for a free one")
    return port
