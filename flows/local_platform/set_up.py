"""What Prefect's server must know before a flow can be run by name: work pool, deployments, automations.

A process of its own, as Prefect takes seconds to load and reads its address when it does. Doing it again changes nothing.
"""

import fcntl
import sys
from pathlib import Path

import prefect.cli
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.exceptions import ObjectAlreadyExists

from flows.automations import ensure_automations
from flows.local_platform.services import POOL
from gkd_core.errors import GkdError
from gkd_core.system.locks import own_lock_file


def ensure_work_pool() -> None:
    """Make the pool that the deployments name, where it is not there."""
    with get_client(sync_client=True) as client:
        try:
            client.create_work_pool(WorkPoolCreate(name=POOL, type="process"))
        except ObjectAlreadyExists:
            return


def deploy_all() -> None:
    """`prefect --no-prompt deploy --all`, in this process; it ends the process where it fails."""
    sys.argv = ["prefect", "--no-prompt", "deploy", "--all"]
    try:
        prefect.cli.app()
    except SystemExit as end:
        if end.code:
            raise


def main(lock: Path) -> None:
    """Do all of it, one process at a time."""
    with own_lock_file(lock) as descriptor:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        ensure_work_pool()
        deploy_all()
        for name in ensure_automations():  # one of them runs a deployment
            print(f"automation: {name}", flush=True)


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except GkdError as error:
        sys.exit(f"set-up: {error}")
