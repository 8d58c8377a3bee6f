"""The flow `compare`: methods × seeds, and the teacher as the upper row, in one matrix."""

from pathlib import Path
from typing import Any

from prefect import flow
from prefect.artifacts import create_markdown_artifact

from flows.hooks import HOOKS
from flows.pipeline import PARAMS, full_pipeline
from flows.server import LOGS
from gkd_core.adapters.ray_cluster import shared_cluster
from gkd_core.evaluate.report import write_report
from gkd_core.files import atomic_folder
from gkd_core.records import Score, ScoreTable
from gkd_core.settings import MethodName, load_settings
from gkd_core.stages import ARTIFACTS, REPORT

COMPARISON = ARTIFACTS / "compare"
UPPER_ROW: MethodName = "teacher"


@flow(name="compare", persist_result=False, **HOOKS)
def compare(
    profile: str | None = None,
    overrides: list[str] = [],  # noqa: B006  # part of Prefect's form
    methods: list[MethodName] = ["no-kd", "single-stage-mse", "two-stage-mse", "gkd"],  # noqa: B006
    seeds: list[int] = [0, 1, 2],  # noqa: B006
) -> dict[str, Any]:
    """Run every method with every seed, one after the other, and write one report of them all.

    Args:
        profile: Shipped profile to use instead of the project's params.yaml.
        overrides: Single settings on top, each as key=value.
        methods: Methods to compare; the teacher's row is added, with the first seed.
        seeds: Seeds to run each method with.

    Returns:
        where the report lies: small, JSON-able.
    """
    project = Path.cwd()
    settings = load_settings(PARAMS, profile, overrides)
    runs = [(UPPER_ROW, seeds[0]), *((method, seed) for method in methods for seed in seeds)]
    scores: list[Score] = []
    with shared_cluster(settings, project / LOGS):
        for method, seed in runs:
            result = full_pipeline(profile, [*overrides, f"method={method}", f"seed={seed}"])
            # Read at once: a later run may sweep this one's workspace.
            scores.extend(ScoreTable.read(Path(result["workspace"]) / REPORT / "matrix.json").scores)
    report = project / COMPARISON
    with atomic_folder(report) as temporary:
        write_report(ScoreTable(scores=tuple(scores)), temporary)
    summary = (report / "summary.md").read_text(encoding="utf-8")
    create_markdown_artifact(summary, key="comparison", description="mIoU, mean ± standard deviation")
    return {"report": str(report)}
