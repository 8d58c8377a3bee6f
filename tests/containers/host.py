"""A host on which the platform is set up by the commands of infra/README.md, in a checkout of its own."""

from __future__ import annotations

import base64
import json
import re
import shlex
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.containers.engine import REPOSITORY, Engine

README = REPOSITORY / "infra" / "README.md"
RUN_SECONDS = 1500  # of a flow run, on two cores that do other work too
ENDS = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


def readme_commands(section: str, block: int = 0) -> list[str]:
    """The commands of one block of shell in a section of infra/README.md, without what is said beside them."""
    (text,) = re.findall(rf"^## {re.escape(section)}\. .*?\n(.*?)(?=^## |\Z)", README.read_text(encoding="utf-8"), re.M | re.S)
    lines = re.findall(r"^```sh\n(.*?)^```", text, re.M | re.S)[block].splitlines()
    return [re.split(r"\s+# ", line)[0] for line in lines]


def wait_for(condition: Callable[[], bool], what: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for: {what}"
        time.sleep(1)


@dataclass(frozen=True)
class Host:
    """A checkout, and the ports of its platform.

    ports: of 127.0.0.1, by the variable of infra/compose/.env that says them.
    """

    engine: Engine
    checkout: Path
    ports: Mapping[str, int]
    variables: Mapping[str, str]

    def shell(self, command: str, seconds: float = 900) -> str:
        """What a line of the README prints; its ports are those of this host."""
        for name, port in (("PREFECT_PORT", "4200"), ("MLFLOW_PORT", "5000")):
            command = command.replace(f"127.0.0.1:{port}", f"127.0.0.1:{self.ports[name]}")
        script = ["bash", "-euo", "pipefail", "-c", command]
        done = self.engine.command(script, folder=self.checkout, seconds=seconds, **self.variables)
        return done.stdout + done.stderr

    def compose(self, *arguments: str, seconds: float = 300) -> str:
        return self.shell(shlex.join(["docker", "compose", "--file", "infra/compose/compose.yaml", *arguments]), seconds)

    def inside(self, service: str, *command: str) -> str:
        return self.compose("exec", "-T", service, *command)

    def containers(self) -> dict[str, dict[str, Any]]:
        """What the engine says of each service's container."""
        ids = self.compose("ps", "--all", "--quiet").split()
        found = json.loads(self.engine.docker("inspect", *ids).stdout)
        return {each["Config"]["Labels"]["com.docker.compose.service"]: each for each in found}

    def secret(self, name: str) -> str:
        return (self.checkout / "infra" / "compose" / "secrets" / name).read_text(encoding="utf-8").strip()

    def ask(self, port: str, path: str, key: str | None, body: object = None) -> Any:
        """The answer of a server; `key` is user:password, or Ray's token."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.ports[port]}{path}", data)
        request.add_header("Content-Type", "application/json")
        if key is not None:
            basic = f"Basic {base64.b64encode(key.encode()).decode()}"
            request.add_header("Authorization", basic if ":" in key else f"Bearer {key}")
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read() or "null")

    def prefect(self, path: str, body: object = None) -> Any:
        return self.ask("PREFECT_PORT", f"/api/{path}", self.secret("prefect-auth"), body)

    def start(self, deployment: str, **parameters: object) -> str:
        """Id of a new flow run."""
        identity = self.prefect(f"deployments/name/gkd/{deployment}")["id"]
        return str(self.prefect(f"deployments/{identity}/create_flow_run", {"parameters": parameters})["id"])

    def state(self, run: str) -> str:
        """The type of a flow run's state; empty while the server is away."""
        try:
            return str(self.prefect(f"flow_runs/{run}")["state"]["type"])
        except (urllib.error.URLError, ConnectionError):
            return ""

    def end(self, run: str, state: str) -> None:
        """Wait for a flow run's end, which must be this one."""
        wait_for(lambda: self.state(run) in ENDS, f"flow run {run} to end", RUN_SECONDS)
        found = self.prefect(f"flow_runs/{run}")["state"]
        if found["type"] != state:
            logs = self.compose("logs", "--no-color", "--tail", "80", "prefect-worker", "ray-head", "ray-worker")
            raise AssertionError(f"{found['type']}: {found['message']}\n{logs}")

    def steps(self, stage: str) -> list[int]:
        """The updates of a stage that the worker knows of, of all of its runs, in the order in which they were trained."""
        script = f"cat artifacts/runs/{stage}*/metrics.jsonl 2>/dev/null || true"
        return [json.loads(line)["step"] for line in self.inside("prefect-worker", "sh", "-c", script).splitlines()]
