"""Runs that are killed in every stage, and started again: the same end as undisturbed, and next to nothing done twice.

One run after the other is killed, each in the next stage, by its own process's end or by its worker's in turn; and each
loses a Ray worker in the stage that it takes up again. The last comes to its end.
"""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from gkd_core.cluster.own_cluster import PREFIX
from gkd_core.records import ScoreTable
from gkd_core.settings import Settings, TrackingSettings, dump_settings, settings_from_tree
from gkd_core.stages import Recipe
from gkd_core.tracking.flow_runs import Tracking
from gkd_core.tracking.open_runs import OpenRuns
from tests.integration.kills.orchestration import PATIENCE, Platform, alive, end_of, forget_all, trained, wait_for

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(3000)]

SOURCE = "potsdam-rgb"
STAGES = ("distill-proxy", "distill-source", "learn-task", "evaluate")
EVERY = {"distill-proxy": 10, "distill-source": 10, "learn-task": 40}  # updates between two checkpoints
UPDATES = {"distill-proxy": 160, "distill-source": 160, "learn-task": 400}
RAY_WORKER = {"distill-proxy": "RayTrainWorker", "distill-source": "RayTrainWorker", "evaluate": "ShardWorker"}
WEIGHTS = ("distill-proxy/encoder", f"distill-source/{SOURCE}/encoder", f"learn-task/{SOURCE}/segmentor")


@pytest.fixture(scope="module")
def settings(tiny_tree: dict[str, Any]) -> Settings:
    """One source, two Ray workers, a checkpoint now and then, and a line of metrics for each update."""

    def lengths(stage: str) -> dict[str, Any]:
        return {"updates": UPDATES[stage], "checkpoint_every": EVERY[stage], "log_every": 1}

    tree = tiny_tree | {
        "data": tiny_tree["data"] | {"benchmarks": ["P2R"]},
        **{key: tiny_tree[key] | lengths(key.replace("_", "-")) for key in ("distill_proxy", "distill_source", "learn_task")},
        "evaluate": tiny_tree["evaluate"] | {"workers": 2},
        "compute": tiny_tree["compute"] | {"workers": 2},
    }
    tree["distill_proxy"] |= {"warm_start": {"updates": 0}}
    return settings_from_tree(tree)


@pytest.fixture
def own(project: Path, settings: Settings, request: pytest.FixtureRequest) -> Iterator[Settings]:
    """The project as if nothing had ever been run in it, with an MLflow experiment of the test's own."""
    own = settings.model_copy(update={"tracking": TrackingSettings(experiment=request.node.name)})
    (project / "params.yaml").write_text(dump_settings(own), encoding="utf-8")
    yield own
    forget_all(project)


@pytest.fixture(scope="module")
def undisturbed(platform: Platform, project: Path) -> tuple[dict[str, str], ScoreTable]:
    """The end of a run that nothing disturbed, in the project as it is."""
    forget_all(project)
    platform.wait(platform.run(), "COMPLETED")
    return end_of(project, WEIGHTS)


def _in_the_middle(platform: Platform, stage: str, before: int) -> bool:
    """Whether the stage is at work, with checkpoints made since it had trained `before` updates."""
    if stage == "evaluate":
        return bool(_ray_workers(platform, stage))
    saved = "ray/checkpoint_manager_snapshot.json" if stage in RAY_WORKER else "training.pt"
    done = len(trained(platform.project, stage)) - before
    return done > 2 * EVERY[stage] and any((platform.project / "artifacts/runs").glob(f"{stage}*/{saved}"))


def _ray_workers(platform: Platform, stage: str) -> list[psutil.Process]:
    found = []
    for process in platform.processes():
        try:
            if RAY_WORKER[stage] in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def _assert_nothing_twice(project: Path, settings: Settings, kills: dict[str, int]) -> None:
    """Only the updates since the last checkpoint were trained again; Ray may not have noted yet the one it was just given."""
    for stage, updates in UPDATES.items():
        steps = trained(project, stage)
        assert set(steps) == set(range(1, updates + 1))
        most = EVERY[stage] * (2 if stage in RAY_WORKER else 1)
        assert len(steps) - updates <= most * kills.get(stage, 0), f"{stage}: {len(steps)} updates were trained"
    tracking = Tracking(settings, project)
    runs = tracking.client.search_runs([tracking.experiment], "attributes.status = 'FINISHED'")
    finished = Counter(run.data.tags["stage"] for run in runs if "stage" in run.data.tags)
    assert finished == Counter(run.name for run in Recipe.of(settings).plan), "each stage came to its end once"


