"""One local Ray cluster for a whole flow run, so that each stage does not have to start its own.

It costs nothing until a stage really runs, starts beside whatever runs first, and is waited for by the first stage that
needs it. A cluster that the user named by RAY_ADDRESS is used as it is.
"""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from contextvars import ContextVar
from pathlib import Path

from gkd_core.cluster.own_cluster import LOOPBACK, OBJECT_STORE_BYTES, START_SECONDS, own_access, own_folder, plain_python
from gkd_core.errors import TransientError
from gkd_core.settings import Settings
from gkd_core.system.child_process import child_process
from gkd_core.system.loopback import free_port

QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DISABLE_IMPORT_WARNING": "1"}
PROMPT = {"RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0"}  # else stopping takes half a minute
# Nobody takes our own machine away at short notice, and the actor that watches for it costs seconds of a core each stage.
# There is room for the workers here, so a group that is not up within Ray's minute is slow on a busy machine, not stuck.
OWN_MACHINE = {"RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0", "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "300"}

_shared: ContextVar[LocalCluster | None] = ContextVar("shared cluster", default=None)


class LocalCluster:
    """A Ray head on loopback with a token of its own, started when first asked for."""

    def __init__(self, workers: int, stages: tuple[str, ...], log: Path) -> None:
        self._workers = workers
        self._stages = stages
        self._log = log
        self._port = free_port()
        self._access = own_access()
        self._stack = ExitStack()
        self._process: subprocess.Popen[bytes] | None = None
        self._turn = threading.Lock()
        self._starting = threading.Lock()

    def environment(self, stage: str) -> dict[str, str]:
        """Variables by which a stage finds the cluster and gets access; none for a stage that does not work on it."""
        return self._environment if self._workers and stage in self._stages else {}

    @property
    def _environment(self) -> dict[str, str]:
        return {"RAY_ADDRESS": f"127.0.0.1:{self._port}", **self._access, **QUIET, **LOOPBACK, **PROMPT, **OWN_MACHINE}

    @contextmanager
    def turn(self, stage: str) -> Iterator[None]:
        """Have the cluster for a stage while the block lasts, where it needs one: it is sized for one at a time."""
        with self._turn if self._workers and stage in self._stages else nullcontext():
            yield

    def before(self, stage: str) -> None:
        """Called before a stage runs: starts the cluster (again if it is lost) and waits for it where the stage needs it.

        Raises:
            TransientError: Ray did not start; the message names its log.
        """
        if self._workers == 0:
            return
        with self._starting:  # runs side by side share it
            if self._process is not None and self._process.poll() is not None:
                self.stop()
                self._process = None
            if self._process is None:
                self._process = self._start()
            process = self._process
        if stage in self._stages:
            self._wait(process)

    def stop(self) -> None:
        """Stop the cluster and remove its files."""
        self._stack.close()

    def _start(self) -> subprocess.Popen[bytes]:
        folder = self._stack.enter_context(own_folder())
        cpus = max(self._workers, os.cpu_count() or 1)
        python = plain_python(folder.path)
        command = [python, str(Path(python).with_name("ray")), "start", "--head", "--block", "--disable-usage-stats"]
        command += ["--node-ip-address=127.0.0.1", f"--port={self._port}", f"--ray-client-server-port={free_port()}"]
        command += [f"--num-cpus={cpus}", "--include-dashboard=false", "--include-log-monitor=false", f"--temp-dir={folder.ray}"]
        command += [f"--object-store-memory={OBJECT_STORE_BYTES}"]
        environment = {name: value for name, value in self._environment.items() if name != "RAY_ADDRESS"}
        # The lock goes with the open file: held until the last of the cluster's guard and of us is gone.
        return self._stack.enter_context(child_process(command, env=environment, log=self._log, pass_fds=[folder.mark.fileno()]))

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_SECONDS
        # Ray prints this once head and raylet are up; the port alone opens earlier.
        while b"Ray runtime started" not in self._log.read_bytes():
            if process.poll() is not None:
                raise TransientError(f"Ray ended at its start; see {self._log}, or set compute.workers=0 to train in one process")
            if time.monotonic() > deadline:
                raise TransientError(f"Ray did not start within {START_SECONDS:.0f} s; see {self._log}")
            time.sleep(0.1)


@contextmanager
def shared_cluster(settings: Settings, stages: tuple[str, ...], logs: Path) -> Iterator[LocalCluster]:
    """The cluster of the surrounding block where there is one (a comparison shares one), else a new one for this block.

    Args:
        stages: names of those that work on it.
    """
    outer = _shared.get()
    if outer is not None:
        yield outer
        return
    cluster = LocalCluster(_workers(settings), stages, logs / "ray.log")
    token = _shared.set(cluster)
    try:
        yield cluster
    finally:
        _shared.reset(token)
        cluster.stop()


def _workers(settings: Settings) -> int:
    """Most workers that any stage has on a cluster of ours; 0 where none needs one."""
    if os.environ.get("RAY_ADDRESS"):
        return 0
    compute = settings.compute
    distilling = 0 if compute.elsewhere else compute.most_workers
    return max(distilling, settings.evaluate.workers)
