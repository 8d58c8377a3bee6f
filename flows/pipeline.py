"""The flow `gkd`: from images to the cross-domain matrix."""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from prefect import flow as prefect_flow
from prefect import get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import FlowRun, State
from prefect.flows import Flow
from prefect.runtime import flow_run as this_run

from flows.server import LOGS
from flows.tasks import Job, fetch_task, stage_task
from gkd_core.adapters.dvc_recipe import Outcome
from gkd_core.adapters.mlflow_tracking import FLOW_RUN_TAG, Tracking, source_tags
from gkd_core.adapters.ray_cluster import shared_cluster
from gkd_core.adapters.workspace import (
    anchor_paths,
    create_workspace,
    publish_report,
    sweep_workspaces,
    workspace_in_use,
)
from gkd_core.records import ScoreTable
from gkd_core.settings import Settings, load_settings
from gkd_core.stages import REPORT, StageRun, find_run, plan
from gkd_core.stages.waves import waves

PARAMS = Path("params.yaml")
KEEP_WORKSPACES = 5


def _end_mlflow_runs(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:  # Prefect gives the names
    """Tell MLflow of a flow run whose process could not: it was killed, or cancelled from outside."""
    settings = _settings(flow_run.parameters)
    Tracking(settings, Path.cwd()).close_open_runs(str(flow_run.id), "KILLED" if state.is_cancelling() else "FAILED")


@prefect_flow(name="gkd", on_crashed=[_end_mlflow_runs], on_cancellation=[_end_mlflow_runs], persist_result=False)
def full_pipeline(profile: str | None = None, overrides: list[str] = []) -> dict[str, Any]:  # noqa: B006  # part of Prefect's form
    """Run every stage that is out of date, and publish the matrix.

    Args:
        profile: Shipped profile to use instead of the project's params.yaml, such as demo or camvid.
        overrides: Single settings on top, each as key=value, such as distill_proxy.updates=200.

    Returns:
        where the results lie and what each stage did: small, JSON-able.
    """
    project = Path.cwd()
    settings = _settings({"profile": profile, "overrides": overrides})
    for name in sweep_workspaces(project, KEEP_WORKSPACES):
        get_run_logger().info("removed the old workspace %s", name)
    workspace = create_workspace(project, f"{datetime.now():%Y%m%d-%H%M%S}-{str(this_run.id)[:8]}", settings)
    with workspace_in_use(workspace):
        return _run(project, workspace, anchor_paths(settings, project))


def _run(project: Path, workspace: Path, settings: Settings) -> dict[str, Any]:
    tracking = Tracking(settings, project)
    tags = {FLOW_RUN_TAG: str(this_run.id), "prefect.flow_run_name": str(this_run.name), **source_tags(project)}
    name = f"{settings.method}-seed{settings.seed}-{this_run.name}"
    with tracking.flow_run(name, settings, tags) as parent, shared_cluster(settings, project / LOGS) as cluster:
        job = Job(settings, workspace, cluster, tracking, parent)
        fetch_task(job, project)()
        outcomes = {name: outcome for wave in waves(plan(settings), settings) for name, outcome in _run_wave(job, wave).items()}
        parent.log_datasets(parent.run_id, job.datasets(find_run(settings, "prepare-data", None)))
        table = ScoreTable.read(workspace / REPORT / "matrix.json")
        parent.log_report(table, workspace / REPORT)
    report = publish_report(workspace, project)
    summary = (report / "summary.md").read_text(encoding="utf-8")
    create_markdown_artifact(summary, key="matrix", description="mIoU by method and domain")
    return {
        "workspace": str(workspace),
        "report": str(report),
        "mlflow": tracking.address,
        "mlflow_run": parent.run_id,
        "stages": outcomes,
    }


def _run_wave(job: Job, wave: list[StageRun]) -> dict[str, Outcome]:
    futures = {run.name: stage_task(job, run).submit() for run in wave}
    # Wait for all before a failure is raised, so that nothing still runs when the flow ends.
    for future in futures.values():
        future.wait()
    return {name: future.result() for name, future in futures.items()}


def _settings(parameters: Mapping[str, Any]) -> Settings:
    return load_settings(PARAMS, parameters.get("profile"), parameters.get("overrides") or ())