def _assert_nothing_left(platform: Platform, settings: Settings, runs: list[str], started: list[psutil.Process]) -> None:
    wait_for(lambda: not alive(started), f"the end of {alive(started)}", 60)
    assert not [run for run in runs if platform.state(run) in ("RUNNING", "CANCELLING", "PENDING", "SCHEDULED")]
    address = Tracking(settings, platform.project).address
    wait_for(lambda: not OpenRuns(address).by_flow_run(), "MLflow to know of all ends", 60)


def _strike(platform: Platform, victim: str, run: str) -> list[psutil.Process]:
    """Kill a run's process or its worker; all that the worker had started must end by itself. Gives what that was."""
    family = platform.processes()
    if victim == "flow":
        platform.flow_process().kill()
    else:
        assert platform.worker is not None
        platform.worker.kill()
        platform.worker.wait()
    seconds = wait_for(lambda: not alive(family), f"the end of {alive(family)}", 60)
    print(f"{victim} killed: all that it had started was gone after {seconds:.1f} s")
    platform.wait(run, "CRASHED")
    if victim == "worker":
        platform.start_worker()
    return family


@pytest.mark.parametrize("victims", [("flow", "worker"), ("worker", "flow")], ids="-".join)
def test_was_killed_in_each_stage_then_run_again(
    victims: tuple[str, str], platform: Platform, own: Settings, project: Path, request: pytest.FixtureRequest
) -> None:
    runs, started = [platform.run()], []
    for number, stage in enumerate(STAGES):
        wait_for(lambda stage=stage: _in_the_middle(platform, stage, 0), f"{stage} to be in the middle", 3 * PATIENCE)
        started += _strike(platform, victims[number % 2], runs[-1])
        steps = trained(project, stage)
        assert stage == "evaluate" or steps[-1] < UPDATES[stage], "it was killed in the middle"
        runs.append(platform.run())
        if stage in RAY_WORKER:
            before = len(steps)
            wait_for(lambda stage=stage, before=before: _in_the_middle(platform, stage, before), f"{stage} again", 3 * PATIENCE)
            _ray_workers(platform, stage)[-1].kill()
            print(f"{stage}: taken up again, a Ray worker killed after {len(trained(project, stage)) - before} updates")
            assert stage == "evaluate" or trained(project, stage)[-1] < UPDATES[stage], "and so was the Ray worker"
    started += platform.processes()
    platform.wait(runs[-1], "COMPLETED")
    _assert_nothing_twice(project, own, {stage: 2 if stage in RAY_WORKER else 1 for stage in STAGES})
    _assert_nothing_left(platform, own, runs, started)
    assert end_of(project, WEIGHTS) == request.getfixturevalue("undisturbed")


def test_cancel_in_a_ray_stage_ends_all_within_a_minute(platform: Platform, own: Settings, project: Path) -> None:
    run = platform.run("distill_proxy.updates=100000")
    wait_for(lambda: _in_the_middle(platform, "distill-proxy", 0), "distill-proxy to be in the middle")
    started = platform.processes()
    names = " ".join(alive(started))
    expected = ("raylet", "gcs_server", "RayTrainWorker", "stage_process", "gkd_core.system.child_process")
    assert all(name in names for name in expected)
    folders = set(re.findall(rf"{tempfile.gettempdir()}/{PREFIX}\w+", names))
    assert len(folders) == 1
    platform.call(f"flow_runs/{run}/set_state", {"state": {"type": "CANCELLING"}})
    gone = wait_for(lambda: not alive(started), f"the end of {alive(started)}", 60)
    told = wait_for(lambda: platform.state(run) == "CANCELLED", "the run to be Cancelled", 60 - gone)
    print(f"all that the run had started was gone {gone:.1f} s after its cancellation; Prefect said Cancelled {told:.1f} s later")
    _assert_nothing_left(platform, own, [run], started)
    tracking = Tracking(own, project)
    ends = {item.info.status for item in tracking.client.search_runs([tracking.experiment])}
    assert "KILLED" in ends and ends <= {"KILLED", "FINISHED"}
    assert not any(Path(folder).exists() for folder in folders), "no folder of Ray's is left"
