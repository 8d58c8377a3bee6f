"""MLflow's runs that are open: found by the flow run that began them, and ended where nobody else can end them."""

from __future__ import annotations

import os

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when mlflow is imported
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # the page of a run has its address

from pathlib import Path
from typing import Literal

from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from gkd_core.storage.mlflow_errors import explained
from gkd_core.tracking.flow_runs import FLOW_RUN_TAG

End = Literal["FINISHED", "FAILED", "KILLED"]
PAGE = 1000


class OpenRuns:
    """The open runs of all experiments of a store; a run's experiment is a setting, and settings may be what is broken."""

    def __init__(self, address: str) -> None:
        """Connect to a store.

        Raises:
            PlatformError: it cannot be used; a TransientError where it does not answer.
        """
        self._address = address
        self._experiments: list[str] = []
        file = address.removeprefix("sqlite:///")
        if file != address and not Path(file).is_file():
            return  # nothing was ever logged, and asking would make the file
        with explained(address):
            self._client = MlflowClient(address)
            self._experiments = [experiment.experiment_id for experiment in self._client.search_experiments()]

    def by_flow_run(self) -> dict[str, list[str]]:
        """Ids of the runs that are RUNNING, by the id of the Prefect flow run that they are tagged with."""
        found: dict[str, list[str]] = {}
        for run in self._search(f"attributes.status = 'RUNNING' and tags.`{FLOW_RUN_TAG}` LIKE '%'"):
            found.setdefault(run.data.tags[FLOW_RUN_TAG], []).append(run.info.run_id)
        return found

    def end(self, flow_run: str, status: End) -> int:
        """End what a flow run left open; returns how many runs that were."""
        runs = self._search(f"attributes.status = 'RUNNING' and tags.`{FLOW_RUN_TAG}` = '{flow_run}'")
        with explained(self._address):
            for run in runs:
                self._client.set_terminated(run.info.run_id, status)
        return len(runs)

    def _search(self, query: str) -> list[Run]:
        runs: list[Run] = []
        if not self._experiments:
            return runs
        token: str | None = None
        with explained(self._address):
            while True:
                page = self._client.search_runs(self._experiments, query, max_results=PAGE, page_token=token)
                runs += page
                token = page.token
                if not token:
                    return runs
