"""The full pipeline on a cluster of several hosts, and the same end when a part of it is killed in the middle."""

from __future__ import annotations

import time
import urllib.error
from datetime import UTC, datetime, timedelta

import pytest
import requests

from gkd_core.registry.versions import Registry
from gkd_core.storage.mlflow_store import CHAMPION
from gkd_core.tracking.flow_runs import Tracking
from gkd_core.tracking.open_runs import OpenRuns
from tests.integration.cluster.canaries import places_of_secrets
from tests.integration.cluster.stack import DISTILLING, SOURCE, UPDATES, End, Stack
from tests.integration.manifest_servers import MLFLOW, PREFECT

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(1800), pytest.mark.xdist_group("ray")]

A_LOOK_OF_THE_SCHEDULER = timedelta(seconds=90)  # it looks at schedules that are new to a deployment once a minute


def test_the_pipeline_by_name_runs_stage_one_on_the_cluster(stack: Stack, undisturbed: End) -> None:
    jobs = [job for job in stack.jobs() if job["type"] == "SUBMISSION"]
    assert [job["status"] for job in jobs] == ["SUCCEEDED", "SUCCEEDED"]
    for stage in DISTILLING:
        assert stack.trained(stage) == list(range(1, UPDATES[stage] + 1)), "its metrics came here, each once"
    assert not OpenRuns(stack.servers.mlflow).by_flow_run()


def test_a_node_is_was_killed(stack: Stack, undisturbed: End) -> None:
    run = stack.disturbed("node")
    stack.hosts.kill_node(2)
    stack.hosts.start_node(2)  # as KubeRay replaces it
    stack.assert_the_same_end(run, undisturbed)


def test_the_store_does_not_answer_for_half_a_minute(stack: Stack, undisturbed: End) -> None:
    run = stack.disturbed("store")
    stack.servers.store.shut()
    time.sleep(30)
    stack.servers.store.open()
    # While it is away, each new group of workers fails at its first checkpoint.
    stack.assert_the_same_end(run, undisturbed, stack.settings.compute.max_failures + 1)


@pytest.mark.parametrize("owner", [PREFECT, MLFLOW], ids=["prefect", "mlflow"])
def test_a_server_is_was_killed(stack: Stack, undisturbed: End, owner: str) -> None:
    run = stack.disturbed(owner.partition("/")[2])
    stack.servers.kill(owner)
    time.sleep(5)
    stack.servers.start(owner)
    stack.assert_the_same_end(run, undisturbed)


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
