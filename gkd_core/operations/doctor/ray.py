"""Are the Ray clusters that RAY_ADDRESS and `compute.address` name there, and do they let us in?"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from gkd_core.operations.doctor.finding import Finding, error, warning, well
from gkd_core.operations.doctor.machine import Machine

SECONDS = 20


def check_ray(machine: Machine) -> Iterable[Finding]:
    """The clusters, by Ray's own commands, with the token that the environment has."""
    compute = machine.settings.compute
    if compute.elsewhere:
        yield _ask(["job", "list", "--address", compute.address], compute.address, "compute.address", machine)
    address = machine.environment.get("RAY_ADDRESS")
    if not address:
        yield well("Ray", "RAY_ADDRESS is unset: each run starts a cluster of its own")
    elif "://" in address:
        advice = "give host:port of the cluster's head, and run on a machine of the cluster; ray:// and http:// are not used here"
        yield warning("Ray", f"RAY_ADDRESS is {address}", advice)
    else:
        yield _ask(["status", "--address", address], address, "RAY_ADDRESS", machine)


def _ask(question: list[str], address: str, named_by: str, machine: Machine) -> Finding:
    command = [str(Path(sys.executable).with_name("ray")), *question]
    environment = {**os.environ, **machine.environment, "RAY_USAGE_STATS_ENABLED": "0"}
    advice = f"check {named_by}, that the cluster is up, and RAY_AUTH_MODE and RAY_AUTH_TOKEN_PATH"
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False, env=environment)
    except subprocess.TimeoutExpired:
        return error("Ray", f"{address}: no answer within {SECONDS} s", advice)
    except FileNotFoundError:
        return warning("Ray", f"{address}: not looked at, as ray is not installed", "uv pip install -r requirements.txt")
    if done.returncode == 0:
        nodes = done.stdout.count("node_")
        return well("Ray", f"{address} answers" + (f", {nodes} nodes" if nodes else ""))
    return error("Ray", f"{address} does not answer, or does not let us in", advice)
