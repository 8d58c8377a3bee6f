"""The context of every flow run: settings from its parameters, its own workspace, tags in MLflow."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from prefect import get_run_logger
from prefect.runtime import flow_run as this_run

from flows.server import LOGS
from gkd_core.cluster.local import LocalCluster, shared_cluster
from gkd_core.paths import PARAMS
from gkd_core.settings import Changes, Settings, load_settings
from gkd_core.stages.waves import own_ray_stages
from gkd_core.tracking.flow_runs import FLOW_RUN_TAG, source_tags
from gkd_core.versioning.workspace import create_workspace, sweep_workspaces, workspace_in_use


def settings_of(parameters: Mapping[str, Any]) -> Settings:
    """The settings that a flow run's parameters ask for: params.yaml or `profile`, then `settings`, then `overrides`.

    Args:
        parameters: of the flow run, as its function got them or as Prefect's server keeps them.

    Raises:
        SettingsError: they do not fit together; one line for each key.
    """
    changes = parameters.get("settings")
    tree = changes.tree() if isinstance(changes, Changes) else changes
    return load_settings(PARAMS, parameters.get("profile"), parameters.get("overrides") or (), tree)


def ray_cluster(settings: Settings, project: Path) -> AbstractContextManager[LocalCluster]:
    """The Ray cluster of the stages that work on one here, for a block; its log lies in the project."""
    return shared_cluster(settings, own_ray_stages(settings), project / LOGS)


@contextmanager
def own_workspace(project: Path, settings: Settings) -> Iterator[Path]:
    """A workspace of the flow run's own, in use while the block lasts; old ones are swept first."""
    for name in sweep_workspaces(project, settings.compute.keep_workspaces, settings.compute.keep_hours):
        get_run_logger().info("removed the old workspace %s", name)
    workspace = create_workspace(project, f"{datetime.now():%Y%m%d-%H%M%S}-{str(this_run.id)[:8]}", settings)
    with workspace_in_use(workspace):
        yield workspace


def run_tags(project: Path, kind: str) -> dict[str, str]:
    """Tags of the flow run's MLflow run: which flow run it is, of which kind, and the code that runs."""
    own = {FLOW_RUN_TAG: str(this_run.id), "prefect.flow_run_name": str(this_run.name), "kind": kind}
    return {**own, **source_tags(project)}
