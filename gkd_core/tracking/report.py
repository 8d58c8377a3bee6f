"""A report in MLflow: scores as flat metrics, each with its model and its data, tables, a note, and the report's files."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlflow.entities import LoggedModelInput, Metric, RunTag
from mlflow.tracking import MlflowClient

from gkd_core.records import Score, ScoreTable
from gkd_core.reports.findings import findings, headline
from gkd_core.reports.rows import PAPER_MEANS, matrix_lines, paper_mean_lines, pool, source_mean, target_mean

REPORT_FOLDER = "report"
NOTE_TAG = "mlflow.note.content"  # what MLflow shows as a run's or an experiment's description
NOTE_LIMIT = 8000  # characters that a tag may have
WORST_TAG = "worst_domain"
COLUMNS = ("method", "teacher", "student", "seed", "label_fraction", "benchmark", "domain", "in_domain", "miou", "images")
EXPERIMENT_NOTE = """\
Each run here is one student's way from images to the cross-domain matrix; its children are the stages that really ran.

- Compare: select runs, then **Compare**; or show the columns `miou/mean_targets`, `miou/worst_domain`, `miou/source_gap`,
  `cost/seconds`, `cost/gpu_hours`, `cost/parameters_millions` and sort by one of them.
- Filter: `tags.kind = "pipeline"` leaves the runs of students; `tags.method`, `tags.student`, `tags.label_fraction` and
  `tags.seed` tell them apart.
- The same in a terminal, and as one page of HTML: `gkd compare --html comparison.html`.
"""


def matrix_metrics(table: ScoreTable) -> dict[str, float]:
    """Flat metrics of one student's scores, in % mIoU: one for each cell of the matrix, and what sums them up."""
    return {_cell_name(score): score.miou for score in table.scores} | summary_metrics(table)


def summary_metrics(table: ScoreTable) -> dict[str, float]:
    """Mean over targets, mean over sources' own splits, the worst target, what is lost between source and target, and the paper's
    means that were measured whole (`miou/avg_G`, `miou/avg_A`, `miou/avg_P`)."""
    metrics = {
        f"miou/{name.replace(' ', '_')}": mean for row in pool(table) for name in PAPER_MEANS for mean in row.paper_mean(name)
    }
    targets = [score.miou for score in table.scores if not score.in_domain]
    if targets:
        metrics |= {"miou/mean_targets": target_mean(table.scores), "miou/worst_domain": min(targets)}
    if len(targets) < len(table.scores):
        metrics["miou/mean_in_domain"] = source_mean(table.scores)
    if metrics.keys() >= {"miou/mean_targets", "miou/mean_in_domain"}:
        metrics["miou/source_gap"] = metrics["miou/mean_in_domain"] - metrics["miou/mean_targets"]
    return metrics


def log_student_report(
    client: MlflowClient, run_id: str, table: ScoreTable, folder: Path, models: Mapping[str, str], data: Mapping[str, str]
) -> None:
    """Log one student's report to its run.

    Args:
        models: id of the logged model of each source, where it has one: its page then shows its scores.
        data: digest of each `dataset/split`, where it is known.
    """
    now = int(time.time() * 1000)
    cells = [
        Metric(
            _cell_name(score),
            score.miou,
            now,
            0,
            model_id=models.get(score.source),
            dataset_name=score.dataset if score.dataset in data else None,
            dataset_digest=data.get(score.dataset),
        )
        for score in table.scores
    ]
    sums = [Metric(name, value, now, 0) for name, value in summary_metrics(table).items()]
    targets = [score for score in table.scores if not score.in_domain]
    worst = min(targets, key=lambda score: score.miou) if targets else None
    tags = [] if worst is None else [RunTag(WORST_TAG, f"{worst.benchmark}/{worst.domain}")]
    client.log_batch(run_id, metrics=cells + sums, tags=tags)
    used = [LoggedModelInput(model_id) for model_id in dict.fromkeys(models.values())]
    if used:
        client.log_inputs(run_id, models=used)
    log_tables(client, run_id, table, folder)


def log_tables(client: MlflowClient, run_id: str, table: ScoreTable, folder: Path) -> None:
    """Log the scores and the IoU of every class as tables that MLflow can show, and the report's files."""
    client.log_table(
        run_id, {name: [getattr(score, name) for score in table.scores] for name in COLUMNS}, f"{REPORT_FOLDER}/table.json"
    )
    client.log_table(run_id, class_table(table), f"{REPORT_FOLDER}/classes.json")
    client.log_artifacts(run_id, str(folder), REPORT_FOLDER)


def class_table(table: ScoreTable) -> dict[str, list[Any]]:
    """Columns of the table of classes by domains, a line a student and class; None where a class has no pixels."""
    lines: dict[tuple[str, str, int, float, str], dict[str, float | None]] = {}
    for score in table.scores:
        for name, iou in score.class_iou.items():
            key = (score.method, score.student, score.seed, score.label_fraction, name)
            lines.setdefault(key, {})[f"{score.benchmark} {score.domain}"] = iou
    heads = ("method", "student", "seed", "label_fraction", "class")
    columns: dict[str, list[Any]] = {head: [key[place] for key in lines] for place, head in enumerate(heads)}
    for cell in dict.fromkeys(f"{score.benchmark} {score.domain}" for score in table.scores):
        columns[cell] = [line.get(cell) for line in lines.values()]
    return columns


def note(table: ScoreTable, cost: str) -> str:
    """A run's description: what the matrix shows, the matrix, and the cost; without the matrix where it would be too long."""
    rows = pool(table)
    shows = [f"- {line}" for line in (*headline(rows), *findings(rows))]
    foot = ["", cost] if cost else []
    papers = paper_mean_lines(rows)
    whole = "\n".join([*shows, "", *matrix_lines(rows), *(["", *papers] if papers else []), *foot])
    return (
        whole
        if len(whole) <= NOTE_LIMIT
        else "\n".join([*shows, "", "The matrix is in the artifacts, report/report.html.", *foot])
    )


def _cell_name(score: Score) -> str:
    return f"miou/{score.benchmark}/{'in_domain' if score.in_domain else score.domain}"
