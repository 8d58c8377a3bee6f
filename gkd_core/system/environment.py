"""What a machine's environment lacks or has too much of, made good for this process and all that it starts.

Called where a command line or a flow begins; nothing else of ours changes the environment for such reasons.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import MutableMapping

OWN_HOSTS = ("127.0.0.1", "localhost", "::1")
PROXIES = ("http_proxy", "https_proxy", "all_proxy")
NO_PROXY = ("no_proxy", "NO_PROXY")  # of both, Python's libraries take the first
NAMES = ("LOGNAME", "USER", "LNAME", "USERNAME")  # that getpass looks at before it asks for the entry in /etc/passwd


def prepare_environment(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let our own servers on loopback be reached past a proxy, and have a name for a user id without an entry in /etc/passwd."""
    _spare_loopback(environment)
    _name_user(environment)


def _spare_loopback(environment: MutableMapping[str, str]) -> None:
    if not any(environment.get(name) or environment.get(name.upper()) for name in PROXIES):
        return
    given = next((environment[name] for name in NO_PROXY if environment.get(name)), "")
    hosts = [host.strip() for host in given.split(",") if host.strip()]
    if hosts != ["*"]:
        hosts += [host for host in OWN_HOSTS if host not in hosts]
    environment.update(dict.fromkeys(NO_PROXY, ",".join(hosts)))


def _name_user(environment: MutableMapping[str, str]) -> None:
    """DVC, torch and MLflow ask who runs them, and end in a traceback where nobody can say."""
    if any(environment.get(name) for name in NAMES):
        return
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        environment["USER"] = f"uid-{os.getuid()}"
