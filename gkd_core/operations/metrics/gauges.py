"""The gauges by which the platform is watched: their names, and how they are read from MLflow and Prefect."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import requests
from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from prometheus_client.core import GaugeMetricFamily
from requests.auth import HTTPBasicAuth

from gkd_core.storage.mlflow_store import CHAMPION, PLANNED, UPDATES, quoted

STAGE = ("stage", "source", "run_id")
# Name: what it says, and its labels. docs/monitoring.md lists them for users.
GAUGES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "gkd_up": ("Whether a service answered this scrape.", ("service",)),
    "gkd_stage_started_timestamp_seconds": ("When a stage that runs began.", STAGE),
    "gkd_stage_updates": ("Updates that a stage that runs has done.", STAGE),
    "gkd_stage_updates_planned": ("Updates that a stage that runs is to do.", STAGE),
    "gkd_stage_images_per_second": ("Its speed, over its last logged updates.", STAGE),
    "gkd_stage_loss": ("Its loss, at the last logged update.", STAGE),
    "gkd_stage_waiting_share": ("Share of time that training waited for its batches, over its last logged updates.", STAGE),
    "gkd_matrix_timestamp_seconds": ("When the newest matrix was finished.", ("run_id",)),
    "gkd_matrix_mean_targets_percent": ("Mean mIoU over target domains in the newest matrix.", ("run_id",)),
    "gkd_matrix_worst_domain_percent": ("Lowest mIoU of a target domain in the newest matrix.", ("run_id", "domain")),
    "gkd_champion_promoted_timestamp_seconds": ("When the champion was promoted.", ("model", "version")),
    "gkd_champion_mean_targets_percent": ("Mean mIoU over target domains of the champion.", ("model", "version")),
    "gkd_flow_runs": ("Flow runs of Prefect that are in a state now.", ("state",)),
    "gkd_workers_online": ("Workers of the pool that Prefect hears from.", ("pool",)),
    "gkd_work_pool_paused": ("Whether the pool gives out no runs.", ("pool",)),
}


class Gauges:
    """Values of one scrape."""

    def __init__(self) -> None:
        self._families: dict[str, GaugeMetricFamily] = {}

    def set(self, name: str, value: float, *labels: str) -> None:
        """Set one gauge of `GAUGES`, its labels in their order there."""
        text, names = GAUGES[name]
        family = self._families.setdefault(name, GaugeMetricFamily(name, text, labels=names))
        family.add_metric(labels, value)

    @property
    def families(self) -> list[GaugeMetricFamily]:
        """All that were set, by name."""
        return list(self._families.values())


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


SECONDS = 8.0
ADDRESS, KEY = "PREFECT_API_URL", "PREFECT_API_AUTH_STRING"
STATES = ("Late", "Scheduled", "Pending", "AwaitingConcurrencySlot", "Running", "Cancelling", "Failed", "Crashed", "Completed")


def read_prefect(environment: Mapping[str, str], pool: str, gauges: Gauges) -> None:
    """Set the gauges of Prefect's runs and of a work pool; of a pool that is not there, no worker is online.

    Raises:
        RequestException: the server does not answer, or refuses.
    """
    user, _, password = environment.get(KEY, "").partition(":")
    address, key = environment[ADDRESS].rstrip("/"), HTTPBasicAuth(user, password) if user else None
    with requests.Session() as session:
        session.auth = key

        def ask(method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
            answer = session.request(method, f"{address}/{path}", json=body, timeout=SECONDS)
            if answer.status_code == 404:
                return None
            answer.raise_for_status()
            return answer.json()

        for state in STATES:
            count = ask("POST", "flow_runs/count", {"flow_runs": {"state": {"name": {"any_": [state]}}}})
            gauges.set("gkd_flow_runs", count, state)
        found = ask("GET", f"work_pools/{pool}")
        workers = ask("POST", f"work_pools/{pool}/workers/filter", {}) or []
        gauges.set("gkd_workers_online", sum(worker["status"] == "ONLINE" for worker in workers), pool)
        if found is not None:
            gauges.set("gkd_work_pool_paused", float(found["is_paused"]), pool)
