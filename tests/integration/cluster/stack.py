"""What the tests of the cluster ask and do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

import boto3

from gkd_core.records import ScoreTable
from gkd_core.settings import Settings, TrackingSettings, dump_settings
from gkd_core.tracking.open_runs import OpenRuns
from tests.integration.kills.orchestration import PATIENCE, Platform, end_of, forget_all, trained, wait_for
from tests.integration.manifest_servers import Cluster
from tests.integration.ray_hosts import RayHosts

SOURCE = "potsdam-rgb"
DISTILLING = ("distill-proxy", "distill-source")
EVERY = {"distill-proxy": 10, "distill-source": 10, "learn-task": 40}  # updates between two checkpoints
UPDATES = {"distill-proxy": 160, "distill-source": 160, "learn-task": 200}
WEIGHTS = ("distill-proxy/encoder", f"distill-source/{SOURCE}/encoder", f"learn-task/{SOURCE}/segmentor")

End = tuple[dict[str, str], ScoreTable]


@dataclass(frozen=True)
class Stack:
    """The servers, Ray's hosts, and a worker with its project."""

    servers: Cluster
    hosts: RayHosts
    platform: Platform
    settings: Settings

    def forget_all(self, experiment: str) -> None:
        """As if nothing had ever been run: on this machine, on the nodes, and in the bucket. MLflow begins an experiment."""
        forget_all(self.platform.project)
        shutil.rmtree(self.hosts.scratch, ignore_errors=True)
        bucket = self.bucket("gkd-data")
        bucket.objects.filter(Prefix="scratch/").delete()
        own = self.settings.model_copy(update={"tracking": TrackingSettings(experiment=experiment)})
        (self.platform.project / "params.yaml").write_text(dump_settings(own), encoding="utf-8")

    def bucket(self, name: str):  # type: ignore[no-untyped-def]  # boto3 has no types for what it makes
        """A bucket, with somebody's key."""
        access = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
        return boto3.resource("s3", endpoint_url=self.servers.store.url, **access).Bucket(name)

    def end(self) -> End:
        return end_of(self.platform.project, WEIGHTS)

    def trained(self, stage: str) -> list[int]:
        return trained(self.platform.project, stage)

    def wait_for_the_middle(self, stage: str) -> None:
        """Wait until a stage is at work and has made checkpoints."""
        wait_for(lambda: len(self.trained(stage)) > 2 * EVERY[stage], f"{stage} to be in the middle", 3 * PATIENCE)
        assert self.trained(stage)[-1] < UPDATES[stage]

    def disturbed(self, name: str) -> str:
        """Id of a run that has come to the middle of stage one."""
        self.forget_all(name)
        run = self.platform.run()
        self.wait_for_the_middle("distill-proxy")
        return run

    def assert_the_same_end(self, run: str, undisturbed: End, attempts: int = 1) -> None:
        """Each attempt that failed costs the updates since the last checkpoint, no more, and the next goes on from there."""
        self.platform.wait(run, "COMPLETED")
        assert self.end() == undisturbed
        for stage, updates in UPDATES.items():
            steps = self.trained(stage)
            assert set(steps) == set(range(1, updates + 1)), f"{stage}: {sorted(steps)}"
            # Ray may not have noted yet the checkpoint that it was just given.
            assert len(steps) - updates <= (attempts + 1) * EVERY[stage], f"{stage}: {len(steps)} updates were trained"
            again = [step for before, step in pairwise(steps) if step <= before]
            assert all(step > 1 and (step - 1) % EVERY[stage] == 0 for step in again), f"{stage}: went on with {again}"
        self.assert_mlflow_knows_all_ends()

    def assert_mlflow_knows_all_ends(self) -> None:
        wait_for(lambda: not OpenRuns(self.servers.mlflow).by_flow_run(), "MLflow to know of all ends", 60)

    @contextmanager
    def scheduled(self, deployment: str, moment: datetime) -> Iterator[str]:
        """Id of the run that a schedule of its own starts at that moment; the schedule goes with the block."""
        call, a_second = self.platform.call, timedelta(seconds=1)
        identity = call(f"deployments/name/gkd/{deployment}")["id"]
        schedules = f"deployments/{identity}/schedules"
        daily = {"interval": timedelta(days=1).total_seconds(), "anchor_date": moment.isoformat()}
        (schedule,) = call(schedules, [{"schedule": daily, "active": True}])
        ours = {
            "deployments": {"id": {"any_": [identity]}},
            "flow_runs": {"expected_start_time": {"after_": str(moment - a_second), "before_": str(moment + a_second)}},
        }
        try:
            wait_for(lambda: bool(call("flow_runs/filter", ours)), "the schedule to make its run")
            yield str(call("flow_runs/filter", ours)[0]["id"])
        finally:
            call(f"{schedules}/{schedule['id']}", method="DELETE")

    def jobs(self) -> list[dict[str, str]]:
        """Ray's jobs, as its head lists them."""
        return list(json.loads(self.hosts.ask("/api/jobs/", self.hosts.token)))
