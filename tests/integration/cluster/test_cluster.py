"""The full pipeline on a cluster of several hosts, and the same end when a part of it is killed in the middle."""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.error
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import requests

from gkd_core.records import ScoreTable
from gkd_core.registry.versions import Registry
from gkd_core.storage.mlflow_names import CHAMPION
from gkd_core.tracking.flow_runs import Tracking
from gkd_core.tracking.open_runs import OpenRuns
from tests.integration.cluster.canaries import places_of_secrets
from tests.integration.cluster.stack import DISTILLING, EVERY, SOURCE, UPDATES, Stack
from tests.integration.kills.orchestration import wait_for
from tests.integration.manifest_servers import MLFLOW, PREFECT

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(1800)]

A_LOOK_OF_THE_SCHEDULER = timedelta(seconds=90)  # it looks at schedules that are new to a deployment once a minute

End = tuple[dict[str, str], ScoreTable]


@pytest.fixture(scope="module")
def undisturbed(stack: Stack) -> End:
    """The end of a run by name that nothing disturbed."""
    stack.forget_all("undisturbed")
    command = [str(Path(sys.executable).with_name("prefect")), "deployment", "run", "gkd/full-pipeline", "--watch"]
    platform = stack.platform
    done = subprocess.run(command, cwd=platform.project, env=platform.environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr + (platform.project / "worker.log").read_text()
    return stack.end()


def test_the_pipeline_by_name_runs_stage_one_on_the_cluster(stack: Stack, undisturbed: End) -> None:
    jobs = [job for job in stack.jobs() if job["type"] == "SUBMISSION"]
    assert [job["status"] for job in jobs] == ["SUCCEEDED", "SUCCEEDED"]
    for stage in DISTILLING:
        assert stack.trained(stage) == list(range(1, UPDATES[stage] + 1)), "its metrics came here, each once"
    assert not OpenRuns(stack.servers.mlflow).by_flow_run()


def _disturbed(stack: Stack, name: str) -> str:
    """Id of a run that has come to the middle of stage one."""
    stack.forget_all(name)
    run = stack.platform.run()
    stack.wait_for_the_middle("distill-proxy")
    return run


def _assert_the_same_end(stack: Stack, run: str, undisturbed: End, attempts: int = 1) -> None:
    """Each attempt that failed costs the updates since the last checkpoint, no more."""
    stack.platform.wait(run, "COMPLETED")
    assert stack.end() == undisturbed
    for stage, updates in UPDATES.items():
        steps = stack.trained(stage)
        assert set(steps) == set(range(1, updates + 1))
        # Ray may not have noted yet the checkpoint that it was just given.
        assert len(steps) - updates <= (attempts + 1) * EVERY[stage], f"{stage}: {len(steps)} updates were trained"
    wait_for(lambda: not OpenRuns(stack.servers.mlflow).by_flow_run(), "MLflow to know of all ends", 60)


def test_a_node_is_was_killed(stack: Stack, undisturbed: End) -> None:
    run = _disturbed(stack, "node")
    stack.hosts.kill_node(2)
    stack.hosts.start_node(2)  # as KubeRay replaces it
    _assert_the_same_end(stack, run, undisturbed)


def test_the_store_does_not_answer_for_half_a_minute(stack: Stack, undisturbed: End) -> None:
    run = _disturbed(stack, "store")
    stack.servers.store.shut()
    time.sleep(30)
    stack.servers.store.open()
    # While it is away, each new group of workers fails at its first checkpoint.
    _assert_the_same_end(stack, run, undisturbed, stack.settings.compute.max_failures + 1)


@pytest.mark.parametrize("owner", [PREFECT, MLFLOW], ids=["prefect", "mlflow"])
def test_a_server_is_was_killed(stack: Stack, undisturbed: End, owner: str) -> None:
    run = _disturbed(stack, owner.partition("/")[2])
    stack.servers.kill(owner)
    time.sleep(5)
    stack.servers.start(owner)
    _assert_the_same_end(stack, run, undisturbed)


def test_a_schedule_distils_on_the_cluster_and_the_student_becomes_champion(stack: Stack, undisturbed: End) -> None:
    stack.forget_all("scheduled")
    before = {job["submission_id"] for job in stack.jobs()}
    with stack.scheduled("redistill", datetime.now(UTC) + A_LOOK_OF_THE_SCHEDULER) as run:
        stack.platform.wait(run, "COMPLETED")
    assert stack.end() == undisturbed
    assert [job["status"] for job in stack.jobs() if job["submission_id"] not in before] == ["SUCCEEDED", "SUCCEEDED"]
    tracking = Tracking(stack.settings, stack.platform.project)
    student = f"{stack.settings.registry.name}-{SOURCE}"
    assert Registry(tracking.client, tracking.address).aliases(student) == {CHAMPION: "1"}


def test_nobody_gets_in_without_a_key(stack: Stack) -> None:
    with pytest.raises(urllib.error.HTTPError, match="401"):
        stack.hosts.ask("/api/jobs/", None)
    assert requests.post(f"{stack.servers.prefect}/api/work_pools/filter", json={}, timeout=30).status_code == 401
    search = f"{stack.servers.mlflow}/api/2.0/mlflow/experiments/search?max_results=5"
    assert requests.get(search, timeout=60).status_code == 401


def test_no_secret_is_anywhere_but_where_it_belongs(stack: Stack, undisturbed: End) -> None:
    """After all that: in no log, parameter, artifact, record or traceback."""
    assert places_of_secrets(stack) == []
