"""The load itself: the recipe computed once, then many flow runs of it queued at once, all of it judged."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from prefect.client.orchestration import SyncPrefectClient

from flows.server import LOGS
from gkd_core.errors import PlatformError
from gkd_core.system.platform_state import PlatformState, read_state
from gkd_core.system.server_keys import PREFECT_VARIABLE
from gkd_core.versioning.workspace import WORKSPACES

from .databases import Databases
from .figures import Figures, figures
from .judge import History, Trace, judge, slots_held, unfinished, unswept
from .platform import KEEP, make_project, platform
from .queue import Queue, traces
from .use import Use, disk_bytes, groups_of, watched

FIRST_SECONDS = 600.0  # for the run that computes everything
SECONDS_A_RUN = 40.0  # for each of the others, on a slow machine
LOCKED = re.compile("database is locked", re.IGNORECASE)
GROWING = {"workspaces": WORKSPACES, "DVC's cache": Path(".dvc/cache"), "MLflow's files": Path("artifacts/mlflow/artifacts")}


@dataclass(frozen=True)
class Outcome:
    """What came of it.

    Attributes:
        findings: all that is wrong; none where all is well.
        figures: None where a run did not end well.
        database_bytes: of each database, before the queue and after it.
        disk_bytes: what each place has grown by, for each run.
        locked: lines of the servers' logs that say that SQLite's file was locked.
    """

    findings: list[str]
    figures: Figures | None
    use: Use
    database_bytes: dict[str, tuple[int, int]]
    disk_bytes: dict[str, float]
    locked: int


@dataclass(frozen=True)
class _Seen:
    """What was seen of the load while the servers stood."""

    queued: list[str]
    histories: list[History]
    traces: list[Trace]
    others: list[str]
    use: Use
    sizes: dict[str, tuple[int, int]]
    grown: dict[str, float]


def measure(project: Path, runs: int, limit: int, databases: Databases, say: Callable[[str], None]) -> Outcome:
    """Queue the runs in a project of their own, wait for all, and judge.

    Args:
        project: an empty folder.
        say: called with how far it is.

    Raises:
        PlatformError: the platform does not come up, or the recipe fails before there is a load.
    """
    make_project(project, limit)
    with platform(project, databases.environment) as state:
        seen = _load(project, state, runs, databases, say)
    findings = judge(seen.queued, seen.histories, seen.traces, limit)
    well = not findings
    return Outcome(
        findings=[*findings, *seen.others, *databases.unwell_at_rest()],
        figures=figures(seen.histories, limit) if well else None,
        use=seen.use,
        database_bytes=seen.sizes,
        disk_bytes=seen.grown,
        locked=sum(len(LOCKED.findall(log.read_text(errors="replace"))) for log in (project / LOGS).glob("*.log*")),
    )


def _load(project: Path, state: PlatformState, runs: int, databases: Databases, say: Callable[[str], None]) -> _Seen:
    pages = {service.name: service.page for service in state.services}
    # Prefect's settings were read when it was imported, before the platform had a key.
    with SyncPrefectClient(f"{pages['prefect']}/api", auth_string=os.environ[PREFECT_VARIABLE]) as client:
        queue = Queue(client, "gkd/full-pipeline")
        say("computing the recipe once")
        first = _first(queue)
        sizes, places = databases.sizes(), _places(project)
        with watched(lambda: groups_of(_state(project))) as use:
            queued = queue.put(runs)
            left = queue.wait(runs * SECONDS_A_RUN, lambda left: say(f"{left} of {runs} left"))
        say(f"{left} of {runs} left; judging")
        grown = {name: (after - places[name]) / runs for name, after in _places(project).items()}
        tidy = Queue(client, "gkd/tidy")
        tidy.put(1)
        tidy.wait(FIRST_SECONDS)
        workspaces = [path.name for path in (project / WORKSPACES).iterdir() if path.is_dir()]
        others = [
            *unfinished(queue.unfinished_tasks(queued)),
            *slots_held(queue.slots()),
            *unswept(workspaces, KEEP),
            *_restarts(_state(project)),
            *databases.unwell_at_work(),
        ]
        return _Seen(
            queued=[str(run) for run in queued],
            histories=queue.histories(queued),
            traces=traces(pages["mlflow"], without=[first]),
            others=others,
            use=use,
            sizes={name: (sizes[name], after) for name, after in databases.sizes().items()},
            grown=grown,
        )


def _first(queue: Queue) -> str:
    (run,) = queue.put(1)
    queue.wait(FIRST_SECONDS)
    (history,) = queue.histories([run])
    if history.changes[-1].kind != "COMPLETED":
        raise PlatformError(f"the run that computes the recipe is {history.changes[-1].name}; see artifacts/logs/worker.log")
    return str(run)


def _restarts(state: PlatformState) -> list[str]:
    return [f"{service.title} was started again {service.restarts} times" for service in state.services if service.restarts]


def _state(project: Path) -> PlatformState:
    state = read_state(project)
    if state is None:
        raise PlatformError(f"{project}: the platform has ended; see artifacts/logs")
    return state


def _places(project: Path) -> dict[str, int]:
    return {name: disk_bytes(project / place) for name, place in GROWING.items()}
