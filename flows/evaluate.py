"""The flow that measures an existing model, registered or in a folder, on chosen domains."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from prefect import flow as prefect_flow
from prefect import get_run_logger
from prefect.runtime import flow_run as this_run
from prefect.tasks import Task
from pydantic import Field

from flows.artifacts import run_page, show_page, stage_progress
from flows.flow_context import own_workspace, ray_cluster, run_tags, settings_of
from flows.hooks import HOOKS
from flows.tasks import Job, fetch_task, retried_task, stage_task
from gkd_core.evaluate.places import Place
from gkd_core.paths import ARTIFACTS, REPORT
from gkd_core.records import MANIFEST, ScoreTable, SegmentorCheckpoint
from gkd_core.settings import ProfileName, SettingsChanges
from gkd_core.stages import Recipe, run_folder
from gkd_core.stages.facts import EVALUATE, PREPARE_DATA
from gkd_core.stages.length import Length
from gkd_core.stages.measure import NO_TEACHER, chosen_places, measure_run, segmentor_folder
from gkd_core.system.child_process import child_process
from gkd_core.system.last_words import LastWords
from gkd_core.tracking.flow_runs import Tracking
from gkd_core.versioning.recipe import SAID, StageFailed
from gkd_core.versioning.workspace import anchor_paths, publish_report

EVALUATION = ARTIFACTS / "evaluation"
MEASURE = "measure"


@prefect_flow(name="gkd", persist_result=False, **HOOKS)
def evaluate(
    model: Annotated[str, Field(min_length=1)],
    domains: list[str] = [],  # noqa: B006  # part of Prefect's form
    profile: ProfileName | None = None,
    settings: SettingsChanges = SettingsChanges(),  # noqa: B008
    overrides: list[str] = [],  # noqa: B006
) -> dict[str, Any]:
    """Measure a model on domains, by the settings' protocol and on the settings' data. Nothing is trained.

    Args:
        model: models:/NAME@ALIAS, models:/NAME/VERSION, models:/m-ID, runs:/RUN/MODEL, or a segmentor's folder.
        domains: What to measure on, each as dataset/split or a benchmark's name; empty for the benchmarks of the model's source.
        profile: Shipped profile to start from instead of the project's params.yaml.
        settings: Changes to it; what is left out stays as the profile or params.yaml has it.
        overrides: Single settings on top, each as key=value.

    Returns:
        where the results lie: small, JSON-able.
    """
    project = Path.cwd()
    tree = anchor_paths(settings_of({"profile": profile, "settings": settings, "overrides": overrides}), project)
    recipe, folder = Recipe.of(tree), segmentor_folder(model, tree, project)
    # Looked at before anything is started.
    chosen = chosen_places(recipe, folder, domains)
    get_run_logger().info("%s, on %s", model, ", ".join(place.reference for place in chosen))
    with own_workspace(project, tree) as workspace:
        return _run(Subject(model, folder, domains, chosen), project, workspace, recipe)


@dataclass(frozen=True)
class Subject:
    """What is measured: the model as named, its folder here, the domains as named, and their places in the matrix."""

    model: str
    folder: Path
    domains: list[str]
    places: list[Place]


def _run(subject: Subject, project: Path, workspace: Path, recipe: Recipe) -> dict[str, Any]:
    settings = recipe.settings
    tracking = Tracking(settings, project)
    tags = {**run_tags(project, "evaluation"), **model_tags(subject)}
    with (
        tracking.flow_run(f"evaluation-{this_run.name}", settings, tags) as parent,
        ray_cluster(settings, project) as cluster,
    ):
        job = Job(recipe, workspace, cluster, tracking, parent)
        prepare = recipe.find(PREPARE_DATA.name)
        fetch_task(job, project)()
        stages = {prepare.name: stage_task(job, prepare)(), MEASURE: measure_task(job, subject)()}
        parent.log_report(ScoreTable.read(workspace / REPORT / "scores.json"), workspace / REPORT)
    report = publish_report(workspace, project, EVALUATION)
    matrix = (workspace / REPORT / "summary.md").read_text(encoding="utf-8")
    shown = {name: (outcome, job.seconds[name]) for name, outcome in stages.items()}
    show_page("evaluation", lambda: run_page(matrix, shown, report, tracking, parent.run_id), get_run_logger())
    return {
        "workspace": str(workspace),
        "report": str(report),
        "mlflow": tracking.address,
        "mlflow_run": parent.run_id,
        "stages": stages,
    }


def model_tags(subject: Subject) -> dict[str, str]:
    """What is measured, as tags: the model's own facts in the place of the settings'."""
    record = SegmentorCheckpoint.read(subject.folder / MANIFEST)
    return {
        "model": subject.model,
        "model.sha256": record.sha256,
        "source": record.source,
        "method": record.method,
        "seed": str(record.seed),
        "student": record.encoder.arch,
        "teacher": record.teacher or NO_TEACHER,
        "label_fraction": f"{record.label_fraction:g}",
    }


def measure_task(job: Job, subject: Subject) -> Task[[], str]:
    """The task that measures, in a process of its own: it can be stopped, and its memory is freed when it ends."""

    @retried_task(MEASURE)
    def measure() -> str:
        log = get_run_logger()
        started = time.monotonic()
        cluster = job.cluster
        command = ["gkd", MEASURE, str(subject.folder), "--output", str(REPORT)]
        command += [part for name in subject.domains for part in ("--domain", name)]
        notes = run_folder(job.settings, measure_run(subject.folder, REPORT), job.workspace)
        with cluster.turn(EVALUATE.name), stage_progress(MEASURE, _length(job, subject), notes, log):
            cluster.before(EVALUATE.name)
            said = LastWords(job.workspace / SAID / MEASURE)
            with child_process(
                command, cwd=job.workspace, env={**cluster.environment(EVALUATE.name), **said.environment}
            ) as child:
                status = child.wait()
                if status:
                    raise StageFailed(MEASURE, status, said.read())
        job.seconds[MEASURE] = time.monotonic() - started
        log.info("%s: done in %.1f s", MEASURE, job.seconds[MEASURE])
        return "ran"

    return measure


def _length(job: Job, subject: Subject) -> Length:
    origin, catalog = job.recipe.origin(job.workspace), job.recipe.catalog
    references = {place.reference for place in subject.places}
    return Length(sum(origin.count(catalog.domain(reference)) for reference in references), "images")
