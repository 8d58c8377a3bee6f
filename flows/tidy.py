"""The flow behind `gkd/tidy`: cleans up after runs that were killed."""

from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact

from flows.flow_context import settings_of
from flows.reconciliation import Reconciliation, reconcile
from gkd_core.cluster.own_cluster import sweep_folders
from gkd_core.storage.mlflow_store import tracking_address
from gkd_core.versioning.workspace import sweep_workspaces


@flow(name="gkd", persist_result=False)
def tidy() -> dict[str, Any]:
    """End MLflow runs whose flow run has ended, and remove old workspaces and the folders of dead Ray clusters.

    Returns:
        what was done: small, JSON-able.
    """
    project = Path.cwd()
    settings = settings_of({})
    found = reconcile(tracking_address(settings.tracking.uri, project))
    workspaces = sweep_workspaces(project, settings.compute.keep_workspaces, settings.compute.keep_hours)
    clusters = sweep_folders()
    text = summary(found, workspaces, clusters)
    get_run_logger().info(text)
    create_markdown_artifact(text, key="tidy", description="What was tidied up")
    return {"ended": found.ended, "unknown": list(found.unknown), "workspaces": workspaces, "clusters": clusters}


def summary(found: Reconciliation, workspaces: list[str], clusters: list[str]) -> str:
    """What was done, as a list in Markdown; one line where there was nothing to do."""
    lines = [f"- MLflow: the runs of flow run {run} were left RUNNING and are {end} now" for run, end in found.ended.items()]
    lines += [f"- MLflow: flow run {run} is RUNNING, unknown to this Prefect server, and left alone" for run in found.unknown]
    lines += [f"- removed the old workspace {name}" for name in workspaces]
    lines += [f"- removed {folder}, left by a Ray cluster that is gone" for folder in clusters]
    return "\n".join(lines) or "Nothing to tidy up."
