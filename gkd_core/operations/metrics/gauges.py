"""The gauges by which the platform is watched: each name once, with what it says."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client.core import GaugeMetricFamily

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
