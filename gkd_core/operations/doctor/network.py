"""Ports of the local platform, and the services that runs will talk to: do they answer, and let us in?"""

from __future__ import annotations

import shlex
import stat
import tomllib
from collections.abc import Iterable
from ipaddress import ip_address
from urllib.parse import urlsplit

from gkd_core.errors import PlatformError
from gkd_core.operations.doctor.finding import Finding, error, warning, well
from gkd_core.operations.doctor.machine import Machine
from gkd_core.operations.doctor.web import Reply, basic, bearer, password_in, without_password
from gkd_core.paths import ARTIFACTS
from gkd_core.storage.mlflow_store import named_address
from gkd_core.system.loopback import LOOPBACK
from gkd_core.system.platform_state import FOLDER, read_state
from gkd_core.system.server_keys import FILE as KEYS
from gkd_core.system.server_keys import PREFECT_VARIABLE, PROFILE_FILE, USER, ServerKeys, read_keys

DEFAULT_PORTS = {"prefect": 4200, "mlflow": 5000, "worker": 4201}
REFUSED = (401, 403)


def is_loopback(address: str) -> bool:
    """Whether an address that a socket listens on is this machine's own alone."""
    found = ip_address(address)
    mapped = getattr(found, "ipv4_mapped", None)
    return (mapped or found).is_loopback


def check_ports(machine: Machine) -> Iterable[Finding]:
    """Each port of `make up`: free, or held by the platform itself."""
    state = read_state(machine.project)
    ours = {} if state is None else {state.ports[service.name]: service.check for service in state.services}
    for name, port in (DEFAULT_PORTS if state is None else state.ports).items():
        variable = f"{name.upper()}_PORT"
        port = int(machine.environment.get(variable) or port)
        subject = f"port {port}, {name}"
        if machine.is_free(port):
            yield well(subject, "free")
        elif port in ours and machine.get(ours[port], {}).status == 200:
            yield well(subject, "ours")
        else:
            yield warning(subject, "in use, and not by this project's platform", f"make up {variable}=… takes another")


def check_prefect(machine: Machine) -> Iterable[Finding]:
    """The Prefect server of the environment, else of prefect.toml."""
    named = machine.environment.get("PREFECT_API_URL")
    address = named or _address_of_file(machine)
    if address is None:
        yield warning("Prefect server", "none named", "make up, and set PREFECT_API_URL; make demo needs none")
        return
    shown = without_password(address)
    reply = machine.get(f"{address.rstrip('/')}/admin/version", _prefect_access(machine, address))
    installed = machine.version_of("prefect")
    if reply.status == 200:
        version = reply.text.strip().strip('"')
        if installed and version != installed:
            found = f"{shown} is version {version}, here is {installed}"
            yield warning("Prefect server", found, "bring both to one version; a client must not be newer than its server")
        else:
            yield well("Prefect server", f"{shown}, version {version}")
    elif reply.status in REFUSED:
        advice = "set PREFECT_API_AUTH_STRING to user:password of that server (PREFECT_API_KEY for Prefect Cloud)"
        yield error("Prefect server", f"{shown} does not let us in ({reply.status})", advice)
    elif named:
        yield error("Prefect server", _silent(shown, reply), "start it, or correct PREFECT_API_URL")
    else:
        yield warning("Prefect server", _silent(shown, reply), "make up starts it; make demo needs none")


def _address_of_file(machine: Machine) -> str | None:
    file = machine.project / "prefect.toml"
    if not file.exists():
        return None
    address = tomllib.loads(file.read_text(encoding="utf-8")).get("api", {}).get("url")
    return None if address is None else str(address)


def _is_own(machine: Machine, service: str, address: str) -> bool:
    state = read_state(machine.project)
    return state is not None and urlsplit(address).netloc == f"{LOOPBACK}:{state.ports[service]}"


def _own_keys(machine: Machine, service: str, address: str) -> ServerKeys | None:
    """The keys of the project's own platform, where an address is that of a service of it, as our commands use them."""
    if not _is_own(machine, service, address):
        return None
    try:
        return read_keys(machine.project / FOLDER)
    except PlatformError:
        return None  # `check_keys` says so


def _prefect_access(machine: Machine, address: str) -> dict[str, str]:
    environment = machine.environment
    if key := environment.get("PREFECT_API_KEY"):
        return bearer(key)
    if pair := environment.get("PREFECT_API_AUTH_STRING"):
        return basic(pair)
    keys = _own_keys(machine, "prefect", address)
    return {} if keys is None else basic(keys.prefect)


