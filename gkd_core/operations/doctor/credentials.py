"""Credentials: are they set, complete and private? Their values are never shown."""

from __future__ import annotations

import stat
from collections.abc import Iterable
from pathlib import Path

from gkd_core.operations.doctor.finding import Finding, error, warning, well
from gkd_core.operations.doctor.machine import Machine
from gkd_core.system.own import OTHERS, is_mounted_secret

# Either both or none.
PAIRS = (("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"))
# Files that hold a secret: the variable that names one, and where it lies unless one is named.
FILES = {"RAY_AUTH_TOKEN_PATH": ".ray/auth_token", "AWS_SHARED_CREDENTIALS_FILE": ".aws/credentials", "PGPASSFILE": ".pgpass"}


def check_pairs(machine: Machine) -> Iterable[Finding]:
    """Names with their passwords."""
    for pair in PAIRS:
        given = [name for name in pair if machine.environment.get(name)]
        if len(given) == 1:
            absent = next(name for name in pair if name not in given)
            yield error(pair[0], f"{given[0]} is set, {absent} is not", f"set {absent} too, or neither")
        elif given:
            yield well(pair[0], f"set, with {pair[1]}")


def check_files(machine: Machine) -> Iterable[Finding]:
    """Files that hold a secret: there where they are named, and readable by their owner alone, or mounted."""
    for variable, usual in FILES.items():
        named = machine.environment.get(variable)
        path = Path(named).expanduser() if named else machine.home / usual
        if path.exists():
            yield _judge_mode(variable, path, in_use=bool(named))
        elif named:
            yield error(variable, f"{path} is not there", f"make the file, or unset {variable}")


def _judge_mode(variable: str, path: Path, in_use: bool) -> Finding:
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & OTHERS and is_mounted_secret(path):
        return well(variable, f"{path}, mode {mode:04o}, in a read-only mount: who mounts it decides who reads it")
    if mode & OTHERS:
        report = error if in_use else warning
        return report(variable, f"{path} has mode {mode:04o}: others can read it", f"chmod 600 {path}")
    return well(variable, f"{path}, mode {mode:04o}")


def _named_cluster(machine: Machine) -> str | None:
    """What names a cluster that others can reach."""
    if machine.settings.compute.elsewhere:
        return "compute.address"
    return "RAY_ADDRESS" if machine.environment.get("RAY_ADDRESS") else None


def check_ray_token(machine: Machine) -> Iterable[Finding]:
    """A cluster that others can reach must ask for a token, and we must have it."""
    environment = machine.environment
    path = Path(environment.get("RAY_AUTH_TOKEN_PATH") or machine.home / FILES["RAY_AUTH_TOKEN_PATH"])
    has_token = bool(environment.get("RAY_AUTH_TOKEN")) or path.exists()
    if environment.get("RAY_AUTH_MODE") == "token" and not has_token:
        yield error("Ray token", "RAY_AUTH_MODE=token, and there is none", "set RAY_AUTH_TOKEN_PATH to the cluster's token file")
    elif (named := _named_cluster(machine)) and environment.get("RAY_AUTH_MODE") != "token":
        found = f"{named} names a cluster, and RAY_AUTH_MODE is not token"
        yield warning("Ray token", found, "whoever reaches such a cluster can run code on it: start it with RAY_AUTH_MODE=token")
