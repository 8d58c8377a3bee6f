"""The flow `redistill`: checks whether a new student is needed, and if so distils, registers, judges and promotes it."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from prefect import flow as prefect_flow
from prefect import get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run as this_run
from prefect.states import Completed
from pydantic import Field

from flows.automations import NOTHING_TO_DO
from flows.flow_context import ray_cluster, run_tags, settings_of
from flows.hooks import HOOKS
from flows.pipeline import full_pipeline
from flows.promotion import artifact_key, promote, undo_unfinished, verdict_table
from gkd_core.paths import RUNS
from gkd_core.registry.challenge import champion_of, judge, trials_of
from gkd_core.registry.champions import Champions
from gkd_core.registry.retraining import (
    Champion,
    Due,
    FieldLook,
    check_field,
    field_joins,
    field_override,
    seeds_to_run,
    what_is_due,
    with_field,
)
from gkd_core.registry.versions import Registry
from gkd_core.settings import ProfileName, Settings, SettingsChanges
from gkd_core.settings.base import NonNegativeInt
from gkd_core.stages import Recipe
from gkd_core.tracking.flow_runs import Tracking
from gkd_core.versioning.fingerprint_now import fingerprint_now

SCRATCH = RUNS / "registry"
Seeds = Annotated[list[NonNegativeInt], Field(min_length=1)]


@dataclass(frozen=True)
class Look:
    """What a check of the registry found: what each registered model needs, the seeds to run, and whether images of the field
    join the proxy."""

    dues: dict[str, Due]
    seeds: list[int]
    field_joins: bool

    @property
    def reasons(self) -> list[str]:
        return [reason for due in self.dues.values() for reason in due.reasons]


@prefect_flow(name="gkd", persist_result=False, **HOOKS)
def redistill(
    profile: ProfileName | None = None,
    settings: SettingsChanges = SettingsChanges(),  # noqa: B008  # part of Prefect's form
    overrides: list[str] = [],  # noqa: B006
    seeds: Seeds = [0],  # noqa: B006
    max_age_days: Annotated[float, Field(gt=0)] | None = None,
) -> State[dict[str, Any]]:
    """Distil again where the pinned data, the recipe, images from the field or the champion's age ask for it; say which.

    Where none does, end at once.

    Args:
        profile: Shipped profile to start from instead of the project's params.yaml.
        settings: Changes to it; what is left out stays as the profile or params.yaml has it.
        overrides: Single settings on top, each as key=value.
        seeds: Seeds to train where something changed; where age alone asks, as many further ones.
        max_age_days: Age of the champion that asks for a new one; empty takes registry.max_age_days.
    """
    project = Path.cwd()
    tree = settings_of({"profile": profile, "settings": settings, "overrides": overrides})
    tracking = Tracking(tree, project)
    champions = Champions(Registry(tracking.client, tracking.address))
    names = {source: f"{tree.registry.name}-{source}" for source in Recipe.of(tree).sources}
    for name in names.values():
        undo_unfinished(champions, name)
    look = _look(project, tree, champions, list(names.values()), seeds, max_age_days)
    if not look.reasons:
        return _nothing_to_do(look)
    for reason in look.reasons:
        get_run_logger().info("due: %s", reason)
    with tracking.group_run(f"redistill-{this_run.name}", run_tags(project, "redistill")) as group:
        results = _distil(project, tree, look.seeds, profile, settings, [*overrides, *field_override(tree, look.field_joins)])
        decisions = {}
        for source, versions in _register(champions, tracking, results).items():
            name = names[source]
            entry = decisions[name] = _settle(champions, name, versions, tree, project)
            tracking.client.set_tag(group, f"decision.{name}", f"version {entry['version']}: {entry['decision']}")
    return _done(look, decisions, {str(seed): result["stages"] for seed, result in zip(look.seeds, results, strict=True)})


def _look(
    project: Path, settings: Settings, champions: Champions, names: list[str], seeds: list[int], max_age_days: float | None
) -> Look:
    """What is needed, from settings, pins and the registry alone: no Ray, no training."""
    present = {name: champion_of(champions, name) for name in names}
    fields = _fields(project, settings, champions, present)
    joining = field_joins(settings, [champion for champion in present.values() if champion], list(fields.values()))
    now, moment = fingerprint_now(project, with_field(settings) if joining else settings), datetime.now(UTC)
    age = settings.registry.max_age_days if max_age_days is None else max_age_days
    trials = {name: trials_of(champions.registry, name) for name in names}
    dues = {name: what_is_due(name, present[name], trials[name], now, moment, age, fields.get(name)) for name in names}
    known = [trial for found in trials.values() for trial in found if trial.fingerprint == now.digest]
    return Look(dues, seeds_to_run(seeds, known, list(dues.values())), joining)


def _fields(project: Path, settings: Settings, champions: Champions, present: dict[str, Champion | None]) -> dict[str, FieldLook]:
    """How far the images of the field are from what each champion knows, where that is asked and can be said."""
    if settings.registry.field_images is None:
        return {}
    check_field(settings)
    from gkd_core.registry.field import look_at_field  # loads torch, which other looks need not

    found = {}
    for name, champion in present.items():
        if champion is None:
            continue
        look = look_at_field(champions.registry, name, champion.version, settings, project)
        if look is None:
            get_run_logger().warning(
                "%s: version %s was registered without statistics of what it knows, so no image of the field is held against it; "
                "gkd registry register RUN_ID adds them",
                name,
                champion.version,
            )
        else:
            found[name] = look
    return found


def _distil(
    project: Path, tree: Settings, seeds: list[int], profile: ProfileName | None, settings: SettingsChanges, overrides: list[str]
) -> list[dict[str, Any]]:
    """Run the pipeline once for each seed, all on one cluster; what each gives."""
    with ray_cluster(tree, project):
        return [full_pipeline(profile=profile, settings=settings, overrides=[*overrides, f"seed={seed}"]) for seed in seeds]


def _register(champions: Champions, tracking: Tracking, results: list[dict[str, Any]]) -> dict[str, list[str]]:
    """Register the students of finished pipelines; version numbers by source, the best first."""
    from gkd_core.registry.registration import finished_run, register_students  # loads torch, which a look need not

    runs = [finished_run(tracking, Path(result["workspace"]), result["mlflow_run"]) for result in results]
    found = register_students(champions.registry, tracking, runs)
    return {source: [str(version.version) for version in versions] for source, versions in found.items()}


def _settle(champions: Champions, name: str, versions: list[str], settings: Settings, project: Path) -> dict[str, Any]:
    """Judge the best of these versions (the first), and promote it where the gate says so."""
    number = versions[0]
    verdict = judge(champions, name, number, settings.registry)
    log = get_run_logger()
    if verdict is None:
        log.info("%s: version %s is the champion itself, measured again", name, number)
        return {"version": number, "decision": "is the champion", "reasons": []}
    create_markdown_artifact(verdict_table(verdict), key=artifact_key("gate", name), description=f"{name}: {verdict.decision}")
    for reason in verdict.reasons:
        log.info("%s version %s: %s: %s", name, number, verdict.decision, reason)
    if verdict.promote:
        promote(champions, name, number, f"flow run {this_run.id}", verdict, project / SCRATCH, settings.registry.public_key)
        log.info("%s: version %s is champion", name, number)
    return {"version": number, "decision": verdict.decision, "reasons": list(verdict.reasons)}


def _nothing_to_do(look: Look) -> State[dict[str, Any]]:
    words = [due.why_not for due in look.dues.values()]
    message = f"nothing to do: {'; '.join(words)}"
    get_run_logger().info(message)
    create_markdown_artifact("\n".join(["Nothing to do.", "", *(f"- {word}" for word in words)]), key="redistill")
    return Completed(name=NOTHING_TO_DO, message=message, data={"due": [], "trained": False, "models": {}})


def _done(look: Look, decisions: dict[str, dict[str, Any]], stages: dict[str, dict[str, str]]) -> State[dict[str, Any]]:
    summary = "; ".join(f"{name} version {entry['version']}: {entry['decision']}" for name, entry in decisions.items())
    lines = ["## Why", "", *(f"- {reason}" for reason in look.reasons), "", f"Seeds: {', '.join(map(str, look.seeds))}"]
    for name, entry in decisions.items():
        lines += ["", f"## {name} version {entry['version']}: {entry['decision']}", "", *(f"- {it}" for it in entry["reasons"])]
    lines += ["", "## Stages", "", "| seed | stage | |", "|---|---|---|"]
    lines += [f"| {seed} | {stage} | {outcome} |" for seed, found in stages.items() for stage, outcome in found.items()]
    create_markdown_artifact("\n".join(lines), key="redistill", description=summary)
    trained = any(outcome == "ran" for found in stages.values() for outcome in found.values())
    result = {"due": look.reasons, "seeds": look.seeds, "trained": trained, "models": decisions, "stages": stages}
    return Completed(message=f"due: {'; '.join(look.reasons)} — {summary}"[:1000], data=result)
