"""The flow `gkd`: from images to the cross-domain matrix."""

from pathlib import Path
from typing import Any

from prefect import flow as prefect_flow
from prefect import get_run_logger
from prefect.runtime import flow_run as this_run

from flows.artifacts import run_page, show_page
from flows.flow_context import own_workspace, ray_cluster, run_tags, settings_of
from flows.hooks import HOOKS
from flows.tasks import Job, fetch_task, stage_task
from gkd_core.paths import REPORT
from gkd_core.records import ScoreTable
from gkd_core.settings import ProfileName, Settings, SettingsChanges
from gkd_core.stages import Recipe, StageRun
from gkd_core.stages.facts import BUNDLE, ILLUSTRATE, LEARN_TASK, PREPARE_DATA
from gkd_core.stages.waves import waves
from gkd_core.tracking.flow_runs import Tracking, run_name
from gkd_core.versioning.recipe import Outcome
from gkd_core.versioning.workspace import anchor_paths, publish, publish_report


@prefect_flow(name="gkd", persist_result=False, **HOOKS)
def full_pipeline(
    profile: ProfileName | None = None,
    settings: SettingsChanges = SettingsChanges(),  # noqa: B008  # part of Prefect's form
    overrides: list[str] = [],  # noqa: B006
) -> dict[str, Any]:
    """Run every stage that is out of date, and publish the matrix.

    Args:
        profile: Shipped profile to start from instead of the project's params.yaml, such as demo or camvid.
        settings: Changes to it; what is left out stays as the profile or params.yaml has it.
        overrides: Single settings on top, each as key=value, such as distill_proxy.updates=200.

    Returns:
        where the results lie and what each stage did: small, JSON-able.
    """
    project = Path.cwd()
    tree = settings_of({"profile": profile, "settings": settings, "overrides": overrides})
    with own_workspace(project, tree) as workspace:
        return _run(project, workspace, anchor_paths(tree, project))


def _run(project: Path, workspace: Path, settings: Settings) -> dict[str, Any]:
    tracking = Tracking(settings, project)
    name = f"{run_name(settings)}-{this_run.name}"
    with (
        tracking.flow_run(name, settings, run_tags(project, "pipeline")) as parent,
        ray_cluster(settings, project) as cluster,
    ):
        recipe = Recipe.of(settings)
        job = Job(recipe, workspace, cluster, tracking, parent)
        fetch_task(job, project)()
        outcomes = {name: outcome for wave in waves(recipe.plan, settings) for name, outcome in _run_wave(job, wave).items()}
        parent.log_datasets(parent.run_id, job.datasets(recipe.find(PREPARE_DATA.name)))
        table = ScoreTable.read(workspace / REPORT / "matrix.json")
        parent.log_costs()
        parent.log_report(table, workspace / REPORT)
        for run in recipe.plan:
            if run.stage == LEARN_TASK.name:
                parent.note_student(run, workspace)
            if run.stage == ILLUSTRATE.name:
                parent.log_pictures(run, workspace)
    report = publish_report(workspace, project)
    for run in recipe.plan:
        if run.stage == BUNDLE.name:
            publish(workspace, project, run.output)
    matrix = (workspace / REPORT / "summary.md").read_text(encoding="utf-8")
    stages = {name: (outcome, job.seconds[name]) for name, outcome in outcomes.items()}
    show_page("summary", lambda: run_page(matrix, stages, report, tracking, parent.run_id), get_run_logger())
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
