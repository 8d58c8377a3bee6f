"""Step metrics of a stage, in MLflow as they come."""

from __future__ import annotations

from mlflow.entities import Metric
from mlflow.tracking import MlflowClient

from gkd_core.adapters.mlflow_names import UPDATES
from gkd_core.training.metrics import Line

BATCH = 1000  # metrics that MLflow takes in one call


class StepMetrics:
    """Logs lines of step metrics in batches. A resumed stage repeats steps: each metric's step is logged once."""

    def __init__(self, client: MlflowClient, run_id: str) -> None:
        self._client = client
        self._run_id = run_id
        self._seen: set[tuple[str, int]] = set()

    def __call__(self, lines: list[Line]) -> None:
        """Log what is new in these lines."""
        fresh = []
        for line in lines:
            step, milliseconds = int(line["step"]), int(line["time"] * 1000)
            # The step is a metric too, as a run's page and whoever watches it see the newest values without their steps.
            values = {name: line[name] for name in line.keys() - {"step", "time"}} | {UPDATES: line["step"]}
            for name, value in sorted(values.items()):
                if (name, step) not in self._seen:
                    self._seen.add((name, step))
                    fresh.append(Metric(name, value, milliseconds, step))
        for start in range(0, len(fresh), BATCH):
            self._client.log_batch(self._run_id, metrics=fresh[start : start + BATCH])
