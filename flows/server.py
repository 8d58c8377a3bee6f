"""A Prefect server of our own: on loopback, with its home in the project, ended with us."""

import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from gkd_core.adapters.child import child_process
from gkd_core.errors import PlatformError
from gkd_core.stages import ARTIFACTS

HOME = ARTIFACTS / "prefect"
LOGS = ARTIFACTS / "logs"
START_SECONDS = 120.0
QUIET = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "true"}
LOOPBACK = "127.0.0.1"


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
        while not self._answers():
            if self._ended():
                raise PlatformError(f"the Prefect server ended at its start; see {self._log}")
            if time.monotonic() > deadline:
                raise PlatformError(f"the Prefect server did not answer within {START_SECONDS:.0f} s; see {self._log}")
            time.sleep(0.1)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/api/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False


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
    # What `prefect server start` runs in the end, without the seconds that the prefect command takes to load.
    command = ["uvicorn", "--factory", "prefect.server.api.server:create_app", "--lifespan", "on"]
    command += ["--host", LOOPBACK, "--port", str(port)]
    log = project / LOGS / "prefect-server.log"
    with child_process(command, cwd=home, env=environment, log=log) as process:
        yield PrefectServer(url, environment, lambda: process.poll() is not None, log)


def _claim(port: int | None) -> int:
    with socket.socket() as probe:
        try:
            probe.bind((LOOPBACK, port or 0))
        except OSError:
            raise PlatformError(f"port {port} is in use; give another with --port, or leave it out for a free one") from None
        bound: int = probe.getsockname()[1]
        return bound
