"""What MLflow knows of stages that run, of the newest matrix, and of champions."""

from __future__ import annotations

from datetime import datetime

from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from gkd_core.operations.metrics.gauges import Gauges
from gkd_core.storage.mlflow_names import CHAMPION, PLANNED, UPDATES, quoted

MOST_STAGES = 200
MEAN, WORST = "miou/mean_targets", "miou/worst_domain"
OF_STAGES = {
    "gkd_stage_updates": UPDATES,
    "gkd_stage_updates_planned": PLANNED,
    "gkd_stage_images_per_second": "images_per_second",
    "gkd_stage_loss": "loss",
    "gkd_stage_waiting_share": "waiting_share",
}


def read_mlflow(client: MlflowClient, experiment: str, prefix: str, gauges: Gauges) -> None:
    """Set the gauges of an experiment and of the registered models `<prefix>-…`; of an experiment that is not there yet, none.

    Raises:
        MlflowException: the store does not answer, or refuses.
    """
    found = client.get_experiment_by_name(experiment)
    if found is not None:
        running = "tags.kind = 'stage' and attributes.status = 'RUNNING'"
        for run in client.search_runs([found.experiment_id], running, max_results=MOST_STAGES):
            _stage(run, gauges)
        finished = f"tags.kind = 'pipeline' and attributes.status = 'FINISHED' and metrics.`{MEAN}` >= 0"
        order = ["attributes.end_time DESC"]
        for run in client.search_runs([found.experiment_id], finished, max_results=1, order_by=order):
            _matrix(run, gauges)
    for model in client.search_registered_models(f"name LIKE {quoted(prefix + '-%')}"):
        number = model.aliases.get(CHAMPION)
        if number is not None:
            _champion(client, model.name, str(number), gauges)


def _stage(run: Run, gauges: Gauges) -> None:
    labels = (run.data.tags.get("stage", ""), run.data.tags.get("source", ""), run.info.run_id)
    gauges.set("gkd_stage_started_timestamp_seconds", run.info.start_time / 1000, *labels)
    for name, metric in OF_STAGES.items():
        if metric in run.data.metrics:
            gauges.set(name, run.data.metrics[metric], *labels)


def _matrix(run: Run, gauges: Gauges) -> None:
    run_id, metrics = run.info.run_id, run.data.metrics
    gauges.set("gkd_matrix_timestamp_seconds", run.info.end_time / 1000, run_id)
    gauges.set("gkd_matrix_mean_targets_percent", metrics[MEAN], run_id)
    if WORST in metrics:
        gauges.set("gkd_matrix_worst_domain_percent", metrics[WORST], run_id, run.data.tags.get("worst_domain", ""))


def _champion(client: MlflowClient, name: str, number: str, gauges: Gauges) -> None:
    version = client.get_model_version(name, number)
    promoted = version.tags.get("promoted_at")
    # One that another program has pointed at has been champion since nobody knows when: it is as old as it is.
    since = datetime.fromisoformat(promoted).timestamp() if promoted else version.creation_timestamp / 1000
    gauges.set("gkd_champion_promoted_timestamp_seconds", since, name, number)
    if "miou.targets" in version.tags:
        gauges.set("gkd_champion_mean_targets_percent", float(version.tags["miou.targets"]), name, number)