def check_mlflow(machine: Machine) -> Iterable[Finding]:
    """The MLflow store of the environment, else of the settings."""
    address = named_address(machine.settings.tracking.uri, machine.environment)
    if address is None:
        yield well("MLflow store", "a file of the project, artifacts/mlflow/mlflow.db")
        return
    shown = without_password(address)
    if password_in(address):
        yield warning(
            "MLflow store",
            f"the address of {shown} holds a password, which runs may show",
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD keep it apart; PGPASSWORD for a database",
        )
    if not address.startswith(("http://", "https://")):
        yield well("MLflow store", shown)
        return
    path = "/api/2.0/mlflow/experiments/get-by-name?experiment_name=Default"
    reply = machine.get(address.rstrip("/") + path, _mlflow_access(machine, address))
    if reply.status in (200, 404):  # an experiment that is not there is an answer too
        yield well("MLflow store", f"{shown} answers")
    elif reply.status in REFUSED:
        advice = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD; the server's --allowed-hosts must have its name"
        yield error("MLflow store", f"{shown} does not let us in ({reply.status})", advice)
    else:
        yield error("MLflow store", _silent(shown, reply), "start it (make up), or correct MLFLOW_TRACKING_URI")


def _mlflow_access(machine: Machine, address: str) -> dict[str, str]:
    environment = machine.environment
    if token := environment.get("MLFLOW_TRACKING_TOKEN"):
        return bearer(token)
    user, password = environment.get("MLFLOW_TRACKING_USERNAME"), environment.get("MLFLOW_TRACKING_PASSWORD")
    if user and password:
        return basic(f"{user}:{password}")
    keys = _own_keys(machine, "mlflow", address)
    return {} if keys is None else basic(f"{USER}:{keys.mlflow}")


# What each server would answer anybody where it asks for no key.
GUARDED = {"prefect": "/api/admin/version", "mlflow": "/api/2.0/mlflow/experiments/get-by-name?experiment_name=Default"}


def check_doors(machine: Machine) -> Iterable[Finding]:
    """The servers of the project's platform ask for a key, and listen on loopback alone."""
    state = read_state(machine.project)
    if state is None:
        return
    for service in state.services:
        subject, port = f"access to {service.name}", state.ports[service.name]
        if service.name in GUARDED:
            status = machine.get(f"http://{LOOPBACK}:{port}{GUARDED[service.name]}", {}).status
            if status in (200, 404):
                yield error(subject, f"port {port} answers without a key", "make down, then make up: it starts with one")
                continue
            if status not in REFUSED:
                continue
        if beyond := sorted(address for address in machine.listens(port) if not is_loopback(address)):
            found = f"port {port} listens on {', '.join(beyond)}"
            yield error(subject, found, f"stop what does, or make up with another port: {LOOPBACK} alone is meant")
        else:
            yield well(subject, "asks for a key, on loopback alone" if service.name in GUARDED else "on loopback alone")


# Where the servers that we start keep keys and databases, by patterns.
PRIVATE = {
    FOLDER: (KEYS, "env", PROFILE_FILE, "*.db*", "prefect/*.db*"),
    ARTIFACTS / "mlflow": ("*.db*",),
    ARTIFACTS / "prefect": ("key-*", "*.db*"),
}


def check_keys(machine: Machine) -> Iterable[Finding]:
    """Keys and databases of the servers that we start are for their owner alone, and the key goes to them alone."""
    there = [path for folder, names in PRIVATE.items() for name in names for path in (machine.project / folder).glob(name)]
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in sorted(there) if path.exists()}  # SQLite removes some as we look
    open_ones = {path: mode for path, mode in modes.items() if mode & (stat.S_IRWXG | stat.S_IRWXO)}
    for path, mode in open_ones.items():
        yield error("platform's keys", f"{path} has mode {mode:04o}: others can read it", f"chmod 600 {shlex.quote(str(path))}")
    if modes and not open_ones:
        yield well("platform's keys", "keys and databases are yours alone")
    yield from _key_astray(machine)


def _key_astray(machine: Machine) -> Iterable[Finding]:
    """Prefect takes the key of prefect.toml's profile to whatever server the environment names, before one of Prefect Cloud."""
    address = machine.environment.get("PREFECT_API_URL")
    if not address or PREFECT_VARIABLE in machine.environment or not (machine.project / FOLDER / PROFILE_FILE).exists():
        return
    if not _is_own(machine, "prefect", address):
        found = f"PREFECT_API_URL names {without_password(address)}, and prefect signs in there with this platform's key"
        advice = f"set {PREFECT_VARIABLE} to that server's (to nothing for Prefect Cloud), or make down"
        yield warning("platform's keys", found, advice)


def _silent(shown: str, reply: Reply) -> str:
    return f"{shown}: {reply.text}" if reply.status is None else f"{shown} answers with {reply.status}"
