"""A Prefect server of our own: on loopback, with its home in the project, ended with us."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from gkd_core.adapters.child import child_process
from gkd_core.errors import PlatformError
from gkd_core.loopback import LOOPBACK, answers, free_port, is_free
from gkd_core.stages import ARTIFACTS

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
        environment: variables by which a client in any process finds it.
    """

    def __init__(self, url: str, environment: Mapping[str, str], ended: Callable[[], bool], log: Path) -> None:
        self.url = url
        self.environment = environment
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


def health_of(url: str) -> str:
    """The address that a Prefect server answers while it is well."""
    return f"{url}/api/health"


def server_command(port: int) -> list[str]:
    """What `prefect server start` runs in the end, without the seconds that the prefect command takes to load."""
    command = ["uvicorn", "--factory", "prefect.server.api.server:create_app", "--lifespan", "on"]
    return [*command, "--no-access-log", "--host", LOOPBACK, "--port", str(port)]


@contextmanager
def prefect_server(project: Path, port: int | None = None) -> Iterator[PrefectServer]:
    """Start a server, to be waited for, and stop it with the block.

    Args:
        port: port to listen on; None takes a free one.

    Raises:
        PlatformError: the port is in use.
    """
    port = _claim(port)
    home = (project / HOME).resolve()
    home.mkdir(parents=True, exist_ok=True)
    url = f"http://{LOOPBACK}:{port}"
    environment = {"PREFECT_API_URL": f"{url}/api", "PREFECT_HOME": str(home), **QUIET}
    log = project / LOGS / "prefect-server.log"
    with child_process(server_command(port), cwd=home, env={**environment, **LEASES_ON_DISK}, log=log) as process:
        yield PrefectServer(url, environment, lambda: process.poll() is not None, log)


def _claim(port: int | None) -> int:
    if port is None:
        return free_port()
    if not is_free(port):
        raise PlatformError(f"port {port} is in use; give another with --port, or leave it out for a free one")
    return port
