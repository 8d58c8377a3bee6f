"""Docker's command on the engine that tests/containers/set-up starts."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
SET_UP = Path(__file__).with_name("set-up")
# As compose.yaml and the manifests start each of our containers.
HARDENED = ("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--tmpfs", "/tmp:mode=1777")
HOME = "/home/gkd:mode=0700,uid=10001,gid=10001"


class EngineError(Exception):
    """There is no engine; the message says why."""


@dataclass(frozen=True)
class Engine:
    """An engine that answers.

    environment: what the commands `docker`, `docker compose` and `docker buildx` find it by.
    """

    environment: Mapping[str, str]

    @classmethod
    def found(cls) -> Engine:
        """The engine of `set-up`; `EngineError` where it cannot run or does not."""
        command = 'variables=$("$0" env) && eval "$variables" && exec env -0'
        done = subprocess.run(["bash", "-c", command, SET_UP], capture_output=True, text=True, check=False)
        if done.returncode:
            raise EngineError(done.stderr.strip() or f"{SET_UP}: exit status {done.returncode}")
        engine = cls(dict(line.split("=", 1) for line in done.stdout.split("\0") if line))
        answer = engine.docker("version", check=False)
        if answer.returncode:
            raise EngineError(f"no engine answers; start it: {SET_UP.relative_to(REPOSITORY)}")
        return engine

    def docker(self, *arguments: str, check: bool = True, seconds: float = 300) -> subprocess.CompletedProcess[str]:
        """A docker command in the project's folder; where it fails and must not, the error shows what it said."""
        return self.command(["docker", *arguments], check=check, seconds=seconds)

    def command(
        self,
        command: Sequence[str | Path],
        *,
        folder: Path = REPOSITORY,
        check: bool = True,
        seconds: float = 300,
        **variables: str,
    ) -> subprocess.CompletedProcess[str]:
        """Any command that calls docker."""
        environment = {**self.environment, **variables}
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=seconds, check=False)
        if check and done.returncode:
            said = (done.stdout + done.stderr)[-6000:]
            raise AssertionError(f"{' '.join(map(str, command))}: exit status {done.returncode}\n{said}")
        return done

    def run(self, image: str, *command: str, options: Sequence[str] = (), check: bool = True) -> subprocess.CompletedProcess[str]:
        """A command in a container as ours are confined, with no network, which is gone afterwards."""
        confined = ("run", "--rm", "--network", "none", *HARDENED, "--tmpfs", HOME)
        return self.docker(*confined, *options, image, *command, check=check)
