"""Step metrics of a stage, in MLflow as they come."""

from __future__ import annotations

import logging

from mlflow.entities import Metric
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from gkd_core.messages import one_line, shown
from gkd_core.storage.mlflow_errors import PASSING
from gkd_core.storage.mlflow_store import UPDATES
from gkd_core.training.metrics import Line

BATCH = 1000  # metrics that MLflow takes in one call
MOST_REFUSED = 20  # of a batch on end: then it is the run that it refuses
LOG = logging.getLogger(__name__)


class StepMetrics:
    """Logs lines of step metrics in batches. Each metric's step is logged once: a resumed stage repeats steps, and so does who
    hands on lines again that were not accepted."""

    def __init__(self, client: MlflowClient, run_id: str) -> None:
        self._client = client
        self._run_id = run_id
        self._seen: set[tuple[str, int]] = set()
        self._refused: set[str] = set()  # names of metrics, told of

    def __call__(self, lines: list[Line]) -> None:
        """Log what is new in these lines.

        Raises:
            Exception: MLflow does not answer, or refuses all; what it has accepted by then is not logged again.
        """
        fresh: dict[tuple[str, int], Metric] = {}
        for line in lines:
            step, milliseconds = int(line["step"]), int(line["time"] * 1000)
            # The step is a metric too, as a run's page and whoever watches it see the newest values without their steps.
            values = {name: line[name] for name in line.keys() - {"step", "time"}} | {UPDATES: line["step"]}
            for name, value in sorted(values.items()):
                if (name, step) not in self._seen:
                    fresh.setdefault((name, step), Metric(name, value, milliseconds, step))
        metrics = list(fresh.values())
        for start in range(0, len(metrics), BATCH):
            self._log(metrics[start : start + BATCH])

    def _log(self, metrics: list[Metric]) -> None:
        try:
            self._send(metrics)
        except MlflowException as error:
            if error.error_code in PASSING or len(metrics) == 1:
                raise
            self._log_each(metrics)

    def _log_each(self, metrics: list[Metric]) -> None:
        """One by one, as MLflow refuses a batch for any of its metrics; where it refuses all, that is not for what they are."""
        refused: list[Metric] = []
        for number, metric in enumerate(metrics, 1):
            try:
                self._send([metric])
            except MlflowException as error:
                refused.append(metric)
                if error.error_code in PASSING or len(refused) == number == min(len(metrics), MOST_REFUSED):
                    raise
                if metric.key not in self._refused:
                    self._refused.add(metric.key)
                    LOG.warning("MLflow refuses the metric '%s', which is left out (%s)", shown(metric.key), one_line(error))
        self._seen.update((metric.key, metric.step) for metric in refused)

    def _send(self, metrics: list[Metric]) -> None:
        self._client.log_batch(self._run_id, metrics=metrics)
        self._seen.update((metric.key, metric.step) for metric in metrics)
