"""A Prefect server and a worker of our own making, so that both can be killed."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import psutil

from flows.server import PrefectServer
from gkd_core.paths import REPORT
from gkd_core.records import ScoreTable, sha256_of
from gkd_core.training.metrics import FILE as METRICS

REPOSITORY = Path(__file__).parents[3]
PATIENCE = 240.0  # a machine that does other work too takes minutes to start a flow
SETUP = {  # as `make up` has it, but that the worker looks for work more often
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
    "PREFECT_CLIENT_MAX_RETRIES": "7",
    "PREFECT_WORKER_QUERY_SECONDS": "2",
}


def wait_for(condition: Callable[[], bool], what: str, seconds: float = PATIENCE) -> float:
    """Seconds until the condition holds."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, f"waited {seconds} s for: {what}"
        time.sleep(0.02)
    return time.monotonic() - began


class Platform:
    """The server, the deployments of one project, and the worker that serves them."""

    def __init__(self, project: Path, server: PrefectServer, prefix: Iterable[str] = ()) -> None:
        self.project, self.url, self._prefix = project, server.url, prefix
        self.environment = {**os.environ, **server.environment, **SETUP, "PWD": str(project), "COLUMNS": "200"}
        self.worker: psutil.Popen | None = None

    @property
    def _headers(self) -> dict[str, str]:
        headers = {"Content-Type": "application/json"}
        if key := self.environment.get("PREFECT_API_AUTH_STRING"):
            headers["Authorization"] = f"Basic {base64.b64encode(key.encode()).decode()}"
        return headers

    def call(self, path: str, body: dict[str, Any] | list[Any] | None = None, method: str | None = None) -> Any:
        """The answer of the server's API; without a method, to a GET, or to a POST where there is a body."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}/api/{path}", data, self._headers, method=method)
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:
                    text = answer.read()
                return json.loads(text) if text else None
            except urllib.error.HTTPError as error:
                # A locked database, where the machine is busy: Prefect's own clients ask again too.
                if error.code != 503 or time.monotonic() > deadline:
                    raise
                time.sleep(1)

    def deploy(self) -> None:
        self.call("work_pools/", {"name": "gkd", "type": "process", "base_job_template": {}})
        command = [str(Path(sys.executable).with_name("prefect")), "--no-prompt", "deploy", "--all"]
        done = subprocess.run(command, cwd=self.project, env=self.environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    def start_worker(self) -> None:
        command = [*self._prefix, str(Path(sys.executable).with_name("prefect")), "worker", "start", "--pool", "gkd"]
        with (self.project / "worker.log").open("ab") as log:
            self.worker = psutil.Popen(
                command, cwd=self.project, env=self.environment, stdout=log, stderr=log, start_new_session=True
            )

    def run(self, *overrides: str) -> str:
        """Id of a new run of gkd/full-pipeline."""
        deployment = self.call("deployments/name/gkd/full-pipeline")["id"]
        made = self.call(f"deployments/{deployment}/create_flow_run", {"parameters": {"overrides": list(overrides)}})
        return str(made["id"])

    def state(self, run: str) -> str:
        return str(self.call(f"flow_runs/{run}")["state"]["type"])

    def wait(self, run: str, *states: str) -> None:
        """Wait for the run to end, which it must in one of these states."""
        ends = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
        wait_for(lambda: self.state(run) in ends, f"run {run} to end", 3 * PATIENCE)
        flow_run = self.call(f"flow_runs/{run}")
        assert flow_run["state"]["type"] in states, flow_run["state"]["message"] + (self.project / "worker.log").read_text()

    def processes(self) -> list[psutil.Process]:
        """All that the worker has started, living yet or ended by now: take it before a kill, look again after it."""
        return self.worker.children(recursive=True) if self.worker is not None and self.worker.is_running() else []

    def flow_process(self) -> psutil.Process:
        (found,) = [process for process in self.processes() if process.cmdline()[-2:] == ["-m", "prefect.engine"]]
        return found

    def stop(self) -> None:
        if self.worker is None:
            return
        for process in [*self.processes(), self.worker]:
            if process.is_running():
                process.kill()
        self.worker.wait()


def alive(processes: list[psutil.Process]) -> list[str]:
    """Command lines of those that still live."""
    lines = []
    for process in processes:
        try:
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                lines.append(" ".join(process.cmdline()))
        except psutil.NoSuchProcess:
            continue
    return lines


def forget_all(project: Path) -> None:
    """Make a project as if nothing had ever been run in it."""
    for folder in (".dvc/cache", "artifacts/runs", "artifacts/workspaces", "artifacts/report"):
        shutil.rmtree(project / folder, ignore_errors=True)


def end_of(project: Path, weights: Iterable[str]) -> tuple[dict[str, str], ScoreTable]:
    """Checksums of the weights, and the matrix, of the one run that came to its end."""
    (workspace,) = [path for path in (project / "artifacts/workspaces").iterdir() if (path / REPORT).exists()]
    digests = {name: sha256_of(workspace / "artifacts" / f"{name}.safetensors") for name in weights}
    return digests, ScoreTable.read(project / REPORT / "matrix.json")


def trained(project: Path, stage: str) -> list[int]:
    """The updates of a stage, in the order in which they were trained; those done again stand there again."""
    files = list((project / "artifacts/runs").glob(f"{stage}*/{METRICS}"))
    return [json.loads(line)["step"] for file in files for line in file.read_text().splitlines() if line.endswith("}")]


def link_project(folder: Path) -> None:
    """Give a project the flows and deployments of the repository."""
    for name in ("flows", "prefect.yaml"):
        (folder / name).symlink_to(REPOSITORY / name)
